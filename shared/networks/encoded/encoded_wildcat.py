"""WILDCAT on features: several maps a class, linear in an encoder's features, and its pooling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers.score_pooling import ScorePooling
from .encoded_network import EncodedNetwork
from .heads import pixelwise_head

__all__ = ["EncodedWildcat"]


class EncodedWildcat(EncodedNetwork, ScorePooling):
    """Score maps of an encoder's features, and their pooling to the image's scores, as of `Wildcat`.

    Args:
        encoder: see `EncodedNetwork`.
        num_classes: see `Wildcat`.
        maps_per_class: the same.
        k_max: the same.
        k_min: the same.
        alpha: the same.
        hidden_channels: see `pixelwise_head`.
        finetune: see `EncodedNetwork`.
        kernel_size: see `pixelwise_head`.

    Raises:
        ValueError: for fewer than one class or map, or k out of range.
    """

    def __init__(
        self,
        encoder: nn.Module,
        num_classes: int = 2,
        maps_per_class: int = 8,
        k_max: float = 0.2,
        k_min: float = 0.2,
        alpha: float = 0.7,
        hidden_channels: int | None = None,
        finetune: bool = False,
        kernel_size: int = 1,
    ) -> None:
        super().__init__(encoder, finetune)
        self.set_pooling(num_classes, maps_per_class, k_max, k_min, alpha)
        self.kernel_size = kernel_size
        self.transfer = pixelwise_head(self.channels, num_classes * maps_per_class, hidden_channels, kernel_size)

    def score_maps(self, inputs: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, 0 to 255, or features ``(B, C, h, w)``, to score maps ``(B, K, h, w)``, float32."""
        if torch.jit.is_scripting():
            return self.class_means(self.transfer(self.features(inputs)))
        return self.class_means(self.answers(self.transfer, inputs))
