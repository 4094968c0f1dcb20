"""Maps and scores of whole slides with the networks of a sweep, as in a paper that trains on patches and scores slides."""

from __future__ import annotations

import hashlib
import json
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from scripts.declarations.published import bundle_of
from scripts.evaluation.finished_maps import evaluate
from shared.data import load_manifest, write_manifest
from shared.data.record import Record
from shared.front_door.check import check_given
from shared.front_door.given import Given
from shared.sweeps.child_process import run_child
from shared.sweeps.sweep import LOG
from shared.writers.atomic import atomic_path

ROOT = Path(__file__).resolve().parents[2]
# In the folder of a run: its test slides, their maps and their scores.
SLIDES, MAPS, SCORES = "slides.csv", "slide_maps", "slide_scores"
# Records next to the scores the slides and keys to which they belong.
SOURCE = "source.json"
# Keys that trainings and inference both have, but with different values.
_OF_TRAINING = {"output_dir", "dataset_dir", "num_workers", "seed", "batch_size", "tracking_uri", "bundle_root"}


class SlidesOfRuns:
    """Maps the test slides of a manifest with the network of a finished run, only once, and scores the maps.

    Args:
        config_files: configuration files of the training, its bundle's train.json first.
        manifest: manifest of whole slides with masks of the training's classes.
        keys: keys of the training and their values; those that inference.json also has are passed to it.

    Raises:
        ValueError: for an overlay that the bundle does not have, a value that its inference refuses, or two classes, whose maps
            have no scores per class.
    """

    def __init__(self, config_files: Sequence[str], manifest: Path, keys: Mapping[str, Any]) -> None:
        self.bundle, self.manifest = bundle_of(config_files), manifest
        self.overlays = [Path(file).stem for file in config_files[1:]]
        files = [self.bundle / "configs" / f"{name}.json" for name in ("inference", *self.overlays)]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise ValueError(f"{missing[0]} does not exist: slides are mapped with the bundle's own overlays")
        inference = ConfigParser.load_config_files([str(file) for file in files])
        self.keys = {name: value for name, value in keys.items() if _is_of_inference(name, inference)}
        check_given(Given(tuple(files), {name: "$None" if value is None else value for name, value in self.keys.items()}))
        self.num_classes = len(self.keys.get("class_names", inference.get("class_names", ())))
        if self.num_classes < 3:
            raise ValueError(f"slides are scored by their maps of three classes or more; found {self.num_classes} class_names")

    def check(self, validation_cases: Iterable[str | None]) -> None:
        """See that there are slides to map, before anything is trained.

        Args:
            validation_cases: see `scores`.

        Raises:
            ValueError: for a manifest that does not fit.
        """
        for case in validation_cases:
            self._test_slides(case)

    def scores(self, run: Path, validation_case: str | None = None) -> dict[str, Any]:
        """The content of ``metrics.json`` for the slides of a run, see `scripts/evaluate.py`.

        Args:
            run: output folder of the training.
            validation_case: the slide on which the run's epoch was chosen, which is not tested; None for the manifest's splits.

        Raises:
            ValueError: for an unsuitable manifest.
            RuntimeError: if the slides cannot be mapped, naming the log.
        """
        slides, metrics, source = run / SLIDES, run / SCORES / "metrics.json", run / SCORES / SOURCE
        write_manifest(self._test_slides(validation_case), slides)
        options = self._options(run, slides)
        wanted = json.dumps({"options": options, "slides sha256": hashlib.sha256(slides.read_bytes()).hexdigest()}) + "\n"
        if not (metrics.is_file() and source.is_file() and source.read_text() == wanted):
            source.unlink(missing_ok=True)
            self._map(run, options)
            evaluate(_evaluation(run / MAPS, slides, run / SCORES))
            with atomic_path(source) as temporary:
                temporary.write_text(wanted)
        return dict(json.loads(metrics.read_text()))

    def _test_slides(self, validation_case: str | None) -> list[Record]:
        return load_manifest(self.manifest, "test", num_classes=self.num_classes, validation_case=validation_case)

    def _options(self, run: Path, slides: Path) -> list[str]:
        """Of ``scripts/infer.py``."""
        named = [text for name, value in self.keys.items() for text in (f"--{name}", "$None" if value is None else str(value))]
        behind = ["--overlay", *self.overlays] if self.overlays else []
        given = ["--bundle", str(self.bundle), "--manifest", str(slides), "--model_dir", str(run), "--out", str(run / MAPS)]
        return [*given, *behind, *named]

    @staticmethod
    def _map(run: Path, options: Sequence[str]) -> None:
        with (run / LOG).open("a") as log:
            code = run_child([sys.executable, str(ROOT / "scripts/infer.py"), *options], log)
        if code:
            raise RuntimeError(f"{run}: the slides could not be mapped, exit status {code}; see {run / LOG}")


def _is_of_inference(key: str, inference: Mapping[str, Any]) -> bool:
    """Whether a key of a training says something of the inference too.

    Groups of a training are there as well, empty, so that its overlays fit: only what is inside a component counts below the top.
    """
    first, *names = key.split("::")
    if first in _OF_TRAINING or first not in inference:
        return False
    item = inference[first]
    for name in names:
        if not isinstance(item, Mapping):
            return False
        if "_target_" in item:
            return True
        if name not in item:
            return False
        item = item[name]
    return True


def _evaluation(maps: Path, slides: Path, out: Path) -> Namespace:
    left = dict.fromkeys(("split", "threshold", "froc_mpp", "tumour_classes", "annotation_frame", "tissue", "compare_with"))
    return Namespace(maps=maps, manifest=slides, out=out, allow_missing=False, **left)
