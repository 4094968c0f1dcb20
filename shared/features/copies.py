"""Copies of images that features allow: the eight symmetries of a square, and other stains; each is embedded once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.transforms.stain_jitter import FACTOR_TO_SHIFT, scale_stains

NUM_SYMMETRIES = 8


@dataclass(frozen=True)
class Copies:
    """Which copies of an image are embedded in addition to the image itself, for training.

    Args:
        symmetries: all eight symmetries of the square (images that are not square: the four that keep their shape).
        stain_copies: so many copies with another stain, each in every symmetry that there is.
        stain_jitter: how strongly the stain of these copies differs, see `shared.data.RandomStainJitterd`.

    Raises:
        ValueError: for a negative number of copies, or copies whose stain would not differ.
    """

    symmetries: bool = False
    stain_copies: int = 0
    stain_jitter: float = 0.2

    def __post_init__(self) -> None:
        if self.stain_copies < 0 or (self.stain_copies and not self.stain_jitter > 0):
            raise ValueError(
                f"expected stain_copies >= 0, and stain_jitter > 0 if there are any; found {self.stain_copies} and "
                f"{self.stain_jitter}"
            )

    def of_shape(self, height: int, width: int) -> list[tuple[int, int]]:
        """(stain, symmetry) of every copy of an image of this size, the image itself, (0, 0), first."""
        turns = range(NUM_SYMMETRIES) if height == width else range(0, NUM_SYMMETRIES, 2)
        return [(stain, turn) for stain in range(1 + self.stain_copies) for turn in (turns if self.symmetries else [0])]

    def image(self, image: Tensor, stain: int, turn: int, seed: int) -> Tensor:
        """One copy of an image uint8 ``(3, H, W)``; `seed` determines its stains."""
        if stain:
            amounts = np.random.default_rng((seed, stain)).uniform(-1, 1, size=(2, 3)).astype(np.float32) * self.stain_jitter
            factors, shifts = torch.from_numpy(1 + amounts[0]), torch.from_numpy(amounts[1] / FACTOR_TO_SHIFT)
            image = scale_stains(image, factors, shifts).round().to(torch.uint8)
        return turned(image, turn)


def turned(values: Tensor, turn: int) -> Tensor:
    """One of the eight symmetries of the last two axes.

    0 leaves them, 2 mirrors, 4 turns by half, 6 does both; the odd numbers do the same after a quarter turn. So the even ones
    keep a rectangle's shape.

    >>> [turned(torch.tensor([[1, 2], [3, 4]]), turn).flatten().tolist() for turn in (0, 2, 4, 1)]
    [[1, 2, 3, 4], [2, 1, 4, 3], [4, 3, 2, 1], [2, 4, 1, 3]]
    """
    if turn % 2:
        values = torch.rot90(values, 1, (-2, -1))
    half, is_mirrored = turn // 4, turn // 2 % 2
    values = torch.rot90(values, 2, (-2, -1)) if half else values
    return values.flip(-1) if is_mirrored else values
