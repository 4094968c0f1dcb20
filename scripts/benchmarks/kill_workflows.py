"""The workflows that `scripts/benchmark.py kills` kills: small trainings, embeddings and mappings, started as users do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image

from shared.networks import DeepLabV2
from shared.synthetic import BreastPlan, BreastSlidePlan, DemoPlan, SlidePlan, write_demo, write_slide

REPOSITORY = Path(__file__).resolve().parents[2]
DECLARED = Path(__file__).with_name("kills.json")
IMAGE_PX, COHORT_SLIDES = 64, 30
# Colours of tumour, or of each class after the first, so that they are learned in seconds.
PAINTS = ((70, 30, 120), (20, 110, 60), (160, 20, 20))


@dataclass(frozen=True)
class Workflow:
    """A command that writes into a folder and is restarted after a kill.

    Attributes:
        make_data: function that writes the data into a folder; each run gets a copy, as trainings cache files next to the data.
        command: function that returns the command, given the folder of the data and that of the results.
    """

    make_data: Callable[[Path], None]
    command: Callable[[Path, Path], list[str]]


def workflows() -> dict[str, Workflow]:
    """The workflows of ``kills.json`` by name: trainings of bundles, and scripts that process a manifest of slides."""
    return {name: _workflow(entry) for name, entry in json.loads(DECLARED.read_text()).items()}


def _workflow(entry: Mapping[str, Any]) -> Workflow:
    options = [text for name, value in entry["options"].items() for text in (f"--{name}", str(value))]

    def training(data: Path, out: Path) -> list[str]:
        file = REPOSITORY / "bundles" / entry["bundle"] / "configs" / "train.json"
        folders = ["--config_file", str(file), "--dataset_dir", str(data), "--output_dir", str(out)]
        return [sys.executable, "-m", "monai.bundle", "run", *folders, *options]

    def script(data: Path, out: Path) -> list[str]:
        weights = ["--checkpoint", str(data / entry["checkpoint"])] if "checkpoint" in entry else []
        folders = ["--manifest", str(data / "slides.csv"), "--out", str(out), *weights]
        return [sys.executable, str(REPOSITORY / "scripts" / entry["script"]), *folders, *options]

    return Workflow(DATA[entry["data"]], training if "script" not in entry else script)


def write_images(folder: Path) -> None:
    """Write images of two classes."""
    slides = (SlidePlan("test", 0.3, (520, 680)), SlidePlan("train", 0.0, (300, 420)))
    write_demo(folder, DemoPlan(images={"train": 16, "val": 8, "test": 8}, size_px=IMAGE_PX, slides=slides))
    _paint(folder / "images", folder / "masks")


def write_slides(folder: Path) -> None:
    """Write slides with and without tumour."""
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    plans = [SlidePlan(split, 0.4 * (index % 2 == 0), (420 + 20 * index, 560)) for index, split in enumerate(splits)]
    write_demo(folder, DemoPlan(images={}, slides=plans))
    _paint_slides(folder, 0.5)


def write_classes(folder: Path) -> None:
    """Write images of four classes, half of them with masks."""
    masked, labelled = {"train": 8, "val": 4, "test": 4}, {"train": 8}
    slides = (BreastSlidePlan("test", (1, 2), (300, 360)),)
    write_demo(folder, BreastPlan(masked=masked, labelled=labelled, size_px=IMAGE_PX, slides=slides))
    _paint(folder / "images", folder / "masks")


def write_cohort(folder: Path) -> None:
    """Write thirty small slides, and an untrained network."""
    plans = [SlidePlan("test", 0.3 * (index % 2), (400 + 10 * index, 520)) for index in range(COHORT_SLIDES)]
    write_demo(folder, DemoPlan(images={}, slides=plans))
    torch.manual_seed(0)
    torch.save(DeepLabV2(backbone="resnet10", out_channels=2).state_dict(), folder / "model.pt")


def _paint(images: Path, masks: Path) -> None:
    for mask in sorted(masks.iterdir()):
        image = images / mask.name
        Image.fromarray(_painted(np.array(Image.open(image)), np.array(Image.open(mask)))).save(image)


def _paint_slides(folder: Path, mpp: float) -> None:
    for mask in sorted((folder / "slide_masks").iterdir()):
        slide = folder / "slides" / f"{mask.stem}.tif"
        write_slide(slide, _painted(tifffile.imread(slide, level=0), np.array(Image.open(mask))), mpp)


def _painted(pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    result = pixels.copy()
    for index, colour in enumerate(PAINTS, start=1):
        result[(classes == index) | ((classes > len(PAINTS)) & (index == 1))] = colour
    return result


DATA = {"images": write_images, "slides": write_slides, "classes": write_classes, "cohort": write_cohort}
