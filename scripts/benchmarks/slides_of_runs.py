"""Maps and scores of whole slides with the networks of a sweep, as in a paper that trains on patches and scores slides."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from scripts.declarations.published import bundle_of
from scripts.evaluation.finished_maps import evaluate
from shared.data import load_manifest, write_manifest
from shared.sweeps.child_process import run_child
from shared.sweeps.sweep import LOG

ROOT = Path(__file__).resolve().parents[2]
MAPS, SCORES = "slide_maps", "slide_scores"
# Keys that trainings and inference both have, but with different values.
_OF_TRAINING = {"output_dir", "dataset_dir", "num_workers", "seed", "batch_size", "tracking_uri", "bundle_root"}


class SlidesOfRuns:
    """Maps the test slides of a manifest with the network of a finished run, only once, and scores the maps.

    Args:
        config_files: configuration files of the training, its bundle's train.json first.
        manifest: manifest of whole slides with masks of the training's classes.
        keys: keys of the training and their values; those that inference.json also has are passed to it.
    """

    def __init__(self, config_files: Sequence[str], manifest: Path, keys: Mapping[str, Any]) -> None:
        self.bundle, self.manifest = bundle_of(config_files), manifest
        self.overlays = [Path(file).stem for file in config_files[1:]]
        files = [str(self.bundle / "configs" / f"{name}.json") for name in ("inference", *self.overlays)]
        self.inference = ConfigParser.load_config_files(files)
        known = self.inference.keys() - _OF_TRAINING
        self.keys = {name: value for name, value in keys.items() if name.split("::")[0] in known}
        names = self.keys.get("class_names", self.inference.get("class_names", ()))
        self.num_classes = len(names)

    def scores(self, run: Path, validation_case: str | None = None) -> dict[str, Any]:
        """The content of ``metrics.json`` for the slides of a run, see `scripts/evaluate.py`.

        Args:
            run: output folder of the training.
            validation_case: the slide on which the run's epoch was chosen, which is not tested; None for the manifest's splits.

        Raises:
            ValueError: for an unsuitable manifest, or maps of two classes, which have no scores per class.
            RuntimeError: if the slides cannot be mapped, naming the log.
        """
        metrics = run / SCORES / "metrics.json"
        if not metrics.is_file():
            slides = self._test_slides(run, validation_case)
            self._map(run, slides)
            evaluate(_options(run / MAPS, slides, run / SCORES))
        found = json.loads(metrics.read_text())
        if "class_pixels_of_slides" not in found:
            raise ValueError(f"{run / MAPS}: expected maps of at least three classes, found {self.num_classes}")
        return dict(found)

    def _test_slides(self, run: Path, validation_case: str | None) -> Path:
        records = load_manifest(self.manifest, "test", num_classes=self.num_classes, validation_case=validation_case)
        write_manifest(records, run / "slides.csv")
        return run / "slides.csv"

    def _map(self, run: Path, slides: Path) -> None:
        named = [text for name, value in self.keys.items() for text in (f"--{name}", "$None" if value is None else str(value))]
        behind = ["--overlay", *self.overlays] if self.overlays else []
        given = ["--bundle", str(self.bundle), "--manifest", str(slides), "--model_dir", str(run), "--out", str(run / MAPS)]
        with (run / LOG).open("a") as log:
            code = run_child([sys.executable, str(ROOT / "scripts/infer.py"), *given, *behind, *named], log)
        if code:
            raise RuntimeError(f"{run}: the slides could not be mapped, exit status {code}; see {run / LOG}")


def _options(maps: Path, slides: Path, out: Path) -> Namespace:
    left = dict.fromkeys(("split", "threshold", "froc_mpp", "tumour_classes", "annotation_frame", "tissue", "compare_with"))
    return Namespace(maps=maps, manifest=slides, out=out, allow_missing=False, **left)
