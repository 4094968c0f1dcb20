"""The classifier of instances on features: one tumour logit, or a coarse map of them."""

from __future__ import annotations

from torch import Tensor, nn

from .encoded_network import EncodedNetwork
from .heads import pixelwise_head

__all__ = ["EncodedClassifier"]


class EncodedClassifier(EncodedNetwork):
    """One tumour logit for each image, the mean over those of its features; or, dense, one for each feature.

    Both forms have the same parameters and load each other's checkpoints.

    Args:
        encoder: see `EncodedNetwork`.
        dense: give the map, and not its mean.
        hidden_channels: see `pixelwise_head`.
        finetune: see `EncodedNetwork`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        dense: bool = False,
        hidden_channels: int | None = None,
        finetune: bool = False,
    ) -> None:
        super().__init__(encoder, finetune)
        self.dense = dense
        self.head = pixelwise_head(self.channels, 1, hidden_channels)

    def forward(self, inputs: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, 0 to 255, or features ``(B, C, h, w)``, to logits ``(B, 1)``, dense ``(B, 1, h, w)``."""
        logits = self.head(self.features(inputs))
        return logits if self.dense else logits.mean(dim=(2, 3))
