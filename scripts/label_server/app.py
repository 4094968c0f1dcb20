"""The MONAI Label app: this repository's bundles over a folder of slides."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from shared import __version__
from shared.data.case_pattern import CasePattern
from shared.data.tissue_cache import TissueCache
from shared.wsi.annotations.frames import QUPATH

from .doors.access import check_name
from .doors.numbers import LEAST_MPP, MOST_MPP, number
from .doors.uploads import Uploads
from .learning.recipe import Recipe
from .learning.served_model import BundleSource, ServedModel, check_features, config_files
from .learning.training import Trainings, recipe_of, write_run_manifest
from .learning.training_keys import check_training_keys
from .learning.training_set import LabelledSlide, with_cases, with_drawn_fraction
from .learning.warm_process import WarmProcess
from .learning.weak_labels import WeakLabel, weak_label
from .maps.slide_maps import SlideMaps
from .refusal import Refusal
from .studies.datastore import SlideDatastore
from .studies.drawn_files import DrawnFiles
from .tasks.bundle_tasks import BundleInfer, BundleTrain, LeastCertain, Unlabelled
from .tasks.far_strategy import NAME, UncertainAndFar
from .viewer_frame import frame_origin_of_slide

logger = logging.getLogger(__name__)

REMOTE = ("http://", "https://")


@dataclass(frozen=True)
class AppConfig:
    """The configuration of a `PathologyApp`.

    Args:
        work_dir: folder for versions, maps and tissue.
        sources: bundle name -> `BundleSource`.
        overrides: keys of the bundles' ``inference.json`` and their values.
        training: keys and values of every training whose bundle has the key, which override all others.
        slide_mpp: micrometres per level-0 pixel of slides whose files do not state it.
        patch_mpp: micrometres per pixel of uploaded images.
        retrain: model that is retrained automatically; None for none.
        retrain_every: number of slides with new or changed labels after which it is retrained.
        auto_reload: whether to watch the studies folder.
        annotation_frame: coordinate frame of QuPath's requests and answers and of submitted annotations, one of
            `ANNOTATION_FRAMES`.
        features: bundle name -> folder of the slides' stored features, on which it is trained and from which it maps.
        case_pattern: of the patient, in the path of a slide in the studies folder: a case stays in one split of a training. None
            makes each slide a case.
    """

    work_dir: Path
    sources: Mapping[str, BundleSource]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    slide_mpp: float | None = None
    patch_mpp: float | None = None
    retrain: str | None = None
    retrain_every: int = 0
    auto_reload: bool = True
    annotation_frame: str = QUPATH
    features: Mapping[str, Path] = field(default_factory=dict)
    case_pattern: CasePattern | None = None


class PathologyApp(MONAILabelApp):
    """Models, trainers and strategies for one datastore.

    Args:
        app_dir: MONAI Label's folder for this app.
        studies: folder of the slides, or the address of a Digital Slide Archive.
        config: folders, bundles and options.
    """

    def __init__(self, app_dir: str, studies: str, config: AppConfig) -> None:
        self.settings, work = config, config.work_dir
        overrides = dict(self.settings.overrides)
        if self.settings.slide_mpp is not None:
            overrides["slide_mpp"] = self.settings.slide_mpp
        mpp = self.settings.training.get("mpp")
        if mpp is not None:
            mpp = number(mpp, "--train_set mpp", LEAST_MPP, MOST_MPP)
        check_features(self.settings.sources, self.settings.features)
        self.models = {
            name: ServedModel(name, source, work / "models" / name, overrides, self.settings.features.get(name), mpp)
            for name, source in self.settings.sources.items()
        }
        trainable = {name: model.source for name, model in self.models.items() if recipe_of(model) is not None}
        check_training_keys(trainable, self.settings.training)
        for model in self.models.values():
            model.versions.clear_unfinished()
        self.maps = SlideMaps(work / "maps", self.settings.patch_mpp)
        self.tissue = TissueCache(work / "tissue")
        self.drawn = DrawnFiles(work / "drawn")
        self.uploads = Uploads(work / "temporary" / "uploads")
        files = [path for source in trainable.values() for path in config_files(source, "train")]
        self.warm = WarmProcess(files)
        self.warm.prepare()
        self.trainings = Trainings(self._write_training_set, self.settings.training, warm=self.warm)
        super().__init__(
            app_dir,
            studies,
            {},
            "Weakly supervised histopathology",
            "Tumour maps of whole slides, trained on weak labels",
            __version__,
        )

    def init_datastore(self) -> Datastore:
        if self.studies.startswith(REMOTE):
            return super().init_datastore()
        own = [self.settings.work_dir]
        return SlideDatastore(self.studies, self.settings.auto_reload, self.label_changed, self._check_annotations, own)

    def init_infers(self) -> dict[str, InferTask]:
        return {name: BundleInfer(model, list(model.loaded().labels)) for name, model in self.models.items()}

    def init_trainers(self) -> dict[str, TrainTask]:
        return {name: BundleTrain(model, self.trainings) for name, model in self.models.items() if recipe_of(model) is not None}

    def init_strategies(self) -> dict[str, Strategy]:
        found: dict[str, Strategy] = {
            "least_certain": LeastCertain(self.models, self.maps, self.label_of, self.slide_path, self.settings.annotation_frame),
            "unlabelled": Unlabelled(self.label_of, self.slide_path),
        }
        if self.settings.features:
            found[NAME] = UncertainAndFar(self.models, self.label_of, self.slide_path, self.settings.annotation_frame)
        return found

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders of this machine that are hidden from clients."""
        bundles = [model.source.folder.parent for model in self.models.values()]
        checkpoints = [model.source.checkpoint.parent for model in self.models.values()]
        found = [
            self.settings.work_dir,
            *bundles,
            *checkpoints,
            Path(tempfile.gettempdir()),
            Path.home(),
            Path(__file__).parents[2],
        ]
        return (*map(str, found), *([] if self.studies.startswith(REMOTE) else [self.studies]))

    def model(self, name: str) -> ServedModel:
        """A served model.

        Raises:
            Refusal: if there is none of this name.
        """
        if name not in self.models:
            raise Refusal(f"there is no model {name!r}; the models are {', '.join(self.models)}", 404)
        return self.models[name]

    def image_id(self, name: object, what: str = "image") -> str:
        """The id of a slide, or of its label, that a client names, see `SlideDatastore.own_id`.

        Raises:
            Refusal: if it is no valid name.
        """
        checked = check_name(name, what)
        return self._datastore.own_id(checked) if isinstance(self._datastore, SlideDatastore) else checked

    def slide_path(self, image_id: str) -> Path:
        """The file of a slide.

        Raises:
            Refusal: if the slide is unknown, or the archive cannot provide its file.
        """
        if isinstance(self._datastore, SlideDatastore):
            return self._datastore.slide_path(image_id)
        try:
            uri = str(self._datastore.get_image_uri(image_id))
            if uri.startswith(REMOTE):
                # Downloads the whole slide once; afterwards its address is a file.
                uri = str(self._datastore.get_image(image_id, {}))
        except OSError as error:
            raise Refusal(f"the archive {self.studies} does not provide slide {image_id!r} ({error})", 404) from error
        if not Path(uri).is_file():
            raise Refusal(f"there is no slide {image_id!r} in {self.studies}", 404)
        return Path(uri)

    def label_of(self, image_id: str) -> WeakLabel | None:
        """The weak label of a slide, see `weak_label`; None if it has none, or if it is damaged, which is logged."""
        store = self._datastore
        annotations = store.annotation_file(image_id) if isinstance(store, SlideDatastore) else None
        try:
            origin = (0, 0)
            if annotations is not None:
                origin = frame_origin_of_slide(self.slide_path(image_id), QUPATH)
            info, frame = store.get_image_info(image_id), self.settings.annotation_frame
            return weak_label(info, annotations, image_id, frame, origin, self.drawn.areas)
        except (ValueError, OSError) as error:
            logger.warning("the label of %s is ignored: %s", image_id, error)
            return None

    def _check_annotations(self, slide: Path, annotations: Path) -> None:
        """Check that submitted annotations of a slide can be read.

        Raises:
            Refusal: if they cannot.
        """
        try:
            origin = frame_origin_of_slide(slide, QUPATH)
        except Refusal:
            # The slide may be repaired later.
            origin = (0, 0)
        self.drawn.areas(annotations, self.settings.annotation_frame, origin)

    def weak_labels(self) -> dict[str, WeakLabel]:
        """The weak labels of all slides that have one."""
        found = {image_id: self.label_of(image_id) for image_id in sorted(self._datastore.list_images())}
        return {image_id: label for image_id, label in found.items() if label is not None}

    def labelled_slides(self) -> list[LabelledSlide]:
        """The labelled slides with their files and cases, and with the drawn fraction where none was stated.

        Raises:
            Refusal: if the case of one is not known.
        """
        found = [LabelledSlide(name, self.slide_path(name), label) for name, label in self.weak_labels().items()]
        if self.settings.case_pattern is not None:
            infos = {slide.image_id: self._datastore.get_image_info(slide.image_id) for slide in found}
            names = {slide.image_id: str(infos[slide.image_id].get("name", slide.path.name)) for slide in found}
            found = with_cases(found, names, self.settings.case_pattern)
        return [with_drawn_fraction(slide, self.tissue, self.settings.slide_mpp) for slide in found]

    def label_changed(self, image_id: str) -> None:
        """Retrain in the background if enough labels have changed since the last training."""
        name, every = self.settings.retrain, self.settings.retrain_every
        if not name or every < 1 or self.trainings.running is not None:
            return
        known = self.models[name].versions.record().get("labels", {})
        new = [slide for slide, label in self.weak_labels().items() if known.get(slide) != [label.label, label.fraction]]
        if len(new) >= every:
            logger.info("%d labels are new or changed: retraining %s", len(new), name)
            threading.Thread(target=self._retrain, args=(self.models[name],), name="retrain", daemon=True).start()

    def _retrain(self, model: ServedModel) -> None:
        try:
            self.trainings.start(model, {})
        except ValueError as error:
            logger.warning("%s cannot be retrained: %s", model.name, error)

    def on_save_label(self, image_id: str, label_id: str) -> None:
        """Do nothing, because the datastore has already called `label_changed`."""

    def _write_training_set(self, model: ServedModel, recipe: Recipe, run: Path, options: Mapping[str, Any]) -> dict[str, Any]:
        slides, mpp = self.labelled_slides(), self.settings.slide_mpp
        rows = write_run_manifest(model, recipe, run, slides, self.tissue, options, self.settings.training, mpp)
        labels = self.weak_labels()
        return {"labels": {name: [label.label, label.fraction] for name, label in labels.items()}, "rows": rows}
