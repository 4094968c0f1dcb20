"""An image seen as a lattice of N x N instances of equal size (CAMEL, section 3.1.1): split, place, label, paint.

Instances are numbered row by row: instance ``i`` of an ``N x N`` lattice lies in row ``i // N``, column ``i % N``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..record import Record, region_of


def split_into_instances(images: Tensor, instances_per_side: int) -> Tensor:
    """Cut images into their instances.

    Args:
        images: ``(B, C, M, M')``, both sides divisible by `instances_per_side`.
        instances_per_side: N.

    Returns:
        ``(B, N * N, C, M / N, M' / N)``, in the images' memory order (a copy).

    Raises:
        ValueError: if a side is smaller than N or no multiple of it.
    """
    num, channels, height, width = images.shape
    check_lattice(height, width, instances_per_side)
    n = instances_per_side
    cut = images.reshape(num, channels, n, height // n, n, width // n)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(num, n * n, channels, height // n, width // n)


def gather_instances(images: Tensor, picks: Tensor, instances_per_side: int) -> Tensor:
    """Only the picked instances, without copying the others.

    Args:
        images: ``(B, C, M, M')``.
        picks: instance index of each image, ``(B, k)``.
        instances_per_side: N.

    Returns:
        ``(B, k, C, M / N, M' / N)``.
    """
    num, channels, height, width = images.shape
    check_lattice(height, width, instances_per_side)
    n = instances_per_side
    lattice = images.reshape(num, channels, n, height // n, n, width // n).permute(0, 2, 4, 1, 3, 5)
    bags = torch.arange(num, device=images.device)[:, None]
    return lattice[bags, picks // n, picks % n]


def instance_labels_of_masks(masks: Tensor, instances_per_side: int) -> Tensor:
    """True instance labels: 1 where an instance holds any tumour pixel (CAMEL, section 4.1).

    Args:
        masks: ``(B, 1, M, M')``, non-zero where tumour.
        instances_per_side: N.

    Returns:
        ``(B, N * N)`` int64.
    """
    return split_into_instances(masks, instances_per_side).flatten(2).ne(0).any(-1).long()


def paint_instances(labels: Tensor, height: int, width: int) -> Tensor:
    """Instance labels laid on their pixels (CAMEL, section 3.2).

    Args:
        labels: ``(N * N,)`` of one image.
        height: of the image in pixels, a multiple of N; likewise `width`.

    Returns:
        ``(1, height, width)``, of the labels' type.

    Raises:
        ValueError: if the number of labels is no square, or the image does not divide into that many instances.
    """
    n = math.isqrt(len(labels))
    if n * n != len(labels) or not n:
        raise ValueError(f"the labels of an image must be N x N, got {len(labels)}")
    check_lattice(height, width, n)
    return labels.reshape(1, n, n).repeat_interleave(height // n, 1).repeat_interleave(width // n, 2)


def instance_region(record: Record, size_px: tuple[int, int], index: int, instances_per_side: int) -> tuple[int, int, int, int]:
    """Where an instance lies in its image file.

    Args:
        record: the image's manifest record.
        size_px: (width, height) of the image at level 0, for records without a region.
        index: of the instance.
        instances_per_side: N.

    Returns:
        (x, y, width, height) in level-0 pixels, rounded so that neighbours neither overlap nor leave a gap.
    """
    left, top, width, height = region_of(record, size_px)
    row, column = divmod(index, instances_per_side)
    edges_x = [left + round(width * (column + step) / instances_per_side) for step in (0, 1)]
    edges_y = [top + round(height * (row + step) / instances_per_side) for step in (0, 1)]
    return edges_x[0], edges_y[0], edges_x[1] - edges_x[0], edges_y[1] - edges_y[0]


def check_lattice(height: int, width: int, instances_per_side: int) -> None:
    """Raise a ValueError unless an image of this size divides into N x N instances."""
    if instances_per_side < 1:
        raise ValueError(f"instances_per_side must be at least 1, got {instances_per_side}")
    if min(height, width) < instances_per_side:
        raise ValueError(
            f"an image of {width} x {height} px is smaller than one instance of a lattice of "
            f"{instances_per_side} x {instances_per_side}"
        )
    if height % instances_per_side or width % instances_per_side:
        raise ValueError(
            f"an image of {width} x {height} px does not divide into {instances_per_side} x {instances_per_side} instances: "
            f"give images whose sides are multiples of instances_per_side = {instances_per_side}"
        )


def check_cascade(outer_instances_per_side: int, inner_instances_per_side: int, instances_per_side: int) -> None:
    """Raise a ValueError unless lattices of N1 within lattices of N2 give instances of N (CAMEL, section 3.3.1): N1 * N2 = N."""
    if outer_instances_per_side * inner_instances_per_side != instances_per_side:
        raise ValueError(
            f"a cascade needs outer_instances_per_side * inner_instances_per_side = instances_per_side, got "
            f"{outer_instances_per_side} * {inner_instances_per_side} and {instances_per_side}: put n8.json before cascade.json, "
            "or give other numbers"
        )
