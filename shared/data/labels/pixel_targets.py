"""The pixel labels that a record offers: its mask, its label everywhere, or enriched labels of its instances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...wsi.slide import Slide
from ...wsi.slide_pool import open_slide
from ..pixel_cache import LEAST_DECODED_PX, PixelCache
from ..record import Record, label_of, record_error
from ..record_masks import check_region_mask, read_record_mask
from .enriched_labels import decode_instances
from .lattice import paint_instances


def pixel_target(
    record: Record,
    source: str,
    size: Sequence[int],
    mpp: float | None = None,
    num_classes: int = 2,
    class_names: Sequence[str] | None = None,
    cache: PixelCache | None = None,
) -> Tensor:
    """The pixel labels that a record offers, see `RegionDataset`.

    Args:
        record: of a manifest; with its ``instances`` (a string of 0 and 1) for ``source="instances"``.
        source: ``"instances"``, ``"mask"`` or ``"label"``.
        size: (height, width) of the image as read.
        mpp: at which it was read, as for `read_image`.
        num_classes: classes of masks and labels.
        class_names: the class of each index in annotation files, see `read_record_mask`.
        cache: keeps the masks of large images; None for none.

    Returns:
        uint8 ``(1, height, width)``, class indices; a record with label 0 and no mask is of class 0 everywhere.

    Raises:
        ValueError: naming row and file, if the record lacks what `source` needs or it does not fit the image.
    """
    height, width = size
    needed = "mask" if source == "mask" and record.get("label") != 0 else "label" if source != "instances" else source
    try:
        if record.get(needed) is None:
            who = "tumour image" if needed == "mask" else "image"
            raise ValueError(f"the column {needed!r} is empty, and this run needs it for every {who}")
        if source == "instances":
            return paint_instances(decode_instances(record["instances"]).to(torch.uint8), height, width)
        if source == "label" or record.get("mask") is None:
            label = int(label_of(record) > 0) if num_classes == 2 else label_of(record)
            if label not in range(num_classes):
                raise ValueError(f"label must be one of 0..{num_classes - 1}, got {label}")
            return torch.full((1, height, width), label, dtype=torch.uint8)
        mask = read_mask(record, (width, height), mpp, num_classes, class_names, cache)
        if num_classes == 2:
            check_region_mask(record, mask.numpy())
        return mask
    except (ValueError, OSError) as error:
        raise record_error(record, error) from error


def read_mask(
    record: Record,
    size_px: tuple[int, int],
    mpp: float | None,
    num_classes: int,
    class_names: Sequence[str] | None,
    cache: PixelCache | None = None,
) -> Tensor:
    """A record's mask, uint8 ``(1, height, width)``, of an image with `size_px` (width, height) as read; see `pixel_target`.

    Raises:
        ValueError, OSError: if the image or its mask cannot be read, they do not fit each other, or label and mask disagree.
    """
    slide = open_slide(record["image"], mpp=record.get("mpp"))
    corner = (record.get("x") or 0, record.get("y") or 0)
    downsample = downsample_of(slide, mpp)

    def read() -> NDArray[np.uint8]:
        return read_record_mask(record, corner, size_px, slide.size_px, downsample, num_classes, class_names)

    # A mask of a slide is often a picture, which is decoded whole for each of its regions.
    if cache is None or not is_large(slide):
        mask = read()
    else:
        row = [record.get(name) for name in ("label", "x", "mpp", "tumour_classes", "annotation_frame")]
        settings = [corner, size_px, slide.size_px, downsample, num_classes, class_names, row]
        mask = cache.get([record["mask"] or "", record["image"]], settings, read)
    return torch.from_numpy(mask)[None]


def knows_mpp(slide: Slide) -> bool:
    """Whether the pixel size of a record's file counts when it is read."""
    # A slide without mpp is an error that the reader raises; a tile without is taken as it is stored.
    return slide.has_mpp or not slide.is_picture


def downsample_of(slide: Slide, mpp: float | None) -> float:
    """Level-0 pixels per pixel as read at `mpp`."""
    return slide.downsample(mpp if knows_mpp(slide) else None)


def is_large(slide: Slide) -> bool:
    """Whether it takes long to decode."""
    return slide.size_px[0] * slide.size_px[1] >= LEAST_DECODED_PX
