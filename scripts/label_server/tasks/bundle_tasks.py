"""A served bundle as the tasks that MONAI Label's clients expect."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from shared.inference.row import Row
from shared.wsi.annotations.frames import QUPATH
from shared.wsi.slide import Slide

from ..doors.access import check_name
from ..doors.numbers import FARTHEST_PX, whole_number
from ..learning.served_model import LoadedModel, ServedModel
from ..learning.training import Trainings, base_config, recipe_of
from ..learning.weak_labels import WeakLabel, proposals
from ..maps.slide_maps import SlideMaps
from ..refusal import Refusal
from ..viewer_frame import frame_origin_of_slide
from .passed_over import KnownFault, LastInTurn, PassedOver
from .uncertainty import most_uncertain_region

REGION_PX = 1024
# Slides that one request may map.
MOST_MAPPED = 64
LabelOf = Callable[[str], WeakLabel | None]


class BundleInfer(InferTask):
    """A bundle as a whole-slide model; the maps are made by the endpoints of `scripts.label_server.endpoints.inference`."""

    def __init__(self, model: ServedModel, labels: list[str]) -> None:
        super().__init__(InferType.SEGMENTATION, labels, 2, model.description)
        self.model = model

    def info(self) -> dict[str, Any]:
        return {**super().info(), "pathology": True, "version": self.model.versions.current.name}

    def is_valid(self) -> bool:
        return True

    def get_path(self, validate: bool = True) -> str:
        return str(self.model.versions.current.checkpoint)

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        raise Refusal("use POST /infer/wsi/{model}, /infer/wsi_v2/{model} or /infer/{model}", 404)


class BundleTrain(TrainTask):
    """A bundle that is trained on weak labels, see `scripts.label_server.learning.training`."""

    def __init__(self, model: ServedModel, trainings: Trainings) -> None:
        super().__init__(f"{model.description}, trained on weak labels")
        self.model, self.trainings = model, trainings

    def config(self) -> dict[str, Any]:
        recipe = recipe_of(self.model)
        epochs = base_config(self.model, recipe).get(recipe.max_epochs or "") if recipe else None
        return {"max_epochs": epochs, "pretrained": True}

    def stats(self) -> dict[str, Any]:
        return {"version": self.model.versions.current.name, **self.model.versions.record()}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        return self.trainings.start(self.model, request).summary()


class Unlabelled(Strategy):
    """Proposes the slide without a label that was proposed longest ago, or never; slides that cannot be opened are skipped.

    Args:
        label_of: function that returns the label of a slide.
        path_of: function that returns the file of a slide.
    """

    def __init__(self, label_of: LabelOf, path_of: Callable[[str], Path]) -> None:
        super().__init__("a slide without a label")
        self._label_of, self._path_of = label_of, path_of
        self._last = LastInTurn(lambda name: [path_of(name)])

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        found = [name for name in sorted(datastore.list_images()) if self._label_of(name) is None]
        in_turn = sorted(found, key=lambda name: proposed_at(datastore, name, "unlabelled"))
        passed_over = PassedOver(self._last)
        for best in passed_over.usable(self._last.in_turn(in_turn), self._open, 1):
            return {"id": best}
        passed_over.check()
        return None

    def _open(self, name: str) -> None:
        Slide(self._path_of(name)).close()


class LeastCertain(Strategy):
    """Proposes the slide, and the region in it, in which the model's map is least certain; slides without a label come first.

    For each request it maps up to ``map_slides`` slides that the current version has not mapped yet, those without a label first,
    and then chooses among all mapped slides. Slides that cannot be mapped do not count; they are tried again when their file has
    changed. A fault of the server ends the request.

    Args:
        models: served models.
        maps: maps of the slides.
        label_of: function that returns the label of a slide.
        path_of: function that returns the file of a slide.
        frame: coordinate frame of proposed regions, one of `ANNOTATION_FRAMES`; only QuPath draws them.
    """

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        maps: SlideMaps,
        label_of: LabelOf,
        path_of: Callable[[str], Path],
        frame: str = QUPATH,
    ) -> None:
        super().__init__("the slide, and the region in it, in which the model is least certain")
        self._models, self._maps, self._label_of, self._path_of, self._frame = models, maps, label_of, path_of, frame
        self._last = {name: LastInTurn(lambda image: [path_of(image)]) for name in models}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        name = requested_model(request.get("model"), self._models)
        size = region_size(request.get("patch_size"))
        model, wanted, passed_over = self._models[name].loaded(), request.get("image"), PassedOver(self._last[name])
        if wanted:
            image = check_name(wanted)
            rows = {image: self._row(name, model, image) or self._maps.map_slide(name, model, image, self._path_of(image))}
        else:
            most = whole_number(request.get("map_slides", 1), "map_slides", 0, MOST_MAPPED)
            # The candidates are slides without a label, or all slides if every one has a label.
            images = sorted(datastore.list_images())
            images = [image for image in images if self._label_of(image) is None] or images
            rows = self._rows(name, model, images, most, passed_over)
        folder = self._maps.folder_of(name, model)
        found = {image: most_uncertain_region(folder / f"{image}.ome.tif", row, size) for image, row in rows.items()}
        if not found:
            passed_over.check()
            return None
        best = max(found, key=lambda image: found[image].score)
        left, top = frame_origin_of_slide(self._path_of(best), self._frame)
        x, y, width, height = found[best].box
        bbox = [x - left, y - top, width, height]
        return {"id": best, "bbox": bbox, "uncertainty": round(found[best].score, 4), "model": name}

    def _rows(self, name: str, model: LoadedModel, images: Sequence[str], most: int, passed_over: PassedOver) -> dict[str, Row]:
        """The rows of the mapped slides, after up to `most` more have been mapped."""
        # Only rows are read here: all slides are looked at.
        known = passed_over.usable(images, lambda image: self._row(name, model, image), len(images), len(images))
        unmapped = self._last[name].in_turn(image for image, row in known.items() if row is None)
        mapped = passed_over.usable(unmapped, lambda image: self._mapped(name, model, image), most)
        return {image: row for image in images if (row := known.get(image) or mapped.get(image)) is not None}

    def _row(self, name: str, model: LoadedModel, image: str) -> Row | None:
        return self._maps.row(name, model, image, self._path_of(image))

    def _mapped(self, name: str, model: LoadedModel, image: str) -> Row:
        path = self._path_of(image)
        reason = self._maps.fault_of_file(name, model, image, path)
        if reason is not None:
            raise KnownFault(f"{image} cannot be mapped: {reason}")
        try:
            return self._maps.map_slide(name, model, image, path)
        except OSError as error:
            # What is wrong with its file is a Refusal: these are the server's own files.
            raise Refusal(f"{image} cannot be mapped: {error}", 507) from error


def requested_model(name: Any, models: Mapping[str, ServedModel]) -> str:
    """The name of the requested model, or of the first served model if the request names none."""
    if name in (None, ""):
        return next(iter(models))
    if not isinstance(name, str) or name not in models:
        raise Refusal(f"there is no model {repr(name)[:80]}; the models are {', '.join(models)}", 404)
    return name


def proposed_at(datastore: Datastore, image_id: str, strategy: str) -> int:
    """When a slide was last proposed, in seconds since 1970; 0 for never."""
    return int(proposals(datastore.get_image_info(image_id)).get(strategy, {}).get("ts", 0))


def region_size(value: Any) -> tuple[int, int]:
    if value is None:
        return REGION_PX, REGION_PX
    if not isinstance(value, list) or len(value) != 2:
        raise Refusal(f"patch_size must be two whole numbers, got {repr(value)[:80]}")
    width, height = (whole_number(side, "each side of patch_size", 1, FARTHEST_PX) for side in value)
    return width, height
