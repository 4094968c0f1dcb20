"""Trainings in the background: a new version is trained and checked, and only then replaces the current one."""

from __future__ import annotations

import functools
import json
import logging
import re
import shutil
import subprocess
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from shared.data.tissue_cache import TissueCache
from shared.engines.run_record import FILES, VOLATILE
from shared.writers.atomic import atomic_path

from ..doors.numbers import MOST_EPOCHS, whole_number
from ..refusal import Refusal
from .recipe import Recipe, read_recipe
from .served_model import (
    SLIDE_FEATURES,
    ServedModel,
    config_files,
    encoder_keys,
    grouped_items,
    is_plain,
    plain_value,
    training_config,
)
from .training_keys import keys_of_training
from .training_set import LabelledSlide, write_training_set
from .versions import Version
from .warm_process import WarmProcess

logger = logging.getLogger(__name__)

MANIFEST, OVERLAY, LOG = "labels.csv", "overlay.json", "log.txt"
RUNNING, DONE, ERROR, STOPPED, SUBMITTED = "RUNNING", "DONE", "ERROR", "STOPPED", "SUBMITTED"
_LAST_LINES = 20
# Finished tasks that are remembered.
_MOST_TASKS = 100
# It becomes part of an expression of the configuration, so nothing else is accepted.
_DEVICE = re.compile(r"cpu|mps|cuda(:[0-9]{1,2})?")


def recipe_of(model: ServedModel) -> Recipe | None:
    """How a served bundle is trained; None if it cannot be trained on a viewer's labels, or is a head that came with it."""
    return None if model.source.head is not None else read_recipe(model.source.folder)


def base_config(model: ServedModel, recipe: Recipe) -> dict[str, Any]:
    """The plain values of a bundle's ``train.json``, its overlays, and the training of its current version, in this order."""
    config: dict[str, Any] = {}
    for path in config_files(model.source, "train"):
        config |= {name: value for name, value in grouped_items(json.loads(path.read_text())).items() if is_plain(value)}
    trained = grouped_items(training_config(model.versions.current.checkpoint))
    ignored = {*VOLATILE, "manifest", "dataset_dir", FILES, *recipe.overlay, recipe.initial_weights}
    for name, value in trained.items():
        if name in config and name not in ignored and not name.startswith("_") and is_plain(value):
            config[name] = plain_value(value)
    return config


