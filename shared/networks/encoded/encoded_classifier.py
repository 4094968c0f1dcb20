"""The classifier of instances on features: one tumour logit, or a coarse map of them."""

from __future__ import annotations

import torch
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
        logits = self._map(inputs)
        return logits if self.dense else logits.mean(dim=(2, 3))

    @torch.jit.unused
    def lattice_logits(self, inputs: Tensor, instances_per_side: int) -> Tensor:
        """Logits ``(B, N * N)`` of the instances of images ``(B, 3, H, W)`` or of their features, row by row.

        They are what `forward` says of the features of each instance, none of which is copied; the features divide into N x N.
        """
        logits = self._map(inputs)[:, 0]
        sides = [side for length in logits.shape[1:] for side in (instances_per_side, length // instances_per_side)]
        return logits.unflatten(2, sides[2:]).unflatten(1, sides[:2]).mean(dim=(2, 4)).flatten(1)

    def _map(self, inputs: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self.head(self.features(inputs))
        return self.answers(self.head, inputs)
