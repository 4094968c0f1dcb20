"""An encoder as the slide engine needs it: tiles in, features of their cells out, as fast as the device can."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .image_sizes import ImageSizes, mirrored_to


class TileFeatures(nn.Module):
    """Half-precision features of uint8 tiles, in channels_last, in bfloat16 where that is faster.

    Args:
        encoder: RGB 0..255, float32 ``(B, 3, H, W)`` -> features ``(B, C, H / s, W / s)``. It normalises itself.
        bfloat16: compute in bfloat16 where autocast allows, see `computes_bfloat16`.
    """

    def __init__(self, encoder: nn.Module, bfloat16: bool = False) -> None:
        super().__init__()
        self.encoder, self.uses_bfloat16 = encoder, bfloat16
        self.sizes = ImageSizes.of_network(encoder)

    def forward(self, tiles: Tensor, shape: tuple[int, int]) -> Tensor:
        """Tiles uint8 ``(B, H, W, 3)`` to float16 ``(B, *shape, C)``: (H, W) of a tile in cells.

        A tile that is no multiple of the encoder's stride is mirrored at its right and bottom border. Where a tile is a single
        cell, its feature is that of its first place: an image's own token is the same everywhere.

        Raises:
            ValueError: if the encoder's features have another shape.
        """
        # The permuted view of (B, H, W, 3) is channels_last already.
        images = tiles.permute(0, 3, 1, 2).float()
        images = mirrored_to(images, self.sizes.accepted(images.shape[2:]))
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.uses_bfloat16):
            features = self.encoder(images)
        if shape == (1, 1):
            features = features[:, :, :1, :1]
        if features.shape[2:] != shape:
            raise ValueError(
                f"expected the encoder to give {shape[0]} x {shape[1]} features of {images.shape[2]} x {images.shape[3]} px, "
                f"found {tuple(features.shape)}"
            )
        return features.permute(0, 2, 3, 1).to(torch.float16)
