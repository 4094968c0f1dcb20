"""Random change of the haematoxylin and eosin amounts of an image (Tellez et al., Medical Image Analysis 2019)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor

# Ruifrok and Johnston (2001): optical density of haematoxylin, eosin and DAB/residual in R, G, B; rows of unit length.
STAIN_VECTORS = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], dtype=torch.float64)
# Factors of the amounts vary this many times as much as shifts, which are in optical density.
FACTOR_TO_SHIFT = 10


def scale_stains(image: Tensor, factors: Tensor, shifts: Tensor) -> Tensor:
    """Multiply and shift the amount of each stain.

    Args:
        image: RGB ``(3, H, W)`` uint8 or float in [0, 255].
        factors: of each of the three stains, ``(3,)``; 1 leaves it.
        shifts: added to each, ``(3,)``, in optical density; 0 leaves it.

    Returns:
        ``(3, H, W)`` float32 in [0, 255].
    """
    matrix, offset = density_map(factors, shifts)
    density = -torch.log((image.float().clamp(min=1)) / 255)
    mixed = (matrix @ density.reshape(3, -1)).reshape(image.shape) + offset[:, None, None]
    return (255 * torch.exp(-mixed)).clamp(0, 255)


def density_map(factors: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor]:
    """The affine map of the optical densities in R, G, B that `scale_stains` applies.

    Args:
        factors: of each of the three stains, ``(..., 3)``.
        shifts: of each, same shape, in optical density.

    Returns:
        float32 matrices ``(..., 3, 3)``, for densities as columns, and offsets ``(..., 3)``.
    """
    vectors = STAIN_VECTORS / STAIN_VECTORS.norm(dim=1, keepdim=True)
    # Unmix, scale and mix again are one 3 x 3 matrix in optical-density space.
    matrices = (torch.linalg.inv(vectors) @ torch.diag_embed(factors.double()) @ vectors).mT.float()
    return matrices, (shifts.double() @ vectors).float()


class RandomStainJitterd(RandomizableTransform, MapTransform):
    """Dictionary transform around `scale_stains`: factors in ``1 +- strength``, shifts in ``+- strength / FACTOR_TO_SHIFT``.

    Args:
        keys: of the images.
        strength: 0 for no change; 0.2 is strong.
        prob: share of the images that are changed.
    """

    def __init__(self, keys: KeysCollection, strength: float, prob: float = 1.0) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.strength = strength
        self.factors, self.shifts = torch.ones(3), torch.zeros(3)

    def randomize(self, data: Any) -> None:
        super().randomize(None)
        amounts = self.R.uniform(-1.0, 1.0, size=(2, 3)).astype(np.float32) * self.strength
        self.factors, self.shifts = torch.from_numpy(1 + amounts[0]), torch.from_numpy(amounts[1] / FACTOR_TO_SHIFT)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        self.randomize(None)
        if self._do_transform and self.strength > 0:
            for key in self.key_iterator(result):
                result[key] = scale_stains(result[key], self.factors, self.shifts)
        return result
