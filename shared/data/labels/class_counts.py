"""How often each class occurs in what a segmentation is trained with: the sizes and weights of its losses."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ...writers.atomic import contended_path
from ..image_dataset import RegionDataset, read_image
from .pixel_targets import pixel_target

logger = logging.getLogger(__name__)


def class_counts(
    masked: RegionDataset | None,
    labelled: RegionDataset | None,
    file: str | Path,
    num_workers: int = 0,
) -> dict[str, Any]:
    """Count the pixels of every class in masks, and the images of every label.

    Args:
        masked: training images with ``pixel_labels``, counted as they are read, without their random transforms; None for none.
        labelled: training images with labels; None for none.
        file: JSON that keeps the result; where it exists it is read.
        num_workers: processes that read.

    Returns:
        ``num_masked``, ``num_labelled``, and for each class ``pixels`` (null without masked images) and ``images`` (null without
        labelled ones).

    Raises:
        ValueError: naming manifest, row and file of a mask that does not fit, or an image without a label; and if all pixels of
            the masks are of one class.

    Reference:
        As in the released code of Ciga and Martel, with either head: the constant masks that its loss gives to labelled images
        do not count, nor do the labels of masked ones.
    """
    file = Path(file)
    if file.is_file():
        return dict(json.loads(file.read_text()))
    counts: dict[str, Any] = {"num_masked": 0, "num_labelled": 0, "pixels": None, "images": None}
    if masked is not None:
        pixels = torch.zeros(masked.num_classes, dtype=torch.int64)
        loader: DataLoader[Tensor] = DataLoader(_PixelCounts(masked), batch_size=None, num_workers=num_workers)
        for of_image in tqdm(loader, desc="classes of the masks", unit="image", disable=None):
            pixels += of_image
        _check_pixels(pixels, masked)
        counts |= {"num_masked": len(masked), "pixels": pixels.tolist()}
    if labelled is not None:
        labels = torch.tensor([record["label"] for record in labelled.data])
        images = torch.bincount(labels, minlength=labelled.num_classes)
        counts |= {"num_labelled": len(labelled), "images": images.tolist()}
    logger.info(
        "training with %(num_masked)d masked images, pixels per class %(pixels)s, and %(num_labelled)d labelled ones, "
        "images per class %(images)s",
        counts,
    )
    with contended_path(file) as temporary:
        temporary.write_text(json.dumps(counts, indent=2) + "\n")
    return counts


def _check_pixels(pixels: Tensor, masked: RegionDataset) -> None:
    found = pixels.nonzero().flatten().tolist()
    if len(found) < 2:
        manifest = masked.data[0].get("manifest") or "the manifest"
        raise ValueError(
            f"{manifest}: all {int(pixels.sum())} pixels in the masks of {len(masked)} training images are of class "
            f"{', '.join(map(str, found))}; expected at least two classes. Check the masks, or add images of another class"
        )


def trained_with_labels(file: str | Path, mode: str) -> bool:
    """Whether a training had labelled images, from what `class_counts` kept; where that is missing, from its mode."""
    file = Path(file)
    return bool(json.loads(file.read_text())["num_labelled"]) if file.is_file() else mode != "S"


class _PixelCounts(Dataset[Tensor]):
    """Item ``i``: pixels of each class in the mask of image ``i``, int64 ``(C,)``."""

    def __init__(self, dataset: RegionDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset.data)

    def __getitem__(self, index: int) -> Tensor:
        dataset, record = self.dataset, self.dataset.data[index]
        size = read_image(record, dataset.mpp, dataset.size_px).shape[-2:]
        mask = pixel_target(record, dataset.pixel_labels or "mask", size, dataset.mpp, dataset.num_classes, dataset.class_names)
        return torch.bincount(mask.flatten().long(), minlength=dataset.num_classes)
