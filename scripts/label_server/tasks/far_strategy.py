"""Active learning from stored features: tissue that the network is uncertain of and that is unlike any labelled tissue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from shared.features.slide_features import SlideFeatures
from shared.features.slide_files import features_file
from shared.wsi.annotations.frames import QUPATH
from shared.wsi.slide import Slide

from ..doors.access import check_name
from ..doors.numbers import whole_number
from ..learning.served_model import LoadedModel, ServedModel
from ..learning.weak_labels import WeakLabel
from ..refusal import Refusal
from ..viewer_frame import frame_origin_of_slide
from .bundle_tasks import LabelOf, proposed_at, region_size, requested_model
from .far_regions import CellScores, best_region, distances, known_cells, score_cells
from .passed_over import LastInTurn, PassedOver

NAME = "uncertain_and_far"
_MOST_LOOKED_AT, _MOST_KNOWN = 64, 16


class UncertainAndFar(Strategy):
    """Proposes the region whose cells are the least certain and the farthest, in feature space, from labelled cells.

    A cell's score is its uncertainty times its distance from the nearest labelled cell, divided by the largest such distance.
    Only stored features are read. Slides without a label come first, and among them those that were proposed longest ago.

    Args:
        models: served models; those with a folder of features take part.
        label_of: function that returns the label of a slide.
        path_of: function that returns the file of a slide.
        frame: coordinate frame of proposed regions, one of `ANNOTATION_FRAMES`.
    """

    def __init__(
        self, models: Mapping[str, ServedModel], label_of: LabelOf, path_of: Callable[[str], Path], frame: str = QUPATH
    ) -> None:
        super().__init__("the region in which the model is uncertain and the tissue least like labelled tissue, from features")
        self._models = {name: model for name, model in models.items() if model.features is not None}
        self._label_of, self._path_of, self._frame = label_of, path_of, frame
        self._last = {name: LastInTurn(partial(self._files, name)) for name in self._models}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        name = requested_model(request.get("model"), self._models)
        size = region_size(request.get("patch_size"))
        most = whole_number(request.get("slides", 8), "slides", 1, _MOST_LOOKED_AT)
        loaded, passed_over = self._models[name].loaded(), PassedOver(self._last[name])
        images = sorted(datastore.list_images())
        files = passed_over.usable(images, lambda image: self._file(name, image), len(images), len(images))
        stored = [image for image, file in files.items() if file.is_file()]
        labels = {image: self._label_of(image) for image in stored}
        wanted = request.get("image")
        if wanted:
            image = check_name(wanted)
            if image not in labels:
                raise Refusal(f"there are no features of {image!r}: create them with scripts/embed.py", 404)
            found = {image: self._scores(name, loaded, image)}
        else:
            unknown = [image for image in stored if labels[image] is None] or stored
            in_turn = sorted(unknown, key=lambda image: proposed_at(datastore, image, NAME))
            in_turn = self._last[name].in_turn(in_turn)
            found = passed_over.usable(in_turn, lambda image: self._scores(name, loaded, image), most)
        known = self._known(name, loaded, {image: label for image, label in labels.items() if label is not None})
        far = {image: distances(scores.projected, known) for image, scores in found.items()}
        largest = max((float(values.max(initial=0)) for values in far.values()), default=0.0) or 1.0
        best = {
            image: best_region(scores.coords, scores.side_px, scores.uncertainty * far[image] / largest, size)
            for image, scores in found.items()
        }
        if not best:
            passed_over.check()
            return None
        image = max(best, key=lambda one: best[one][1])
        (x, y, width, height), score = best[image]
        with Slide(self._path_of(image)) as slide:
            width, height = min(width, slide.size_px[0] - x), min(height, slide.size_px[1] - y)
        left, top = frame_origin_of_slide(self._path_of(image), self._frame)
        return {"id": image, "bbox": [x - left, y - top, width, height], "score": round(score, 4), "model": name}

    def _file(self, name: str, image: str) -> Path:
        return features_file(str(self._models[name].features), self._path_of(image))

    def _files(self, name: str, image: str) -> list[Path]:
        return [self._path_of(image), self._file(name, image)]

    def _known(self, name: str, loaded: LoadedModel, labels: Mapping[str, WeakLabel]) -> np.ndarray:
        """The projected features of labelled cells."""
        last = self._last[name]
        in_turn, passed_over = last.in_turn(labels), PassedOver(last)
        found = passed_over.usable(in_turn, lambda image: self._scores(name, loaded, image, labels[image]), _MOST_KNOWN)
        return np.concatenate([scores.projected for scores in found.values()]) if found else np.zeros((0, 1), np.float32)

    def _scores(self, name: str, loaded: LoadedModel, image: str, label: WeakLabel | None = None) -> CellScores:
        """The scores of a slide's cells, or of its labelled cells if `label` is given.

        Raises:
            ValueError: if its features are those of another slide, or of none of it.
        """
        with ExitStack() as stack:
            slide = stack.enter_context(Slide(self._path_of(image)))
            features = stack.enter_context(SlideFeatures.open(self._file(name, image), slide.mpp))
            if not features.is_of(slide):
                raise ValueError(f"{features.path} contains features of another slide")
            if not len(features):
                raise ValueError(f"{features.path} contains no features, as no tissue was found on the slide")
            cells = None if label is None else known_cells(features.coords, float(features.stride_px), label.drawn)
            return score_cells(features, loaded.mapper, cells)
