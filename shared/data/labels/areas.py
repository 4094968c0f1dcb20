"""The rough cancer area of tumour images, which the area constraint of CDWS-MIL needs (Jia et al., IEEE TMI 2017, V.B.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...wsi.slide_pool import open_slide
from ..record import Record, record_error
from ..record_masks import DoubtfulMasks, read_record_mask

# Larger regions are sampled on a grid of so many points a side.
_MAX_SIDE_PX = 4096


def fill_areas(
    records: Sequence[Record],
    step: float = 0.1,
    offset: float = 0.0,
    needed: bool = True,
    noise: float = 0.0,
    seed: int = 0,
) -> list[Record]:
    """Copies of `records`, each with the ``area`` that an annotator would have given: cancer's rough share of the image.

    An image with label 0 has area 0. A tumour image keeps the area that it has, which is above 0; from one with a mask alone
    comes the mask's share of the region, rounded up to `step` (see `round_up_area`).

    Args:
        records: of a manifest.
        step: the annotators' steps: 0.1 on the paper's Dataset A, 0.05 on its Dataset B.
        offset: added to the area of every tumour image, an annotator's bias. The sum is at most 1 and at least one `step`, or the
            area without the bias where that is smaller: a tumour image has some tumour.
        needed: False leaves the records as they are, and reads no mask: for runs without the constraint.
        noise: standard deviation of the normal distribution from which a number is drawn for each tumour image and added to its
            area, an annotator's random error. The sum is bounded as with `offset`.
        seed: of these numbers, which follow from it and the row of the manifest alone: an image has the same error in every share
            of the training data, and twice the error at twice the `noise`.

    Returns:
        New records, in the same order.

    Raises:
        ValueError: if the step is not in (0, 1], or the noise is negative; naming row and file, for a tumour image with neither
            area nor mask, an area that contradicts the label, or a mask that cannot be read.
    """
    if not 0 < step <= 1:
        raise ValueError(f"the step of the areas must be in (0, 1]; got {step}")
    if noise < 0:
        raise ValueError(f"the noise of the areas is a standard deviation of at least 0; got {noise}")
    if not needed:
        return [record.copy() for record in records]
    errors = [noise * _error(seed, record, index) if noise else 0.0 for index, record in enumerate(records)]
    doubtful = DoubtfulMasks()
    filled: list[Record] = [
        {**record, "area": _area(record, step, offset + error, doubtful)} for record, error in zip(records, errors, strict=True)
    ]
    doubtful.warn()
    return filled


def round_up_area(share: float, step: float) -> float:
    """A tumour share as an annotator gives it: rounded up to `step`, at least one step and at most 1.

    >>> [round_up_area(share, step) for share, step in ((0.0, 0.1), (0.3, 0.1), (0.301, 0.1), (0.301, 0.05), (0.99, 0.3))]
    [0.1, 0.3, 0.4, 0.35, 1.0]
    """
    # The inner round: 0.3 / 0.1 is 2.9999999999999996, 0.7 / 0.1 is 6.999999999999999.
    steps = max(1, math.ceil(round(share / step, 6)))
    return min(1.0, round(steps * step, 10))


def _error(seed: int, record: Record, index: int) -> float:
    """An annotator's error of one image in standard deviations."""
    return float(np.random.default_rng((seed, record.get("row", index))).standard_normal())


def _area(record: Record, step: float, offset: float, doubtful: DoubtfulMasks) -> float:
    area = record.get("area")
    if record.get("label") == 0:
        if area:
            raise record_error(record, f"label 0 means no tumour, but the area is {area:g}: correct one of them")
        return 0.0
    if area == 0:
        raise record_error(
            record, "a tumour image has area 0, which would forbid all tumour: give its rough share, or leave the cell empty"
        )
    if area is None and record.get("mask") is None:
        raise record_error(
            record,
            "a tumour image has neither an area nor a mask, and the area constraint needs one: fill the column 'area', "
            "or switch the constraint off (etas and eta_fuse 0)",
        )
    if area is None:
        share = _mask_share(record)
        doubtful.add(record, share > 0)
        area = round_up_area(share, step)
    return min(max(area + offset, min(step, area)), 1.0)


def _mask_share(record: Record) -> float:
    """Tumour share of the record's region, or of the whole image."""
    try:
        size_px = open_slide(record["image"], mpp=record.get("mpp")).size_px
        region_px = (record.get("width_px") or size_px[0], record.get("height_px") or size_px[1])
        downsample = max(1.0, max(region_px) / _MAX_SIDE_PX)
        sampled_px = (max(1, round(region_px[0] / downsample)), max(1, round(region_px[1] / downsample)))
        origin = (record.get("x") or 0, record.get("y") or 0)
        mask = read_record_mask(record, origin, sampled_px, size_px, downsample)
    except (ValueError, OSError) as error:
        raise record_error(record, error) from error
    return float(mask.mean())
