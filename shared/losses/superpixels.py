"""From pixels to super-pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["at_places", "num_ids", "superpixel_means"]


def superpixel_means(values: Tensor, superpixels: Tensor, num_superpixels: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean over the pixels of each super-pixel, of each map.

    Images of a batch may have different numbers of super-pixels, and an image's ids may have gaps.

    Args:
        values: maps of pixel values, ``(B, C, H, W)``.
        superpixels: id of each pixel's super-pixel, ``(B, 1, H, W)``, integer, >= 0.
        num_superpixels: `num_ids` of them, where it is known: to look at ids on a GPU would wait for it.

    Returns:
        means ``(B, C, N)``, float32 (float64 for float64 values), and counts of pixels ``(B, N)``, int64, where N is the
        batch's highest id + 1. The mean of an id that an image does not have is 0, as its count.

    Raises:
        ValueError: if the shapes do not fit, there is no pixel, or the ids are no integers or negative.

    Reference:
        Jia et al., IEEE TMI 2017, section III.C.

    >>> means, counts = superpixel_means(torch.tensor([[[[0.0, 0.5, 1.0]]]]), torch.tensor([[[[0, 2, 2]]]]))
    >>> means, counts
    (tensor([[[0.0000, 0.0000, 0.7500]]]), tensor([[1, 0, 2]]))
    """
    if values.ndim != 4 or values.numel() == 0:
        raise ValueError(f"values must be (B, C, H, W) and not empty; got {tuple(values.shape)}")
    num_images, num_maps, height, width = values.shape
    if superpixels.shape != (num_images, 1, height, width):
        raise ValueError(f"superpixels must be {(num_images, 1, height, width)}; got {tuple(superpixels.shape)}")
    size = num_ids(superpixels) if num_superpixels is None else num_superpixels
    ids = superpixels.long().flatten(1)
    # In float64: one after another, in float32 the sum of ten thousand pixels would lose four digits.
    pixels = values.double().flatten(2)
    counts = ids.new_zeros(num_images, size).scatter_add(1, ids, torch.ones_like(ids))
    sums = pixels.new_zeros(num_images, num_maps, size).scatter_add(2, ids.unsqueeze(1).expand_as(pixels), pixels)
    means = sums / counts.clamp(min=1).unsqueeze(1)
    return means.to(torch.promote_types(values.dtype, torch.float32)), counts


def at_places(superpixels: Tensor, size: Sequence[int]) -> Tensor:
    """The ids in the middle of each place of a coarser grid, such as that of features; the same ids on a grid of that size.

    Args:
        superpixels: id of each pixel's super-pixel, ``(B, 1, H, W)``.
        size: rows and columns ``(h, w)`` of the grid, which divide H and W; any others are left to whoever compares sizes.

    Returns:
        ``(B, 1, h, w)``. The id of a super-pixel that lies in the middle of no place is missing.

    >>> at_places(torch.tensor([[[[0, 0, 1, 1], [0, 2, 2, 1], [3, 3, 2, 1], [3, 3, 2, 1]]]]), (2, 2)).tolist()
    [[[[2, 1], [3, 1]]]]
    """
    height, width = superpixels.shape[-2:]
    if height % size[0] or width % size[1]:
        return superpixels
    rows, columns = height // size[0], width // size[1]
    return superpixels[..., rows // 2 :: rows, columns // 2 :: columns]


def num_ids(superpixels: Tensor) -> int:
    """A batch's highest id + 1.

    Raises:
        ValueError: if the ids are no integers or negative.
    """
    if superpixels.dtype == torch.bool or superpixels.is_floating_point() or superpixels.is_complex():
        raise ValueError(f"superpixels must be integers; got {superpixels.dtype}")
    lowest, highest = (int(value) for value in superpixels.aminmax())
    if lowest < 0:
        raise ValueError(f"super-pixel ids must be >= 0; got {lowest}")
    return highest + 1
