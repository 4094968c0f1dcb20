"""The image sizes that a network accepts, and how the others are brought to one: mirrored at the right and bottom border."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...geometry.mirroring import mirrored_indices

# The coarsest stride of the usual encoders: what a network that does not say what it takes is tried with at last.
USUAL_MULTIPLE_PX = 32


@dataclass(frozen=True)
class ImageSizes:
    """Sides that are a multiple of `multiple_px` and at least `smallest_px`.

    A network, or any part of it, says so in its own attributes: ``size_multiple_px`` where a side that is no multiple would be
    an error or would shift the answers, ``smallest_image_px`` where smaller images are an error. Without them it takes any.

    Args:
        multiple_px: 1 for any.
        smallest_px: 1 for any.
    """

    multiple_px: int = 1
    smallest_px: int = 1

    @classmethod
    def of_network(cls, network: nn.Module) -> ImageSizes:
        """The sizes that all parts of a network accept."""
        parts = list(network.modules())
        return cls(
            math.lcm(*(int(getattr(part, "size_multiple_px", 1)) for part in parts)),
            max(int(getattr(part, "smallest_image_px", 1)) for part in parts),
        )

    def accepted(self, shape: Sequence[int]) -> tuple[int, int]:
        """The smallest accepted (H, W) that holds an image of this (H, W).

        >>> ImageSizes(16, 64).accepted((40, 100))
        (64, 112)
        """
        height, width = (-(-max(side, self.smallest_px) // self.multiple_px) * self.multiple_px for side in shape)
        return height, width


def mirrored_to(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """Images ``(B, C, H, W)`` continued to the right and downwards to `shape` (H, W), mirrored at their borders."""
    for axis, side in ((2, shape[0]), (3, shape[1])):
        if side != images.shape[axis]:
            places = torch.from_numpy(mirrored_indices(0, side, images.shape[axis]))
            images = images.index_select(axis, places.to(images.device))
    return images
