"""A finished training on features, as it lies in its output folder, and why its head cannot be shipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from monai.bundle import ConfigParser
from torch import Tensor

from scripts.comparison.json_file import read_object
from shared.data import load_manifest
from shared.data.record import Record
from shared.engines.stage import CALIBRATION
from shared.evaluation.report import COUNTS

from .two_classes import as_tumour
from .whole_slides import as_images

WEIGHTS, CONFIG = "model.pt", "config.json"
EVALUATION = "evaluation"
IMAGES, SLIDES = "images", "slides"
ENCODER, ENCODER_KEY = "encoder.", "encoder_key"
# A head of a few channels on any of the encoders is far below it.
LARGEST_BYTES = 2_000_000
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class FinishedRun:
    """The files of a finished training.

    Attributes:
        folder: its output folder.
        config: the configuration that it recorded.
        weights: state dict of the head.
        metrics: of its evaluation on the test split.
        images: a row per test image, with counts of pixels.
        records: the manifest's rows of these images, in their order.
        unit: what the test images are, in the plural: images, or whole slides, of whose pixels those in tissue are counted.
    """

    folder: Path
    config: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    metrics: Mapping[str, Any]
    images: pd.DataFrame
    records: list[Record]
    unit: str = IMAGES

    @property
    def method(self) -> str:
        """The method's name in the tables: of several, such as the stages of CAMEL, the last is the network that is shipped."""
        return list(self.metrics["images"])[-1]

    @property
    def version(self) -> str:
        """Version of the bundle that was trained, which may have changed since."""
        return str(self.config.get("_meta_", {}).get("version", "unknown"))

    @property
    def threshold(self) -> float:
        """At which the test images were scored."""
        return float(self.metrics.get("threshold", DEFAULT_THRESHOLD))

    @property
    def calibration(self) -> Path | None:
        """Where the training has kept the threshold that it chose; None if it chose none."""
        path = self.folder / CALIBRATION
        return path if path.is_file() else None


def read_run(folder: Path) -> FinishedRun:
    """Read the output folder of a training.

    Raises:
        ValueError: naming the file, if the training or its evaluation has not ended, the network has no encoder, its weights
            hold those of the encoder, or the data that it was scored on are not available.
    """
    weights, config = _head(folder / WEIGHTS), read_object(folder / CONFIG, "Give the output folder of a finished training")
    remedy = f"Score the run on the test split first (evaluate.json with --output_dir {folder})"
    metrics = read_object(folder / EVALUATION / "metrics.json", remedy)
    if metrics.get("split", "test") != "test":
        raise ValueError(f"{folder / EVALUATION}: expected scores of the test split, found those of {metrics['split']}. {remedy}")
    unit = SLIDES if "pixels_tissue" in metrics else IMAGES
    path = folder / EVALUATION / f"{unit}.csv"
    if not path.is_file() or not ({"images", "pixels"} <= metrics.keys() or metrics.keys() & {"confusion", "pixels_tissue"}):
        raise ValueError(
            f"{folder / EVALUATION} holds no scores of pixels, image by image (images.csv, or of slides slides.csv, and "
            f"metrics.json). {remedy}"
        )
    images = pd.read_csv(path)
    if unit == SLIDES:
        metrics, images = as_images(metrics, images)
    elif "confusion" in metrics:
        metrics, images = as_tumour(metrics, images)
    missing = [name for name in COUNTS if name not in images]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}: the test images need masks")
    return FinishedRun(folder, config, weights, metrics, images, _records(config, images, path, unit), unit)


def _head(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give the output folder of a finished training")
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    if ENCODER_KEY not in state:
        raise ValueError(f"{path} is not a head on an encoder's features: train with the overlay features.json")
    if any(name.startswith(ENCODER) for name in state):
        raise ValueError(
            f"{path} holds the weights of its encoder, which was fine-tuned: only heads are shipped, with the encoder's name. "
            "Train with the overlay features.json"
        )
    size = sum(value.numel() * value.element_size() for value in state.values())
    if size > LARGEST_BYTES:
        raise ValueError(f"{path} has {size} bytes, too many for the repository: expected a head of at most {LARGEST_BYTES}")
    return state


def _records(config: Mapping[str, Any], images: pd.DataFrame, path: Path, unit: str) -> list[Record]:
    """The manifest's rows of the images that were scored."""
    parser = ConfigParser(dict(config))
    records = load_manifest(parser.get_parsed_content("manifest"), split="test", require=())
    # Slides are known by their names without suffix.
    by_region = {(_slide(record) if unit == SLIDES else _region(record)): record for record in records}
    if len(by_region) < len(records):
        raise ValueError(
            f"{parser.get_parsed_content('manifest')}: {len(records)} test {unit}, with {len(by_region)} names: the rows of "
            f"{path} name no folders. Give every file its own name and score the run again"
        )
    rows = images.astype(object).where(images.notna(), None).to_dict("records")
    unknown = [row["image"] for row in rows if _region(row) not in by_region]
    if unknown:
        raise ValueError(
            f"{path}: {unknown[0]} is not a test image of {parser.get_parsed_content('manifest')}: score the run again"
        )
    return [by_region[_region(row)] for row in rows]


def _slide(record: Mapping[str, Any]) -> tuple[str, None, None]:
    return Path(record["image"]).stem, None, None


def _region(row: Mapping[str, Any]) -> tuple[str, int | None, int | None]:
    x, y = row.get("x"), row.get("y")
    return Path(row["image"]).name, None if x is None else int(x), None if y is None else int(y)
