"""What is killed by `scripts/benchmark.py kills`: small trainings, features and maps, as their users start them."""

from __future__ import annotations

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
IMAGE_PX, COHORT_SLIDES = 64, 30
# Tumour, or each class behind the first, in a colour of its own: learnt in seconds.
PAINTS = ((70, 30, 120), (20, 110, 60), (160, 20, 20))
OF_IMAGES: dict[str, Any] = {"image_size_px": IMAGE_PX, "amp_dtype": "$None", "num_workers": 0, "batch_size": 4}
OF_SLIDES: dict[str, Any] = {"amp_dtype": "$None", "num_workers": 0, "tissue_mpp": 4.0, "lr": 0.003, "num_epochs": 3}
CAMEL: dict[str, Any] = {
    "backbone": "resnet10",
    "segmentation_backbone": "resnet10",
    "cmil::num_epochs": 4,
    "cmil::lr": 0.003,
    "max_min::num_epochs": 4,
    "retrain::num_epochs": 3,
    "retrain::batch_size": 8,
    "num_epochs": 3,
}
ALPHA_BETA = {"backbone": "resnet10", "slides_per_step": 3, "tiles_per_slide": 12, "tile_size_px": 32, "margin_px": 8}
ATTENTION = {"mpp": 0.5, "smoothing": 1, "feature_stride_px": 16, "tile_size_px": 256, "margin_px": 32, "features_per_slide": 40}


@dataclass(frozen=True)
class Workflow:
    """Something that writes into a folder and is started again after it was killed.

    Attributes:
        make_data: writes its data into a folder; each run has a copy, since trainings keep features and pixels beside them.
        command: what is run, from the folders of its data and of its results.
    """

    make_data: Callable[[Path], None]
    command: Callable[[Path, Path], list[str]]


def _training(bundle: str, make_data: Callable[[Path], None], options: Mapping[str, Any]) -> Workflow:
    def command(data: Path, out: Path) -> list[str]:
        file = REPOSITORY / "bundles" / bundle / "configs" / "train.json"
        given = {"config_file": file, "dataset_dir": data, "output_dir": out, **options}
        arguments = [text for name, value in given.items() for text in (f"--{name}", str(value))]
        return [sys.executable, "-m", "monai.bundle", "run", *arguments]

    return Workflow(make_data, command)


def _embedding(data: Path, out: Path) -> list[str]:
    options = ["--encoder", "efficientnet_lite0", "--tile_size_px", "256", "--num_workers", "1", "--mpp", "0.5"]
    return [
        sys.executable,
        str(REPOSITORY / "scripts/embed.py"),
        "--manifest",
        str(data / "slides.csv"),
        "--out",
        str(out),
        *options,
    ]


def _mapping(data: Path, out: Path) -> list[str]:
    options = ["--bundle", str(REPOSITORY / "bundles/camel"), "--checkpoint", str(data / "model.pt"), "--num_workers", "1"]
    keys = ["--segmentation_backbone", "resnet10", "--image_size_px", "128", "--threshold", "0.5"]
    command = [sys.executable, str(REPOSITORY / "scripts/infer.py"), "--manifest", str(data / "slides.csv"), "--out", str(out)]
    return [*command, *options, *keys]


def write_images(folder: Path) -> None:
    """Images of two classes."""
    slides = (SlidePlan("test", 0.3, (520, 680)), SlidePlan("train", 0.0, (300, 420)))
    write_demo(folder, DemoPlan(images={"train": 16, "val": 8, "test": 8}, size_px=IMAGE_PX, slides=slides))
    _paint(folder / "images", folder / "masks")


def write_slides(folder: Path) -> None:
    """Slides with and without tumour."""
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    plans = [SlidePlan(split, 0.4 * (index % 2 == 0), (420 + 20 * index, 560)) for index, split in enumerate(splits)]
    write_demo(folder, DemoPlan(images={}, slides=plans))
    _paint_slides(folder, 0.5)


def write_classes(folder: Path) -> None:
    """Images of four classes, of which half have masks."""
    masked, labelled = {"train": 8, "val": 4, "test": 4}, {"train": 8}
    slides = (BreastSlidePlan("test", (1, 2), (300, 360)),)
    write_demo(folder, BreastPlan(masked=masked, labelled=labelled, size_px=IMAGE_PX, slides=slides))
    _paint(folder / "images", folder / "masks")


def write_cohort(folder: Path) -> None:
    """Thirty small slides, and a network that has learnt nothing."""
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


WORKFLOWS = {
    "camel": _training("camel", write_images, OF_IMAGES | CAMEL),
    "cdws_mil": _training("cdws_mil", write_images, OF_IMAGES | {"mpp": 0.5, "num_epochs": 4, "lr": 0.001}),
    "alpha_beta_mil": _training("alpha_beta_mil", write_slides, OF_SLIDES | ALPHA_BETA),
    "joint_seg_cls": _training(
        "joint_seg_cls",
        write_classes,
        OF_IMAGES | {"labelled_size_px": IMAGE_PX, "num_epochs": 3, "batch_size": 8, "steps_per_epoch": 4, "masked_share": 1.0},
    ),
    "attention_mil": _training("attention_mil", write_slides, OF_SLIDES | ATTENTION | {"min_steps": 60}),
    "embed": Workflow(write_slides, _embedding),
    "cohort": Workflow(write_cohort, _mapping),
}
