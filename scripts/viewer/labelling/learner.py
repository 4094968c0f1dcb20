"""A bundle that learns from the labels of the page, with the trainings, versions and maps of the label server."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.label_server.learning.kept_maps import KeptMaps
from scripts.label_server.learning.recipe import Recipe
from scripts.label_server.learning.served_model import HEAD, SLIDE_FEATURES, BundleSource, ServedModel, config_files
from scripts.label_server.learning.stored_features import keys_of_features
from scripts.label_server.learning.training import DONE, Trainings, TrainingTask, recipe_of, write_run_manifest
from scripts.label_server.learning.training_keys import check_training_keys, keys_of_training
from scripts.label_server.learning.versions import ORIGINAL, ModelVersions
from scripts.label_server.learning.warm_process import WarmProcess
from scripts.label_server.refusal import Refusal
from shared.data.tissue_cache import TissueCache
from shared.inference.bundle_mapper import CHECKPOINT_NAME
from shared.inference.cohort.folder_settings import SETTINGS_NAME

from ..cohort import Cohort, Maps
from .labels import Labels

logger = logging.getLogger(__name__)

# The overlay with which a bundle that learns from slides learns from their features.
FEATURES_OVERLAY = "features"
# The features are already stored, and starting processes takes longer than reading them.
_ALWAYS: Mapping[str, Any] = {"run_embed": "$None", "num_workers": 0, "tracking::enabled": False}
_EPOCH = re.compile(r"epoch (\d+)/(\d+)")
_OF_EPOCHS = 80  # per cent of the progress bar; the rest is for the start, the threshold and the map
_STOPPED = "the training was stopped; nothing has changed"


@dataclass(frozen=True)
class Progress:
    """The progress of a training or a map, as the page shows it.

    Args:
        text: what is being done, or the result of what was done last.
        percent: progress in per cent; None if nothing is under way.
    """

    text: str = ""
    percent: int | None = None


@dataclass(frozen=True)
class LearnerConfig:
    """The configuration of a `Learner`.

    Args:
        bundle: folder of the bundle.
        features: folder of the slides' stored features.
        work_dir: folder for labels, versions and maps.
        checkpoint: initial weights, a ``model.pt`` or its folder; None for those of the bundle, or new ones if it has none.
        training: keys and values of every training, which override all others.
    """

    bundle: Path
    features: Path
    work_dir: Path
    checkpoint: Path | None = None
    training: Mapping[str, Any] | None = None


class Learner:
    """Trains a bundle's head on the labelled slides, maps slides with it, and returns to any earlier version.

    It does one thing at a time, in its own thread, and pages poll its progress. The first thing that a user asks for while a
    slide is mapped comes next: another page may have begun that map a moment ago. The maps of each version are a method of the
    cohort.

    Args:
        cohort: slides to be labelled; the maps of each version are added to it.
        manifest: manifest of the slides.
        config: bundle, folders and training keys.

    Attributes:
        labels: labels of the slides.
        revision: increases with every new version or map.

    Raises:
        ValueError: if the bundle does not learn from slide labels and stored features, or the configuration does not fit it.
    """

    def __init__(self, cohort: Cohort, manifest: Path, config: LearnerConfig) -> None:
        work, source = config.work_dir, _source(config)
        self._cohort = cohort
        self.model = ServedModel(config.bundle.name, source, work / "models", features=config.features)
        if recipe_of(self.model) is None:
            raise ValueError(f"{config.bundle} cannot be trained from a viewer's labels: it has no configs/from_viewer.json")
        # Existing weights record how they were trained.
        known = {} if self.has_weights else keys_of_features(config.features)
        given = dict(config.training or {})
        check_training_keys({self.model.name: source}, given)
        self._extra = {**keys_of_training(source, known), **_ALWAYS, **given}
        self.model.versions.clear_unfinished()
        self._tissue = TissueCache(self._extra.get("tissue_dir") or work / "tissue", self._extra.get("tissue_mpp") or 8.0)
        self.labels = Labels(work, cohort.slides, self._tissue, manifest)
        self._maps = KeptMaps(work / "maps")
        self._original_maps = maps_of_original(self.model.versions)
        self._methods: dict[str, int] = {}
        for row in self.model.versions.listed():
            self._show(row["version"])
        self.warm = WarmProcess(config_files(source, "train"))
        self.warm.prepare()
        self._trainings = Trainings(self._prepare, self._extra, warm=self.warm)
        self._task: TrainingTask | None = None
        self._doing = Progress()
        # Whether something that a user has asked for is under way, or comes next; and that itself.
        self._has_request = False
        self._request: Future[None] | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="learner")
        self.revision = 0

    @property
    def has_weights(self) -> bool:
        """Whether there is a version that can map, either the bundle's own or one that was trained here."""
        return self.model.versions.current.checkpoint.is_file()

    @property
    def version(self) -> str:
        """The current version, which makes the maps."""
        return self.model.versions.current.name

    def versions(self) -> list[tuple[str, str]]:
        """Name and description of each version that can map, oldest first."""
        listed = self.model.versions.listed()
        return [(row["version"], _described(row)) for row in listed if Path(self._checkpoint(row["version"])).is_file()]

    def method(self, version: str) -> int | None:
        """The number of a version's method in the cohort; None while it has no maps."""
        return self._methods.get(version)

    @property
    def former(self) -> str | None:
        """The version from which the current one was trained, or otherwise the version before it; None for the first."""
        names = [name for name, _ in self.versions()]
        place = names.index(self.version) if self.version in names else 0
        origin = self.model.versions.record().get("trained_from")
        return origin if origin in names else names[place - 1] if place else None

    @property
    def progress(self) -> Progress:
        task = self._task
        if self._doing.percent is None or task is None:
            return self._doing
        found = _EPOCH.findall("\n".join(task.summary()["details"]))
        if not found:
            return self._doing
        epoch, epochs = map(int, found[-1])
        return Progress(f"training, epoch {epoch} of {epochs}", 5 + _OF_EPOCHS * epoch // max(1, epochs))

    def train(self, slide: str) -> None:
        """Train on the labelled slides, starting from the current version, and map a slide with the new version."""
        self._begin("training", self._train, slide, is_request=True)

    def map(self, slide: str) -> bool:
        """Map a slide with the current version unless it is already mapped; False if the learner is busy."""
        if not self.has_weights or self.is_mapped(slide):
            return True
        return self._begin("mapping", self._map, slide)

    def choose(self, version: str, slide: str) -> None:
        """Switch to an earlier or later version, and map a slide with it."""
        self._begin("mapping", self._choose, version, slide, is_request=True)

    def stop(self) -> None:
        """Stop the training that is under way or comes next; the current version stays."""
        if self._request is not None and self._request.cancel():
            self._has_request = False
            self._doing = Progress(_STOPPED)
        self._trainings.stop()

    def close(self) -> None:
        """Stop everything that is under way; nothing is trained or published afterwards."""
        self._trainings.close()
        self._worker.shutdown(wait=False, cancel_futures=True)
        self.stop()

    def has_map(self, method: int, slide: str) -> bool:
        """Whether a method has a map of a slide."""
        return self._cohort.methods[method].has_map(slide)

    def is_mapped(self, slide: str) -> bool:
        """Whether the current version has mapped a slide."""
        number = self.method(self.version)
        return number is not None and self.has_map(number, slide)

    def _begin(self, what: str, action: Any, *arguments: Any, is_request: bool = False) -> bool:
        """Begin something, or let it come next if it is a user's request; False if the learner is busy."""
        if self._has_request or (self._doing.percent is not None and not is_request):
            return False
        self._has_request = is_request
        self._doing = Progress(what, 0)
        future = self._worker.submit(self._do, what, is_request, action, *arguments)
        if is_request:
            self._request = future
        return True

    def _do(self, what: str, is_request: bool, action: Any, *arguments: Any) -> None:
        self._doing = Progress(what, 0)
        try:
            text = action(*arguments)
        except (ValueError, OSError, RuntimeError) as error:
            logger.warning("%s", error)
            text = str(error)
        except Exception as error:
            logger.exception("error in the learner of the page")
            text = f"{type(error).__name__}: {error}"
        self._task = None
        self.revision += 1
        if is_request:
            self._has_request = False
        if not self._has_request:
            self._doing = Progress(text)

    def _train(self, slide: str) -> str:
        started = time.perf_counter()
        task = self._task = self._trainings.start(self.model, {} if self.has_weights else {"pretrained": False})
        while self._trainings.running is task:
            time.sleep(0.02)
        if task.status != DONE:
            return task.reason or _STOPPED
        self._doing, self._task = Progress("mapping", 90), None
        self._map(slide)
        return f"version {task.version}: trained and mapped in {time.perf_counter() - started:.1f} s"

    def _choose(self, version: str, slide: str) -> str:
        if version not in [name for name, _ in self.versions()]:
            raise Refusal(f"there is no version {version!r}")
        self.model.versions.choose(version)
        self._map(slide)
        return f"maps are made with version {version} from now on"

    def _map(self, slide: str) -> str:
        version = self.version
        viewed = self._cohort.slides[slide]
        self._maps.map_slide(self._folder_of(version), self.model.loaded(), slide, viewed.path, viewed.mpp)
        self._show(version)
        return f"mapped with version {version}"

    def _show(self, version: str) -> None:
        """Add the maps of a version to the cohort as a method, if there are any."""
        if version not in self._methods:
            found = self._maps.folder.glob(f"{self._folder_of(version)}/*/{SETTINGS_NAME}")
            settings = sorted(found, key=lambda path: path.stat().st_mtime_ns)
            if settings:
                self._methods[version] = self._cohort.add(Maps.of_folder(settings[-1].parent, _title(version)))

    def _folder_of(self, version: str) -> str:
        """Name of the folder of a version's maps."""
        return self._original_maps if version == ORIGINAL else version

    def _checkpoint(self, version: str) -> Path:
        return self.model.versions.get(version).checkpoint

    def _prepare(self, model: ServedModel, recipe: Recipe, run: Path, options: Mapping[str, Any]) -> dict[str, Any]:
        slides = self.labels.slides_to_learn_from()
        rows = write_run_manifest(model, recipe, run, slides, self._tissue, options, self._extra)
        return {"labels": {slide.image_id: [slide.label.label, slide.label.fraction] for slide in slides}, "rows": rows}


def maps_of_original(versions: ModelVersions) -> str:
    """Name of the folder for maps of the initial checkpoint, which may have changed when the page is opened again."""
    checkpoint = versions.original
    return f"{ORIGINAL}-{hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:12]}" if checkpoint.is_file() else ORIGINAL


def _source(config: LearnerConfig) -> BundleSource:
    """The bundle, with the overlay with which it learns from stored features."""
    bundle, features = config.bundle, config.features
    if not (bundle / "configs" / "inference.json").is_file():
        raise ValueError(f"--bundle {bundle} is not a bundle: {bundle / 'configs/inference.json'} does not exist")
    if not features.is_dir():
        raise ValueError(f"--features {features}: the folder does not exist; create it with scripts/embed.py")
    given = config.checkpoint or bundle / "models" / CHECKPOINT_NAME
    checkpoint = given / CHECKPOINT_NAME if given.is_dir() else given
    if config.checkpoint is not None and not checkpoint.is_file():
        raise ValueError(f"--checkpoint {config.checkpoint}: {checkpoint} does not exist")
    if checkpoint.with_name(HEAD).is_file():
        raise ValueError(
            f"--checkpoint {config.checkpoint} is a head that comes with a bundle and cannot be trained further: give the "
            "checkpoint of a training on features, or omit it to begin with new weights"
        )
    for overlays in ((), (FEATURES_OVERLAY,)):
        source = BundleSource(bundle.resolve(), checkpoint.resolve(), overlays)
        files = [path for path in config_files(source, "train") if path.is_file()]
        if any(SLIDE_FEATURES in json.loads(path.read_text(encoding="utf-8")) for path in files):
            return source
    raise ValueError(
        f"--bundle {bundle}: expected a bundle that learns from stored slide features, found no key {SLIDE_FEATURES!r} in its "
        f"train.json or an overlay {FEATURES_OVERLAY}.json"
    )


def _title(version: str) -> str:
    return "before any training" if version == ORIGINAL else f"version {version}"


def _described(row: Mapping[str, Any]) -> str:
    counts = row.get("rows", {})
    learnt = f", from {counts.get('0', 0)} normal and {counts.get('1', 0)} tumour slides" if counts else ""
    return f"{_title(row['version'])}{learnt}"
