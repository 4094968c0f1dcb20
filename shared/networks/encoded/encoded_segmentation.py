"""Segmentation on features: class logits at every feature, brought to the pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .encoded_network import EncodedNetwork
from .heads import pixelwise_head

__all__ = ["EncodedSegmentation"]


class EncodedSegmentation(EncodedNetwork):
    """Class logits for every feature of an encoder, interpolated to the pixels of the image.

    Args:
        encoder: see `EncodedNetwork`.
        out_channels: classes.
        hidden_channels: see `pixelwise_head`.
        kernel_size: the same.
        finetune: see `EncodedNetwork`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        out_channels: int = 2,
        hidden_channels: int | None = None,
        kernel_size: int = 1,
        finetune: bool = False,
    ) -> None:
        super().__init__(encoder, finetune)
        self.kernel_size = kernel_size
        self.head = pixelwise_head(self.channels, out_channels, hidden_channels, kernel_size)

    def forward(self, inputs: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, 0 to 255, or features ``(B, C, h, w)``, to class logits ``(B, K, H, W)``, float32."""
        if torch.jit.is_scripting():
            return self.to_pixels(self.head(self.features(inputs)), inputs)
        return self.to_pixels(self.answers(self.head, inputs), inputs)