def training_overlay(
    model: ServedModel, recipe: Recipe, run: Path, options: Mapping[str, Any], extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The overlay with which a training of the current version changes the bundle's ``train.json``.

    Args:
        model: model to train.
        recipe: how it is trained.
        run: folder of the training.
        options: options of the request: ``max_epochs``, ``pretrained`` (False begins with new weights), ``device``.
        extra: keys and values of every training, which override all others; keys that the bundle does not have are left out.
    """
    bundle = grouped_items(json.loads((model.source.folder / "configs" / "train.json").read_text()))
    settings = {name: value for name, value in base_config(model, recipe).items() if name in bundle and not name.startswith("_")}
    changed = {name: value for name, value in settings.items() if bundle[name] != value and name not in ("imports", "run")}
    overlay = {
        **changed,
        **recipe.overlay,
        "bundle_root": str(model.source.folder),
        "output_dir": str(run),
        "manifest": str(run / MANIFEST),
        "dataset_dir": str(run.parent),
    }
    if model.features is not None:
        overlay |= {SLIDE_FEATURES: str(model.features), **encoder_keys(model.features)}
    if options.get("pretrained", True) and recipe.initial_weights is not None:
        overlay[recipe.initial_weights] = str(model.versions.current.checkpoint)
    if options.get("max_epochs") is not None:
        if recipe.max_epochs is None:
            raise Refusal(f"the number of epochs of {model.name} cannot be chosen: leave out max_epochs")
        overlay[recipe.max_epochs] = int(options["max_epochs"])
    if options.get("device"):
        overlay["device"] = f"$torch.device({options['device']!r})"
    return overlay | keys_of_training(model.source, extra)


def write_run_manifest(
    model: ServedModel,
    recipe: Recipe,
    run: Path,
    slides: Sequence[LabelledSlide],
    tissue: TissueCache,
    options: Mapping[str, Any],
    extra: Mapping[str, Any],
    slide_mpp: float | None = None,
) -> dict[str, int]:
    """Write the manifest of a training, see `write_training_set`; return the number of rows with each label.

    Args:
        model: model to train.
        recipe: how it is trained.
        run: folder of the training.
        slides: slides with their labels.
        tissue: cache of the slides' tissue.
        options: options of the request: ``val_split``.
        extra: keys and values of every training, which override all others.
        slide_mpp: micrometres per level-0 pixel of slides whose files do not state it.
    """
    region = recipe.region({**base_config(model, recipe), **extra})
    share = options.get("val_split", 0.25)
    return write_training_set(slides, run / MANIFEST, tissue, region, recipe.needs_area, share, slide_mpp)


@dataclass
class TrainingTask:
    """One training, as it is reported to MONAI Label's clients."""

    model: str
    request: dict[str, Any]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = SUBMITTED
    start_ts: str = field(default_factory=lambda: _now())
    end_ts: str | None = None
    version: str | None = None
    reason: str | None = None
    log: Path | None = None

    def summary(self) -> dict[str, Any]:
        lines: list[str] = []
        if self.log is not None and self.log.is_file():
            with self.log.open(errors="replace") as file:
                lines = [line.rstrip() for line in deque(file, _LAST_LINES)]
        found = {name: getattr(self, name) for name in ("id", "status", "start_ts", "end_ts", "version", "reason")}
        return {**found, "request": {"model": self.model, **self.request}, "details": lines}


class Trainings:
    """Runs one training at a time, each in its own process, which ends with this one.

    Args:
        prepare: function that writes the manifest of a model into a folder and returns the record of the training.
        extra: keys and values of every training whose bundle has the key, which override all others.
        on_published: called with model and version when a training has become the current version.
        warm: process that runs the trainings; None starts a new process for each.
    """

    def __init__(
        self,
        prepare: Callable[[ServedModel, Recipe, Path, Mapping[str, Any]], dict[str, Any]],
        extra: Mapping[str, Any] | None = None,
        on_published: Callable[[ServedModel, Version], None] | None = None,
        warm: WarmProcess | None = None,
    ) -> None:
        self._warm = warm or WarmProcess([])
        self._prepare, self._extra, self._on_published = prepare, dict(extra or {}), on_published
        self._lock = threading.Lock()
        # Task id -> process, of running tasks.
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.tasks: list[TrainingTask] = []
        self._is_closed = False

    @property
    def running(self) -> TrainingTask | None:
        return next((task for task in self.tasks if task.status in (SUBMITTED, RUNNING)), None)

    def start(self, model: ServedModel, request: Mapping[str, Any]) -> TrainingTask:
        """Start to train a model.

        Raises:
            Refusal: if a training is running, the bundle cannot be trained on a viewer's labels, there are too few labels, the
                request is invalid, or the server is ending.
        """
        recipe = recipe_of(model)
        if recipe is None and model.source.head is not None:
            raise Refusal(
                f"{model.name} is served with the head in {model.source.head.parent}, which cannot be trained further: serve a "
                f"training of your own on features (--overlay {model.name}=features --checkpoint {model.name}=PATH)"
            )
        if recipe is None:
            raise Refusal(f"{model.name} cannot be trained from a viewer's labels: it has no configs/from_viewer.json")
        options = check_options(request)
        with self._lock:
            if self._is_closed:
                raise Refusal("the server is ending: it trains no more", 503)
            if self.running is not None:
                raise Refusal(f"{self.running.model} is being trained: wait, or stop it (DELETE /train/)", 429)
            task = TrainingTask(model.name, options)
            self.tasks = [*self.tasks[-_MOST_TASKS:], task]
        run: Path | None = None
        try:
            run = model.versions.new_run()
            task.log = run / LOG
            record = self._prepare(model, recipe, run, options)
        except BaseException as error:
            self._end(task, ERROR, str(error))
            if run is not None:
                shutil.rmtree(run, ignore_errors=True)
            raise
        threading.Thread(target=self._run, args=(task, model, recipe, run, record), name="training", daemon=True).start()
        return task

    def stop(self) -> TrainingTask | None:
        """Stop the running training and return it; None if there is none or it is already published."""
        with self._lock:
            task = self.running
            if task is not None and task.version is not None:
                return None
            if task is not None:
                task.status = STOPPED
        if task is not None:
            process = self._processes.get(task.id)
            if process is not None:
                process.kill()
        return task

    def close(self) -> None:
        """Start and publish nothing more, because the server is ending and its training with it.

        Safe to call in a signal handler.
        """
        self._is_closed = True

    def _run(self, task: TrainingTask, model: ServedModel, recipe: Recipe, run: Path, record: dict[str, Any]) -> None:
        try:
            with self._lock:
                if task.status == SUBMITTED:
                    task.status = RUNNING
            overlay = training_overlay(model, recipe, run, task.request, self._extra)
            with atomic_path(run / OVERLAY) as temporary:
                temporary.write_text(json.dumps(overlay, indent=2) + "\n")
            files = [*config_files(model.source, "train"), run / OVERLAY]
            meta = model.source.folder / "configs" / "metadata.json"
            code = self._warm.run(files, meta, run / LOG, functools.partial(self._started, task))
            self._processes.pop(task.id, None)
            if task.status == STOPPED:
                self._end(task, STOPPED, None)
                return
            if code:
                raise RuntimeError(f"the training ended with status {code}: {_last_error(run / LOG)}")
            # A version that cannot be loaded must not replace one that can.
            loaded = model.load(Version(run.name, run / "model.pt"))
            with self._lock:
                # A stop before this point prevents publication; afterwards it comes too late.
                if task.status == STOPPED or self._is_closed:
                    self._end(task, STOPPED, None)
                    return
                version = model.versions.publish(run, {**record, "request": task.request})
                task.version = version.name
            model.answer_with(loaded, version)
            task.log = version.checkpoint.with_name(LOG)
            if self._on_published is not None:
                self._on_published(model, version)
            self._end(task, DONE, None)
            logger.info("%s: version %s is now the current version", model.name, version.name)
        except Exception as error:
            logger.error(
                "training of %s failed: %s", model.name, error, exc_info=not isinstance(error, ValueError | RuntimeError)
            )
            self._end(task, ERROR, str(error))

    def _started(self, task: TrainingTask, process: subprocess.Popen[bytes]) -> None:
        self._processes[task.id] = process
        if task.status == STOPPED:
            process.kill()

    @staticmethod
    def _end(task: TrainingTask, status: str, reason: str | None) -> None:
        task.end_ts, task.reason = _now(), reason
        task.status = status


def check_options(request: Mapping[str, Any]) -> dict[str, Any]:
    """Validate the options of a training request, and return them.

    Raises:
        Refusal: for an unknown key or an invalid value.
    """
    known = {"max_epochs": int, "pretrained": bool, "device": str, "val_split": float}
    # QuPath's dialog sends batch sizes, but the bundle has its own.
    ignored = {"client_id", "model", "name", "train_batch_size", "val_batch_size"}
    unknown = sorted({*request} - {*known} - ignored)
    if unknown:
        raise Refusal(f"unknown options of a training: {', '.join(unknown)[:200]}; expected {', '.join(known)}")
    options: dict[str, Any] = {}
    for name, kind in known.items():
        value = request.get(name)
        # Clients return lists of choices, of which the first is the chosen one.
        value = value[0] if isinstance(value, list) and value else value
        if value is None:
            continue
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise Refusal(f"{name} must be of type {kind.__name__}, got {repr(value)[:80]}")
        options[name] = value
    whole_number(options.get("max_epochs", 1), "max_epochs", 1, MOST_EPOCHS)
    if not 0 < options.get("val_split", 0.25) < 1:
        raise Refusal(f"val_split must lie between 0 and 1, got {options['val_split']}")
    if not _DEVICE.fullmatch(options.get("device") or "cpu"):
        raise Refusal(f"device must be cpu, cuda, cuda:NUMBER or mps, got {options['device'][:80]!r}")
    return options


def _last_error(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    # MONAI wraps an error once for every level of the configuration, so the cause comes first.
    errors = [line for line in lines if re.match(r"([\w.]+(Error|Exception)|error): ", line)]
    return (errors or lines[-1:] or ["its log is empty"])[0]


def _now() -> str:
    return datetime.now().strftime("%Y-%m-%d %H:%M:%S")
