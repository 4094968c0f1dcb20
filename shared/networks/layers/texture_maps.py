"""Textures pixel by pixel, whose means over a window are its texture features."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["cooccurrence_maps", "local_binary_patterns"]


def shifted(images: Tensor, down: int, right: int) -> Tensor:
    """Each pixel's neighbour `down` rows below and `right` columns to the right; beyond the edge the nearest pixel.

    >>> shifted(torch.tensor([[[[1.0, 2.0, 3.0]]]]), 0, 1)
    tensor([[[[2., 3., 3.]]]])
    """
    height, width = images.shape[2], images.shape[3]
    reach = max(abs(down), abs(right))
    padded = F.pad(images, [reach, reach, reach, reach], mode="replicate")
    return padded[:, :, reach + down : reach + down + height, reach + right : reach + right + width]


def local_binary_patterns(grey: Tensor, radius: int) -> Tensor:
    """Rotation-invariant uniform patterns of the eight neighbours on a square ring.

    A neighbour that is no darker than the centre is a 1. Where the ring has one run of ones at most, the pattern is the number
    of ones, 0 to 8; elsewhere 9.

    Args:
        grey: ``(B, 1, H, W)`` float.
        radius: of the ring in pixels: neighbours are `radius` rows and columns away.

    Returns:
        ``(B, 1, H, W)`` float: a whole number in 0 ... 9.

    Reference:
        Ojala, Pietikainen and Maenpaa, PAMI 2002, equation 9 (riu2). Deviation: neighbours lie on whole pixels, as in Ojala et
        al. 1996, so that equal pixels stay equal.

    >>> local_binary_patterns(torch.tensor([[[[5.0, 5.0, 5.0], [1.0, 4.0, 1.0], [1.0, 1.0, 1.0]]]]), 1)[0, 0, 1, 1]
    tensor(3.)
    """
    # Round the ring: each two neighbours in the list are neighbours on it.
    ring = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
    bits = torch.cat([(shifted(grey, radius * down, radius * right) >= grey) for down, right in ring], dim=1)
    num_ones = bits.sum(dim=1, keepdim=True)
    num_changes = (bits != bits.roll(1, dims=1)).sum(dim=1, keepdim=True)
    return torch.where(num_changes <= 2, num_ones, torch.full_like(num_ones, 9)).to(grey.dtype)


def cooccurrence_maps(levels: Tensor, distance: int) -> Tensor:
    """The maps of which Haralick's features are means, over pairs of pixels at a distance in four directions.

    Args:
        levels: grey levels ``(B, 1, H, W)``, whole numbers as float.
        distance: rows and columns between the two pixels of a pair.

    Returns:
        ``(B, 6, H, W)``, each pixel's mean over its eight pairs (i, j) of: ``(i - j)^2``, ``|i - j|``, ``1 / (1 + (i - j)^2)``,
        ``i j``, ``(i + j) / 2``, ``(i^2 + j^2) / 2``.

    Reference:
        Haralick, Shanmugam and Dinstein, IEEE Trans. SMC 1973. Deviation: only features that are means over pairs; energy and
        entropy would need the whole matrix of every window.
    """
    total = torch.zeros_like(levels).expand(-1, 6, -1, -1)
    # Both ways, so that a pair counts for either of its pixels.
    for down, right in [(0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1)]:
        other = shifted(levels, distance * down, distance * right)
        gap = levels - other
        square = gap * gap
        half_sum, half_squares = (levels + other) / 2, (levels * levels + other * other) / 2
        total = total + torch.cat([square, gap.abs(), 1 / (1 + square), levels * other, half_sum, half_squares], dim=1)
    return total / 8
