"""Boosted trees on the features of an encoder, as a network: images or features in, logits out, trees in its state dict."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers.boosted_trees import BoostedTrees
from .encoded_network import EncodedNetwork

__all__ = ["EncodedBoosting"]


class EncodedBoosting(EncodedNetwork, BoostedTrees):
    """Tumour logits of every pixel, by boosted trees on the features of an encoder, as `BoostedPatches` has them on its own.

    Args:
        encoder: see `EncodedNetwork`. It does not learn: trees have no gradient.
        num_trees: room for that many trees.
        max_depth: of a tree: 1 for a stump.

    Raises:
        ValueError: if a number does not fit.
    """

    def __init__(self, encoder: nn.Module, num_trees: int, max_depth: int = 1) -> None:
        super().__init__(encoder)
        self.add_trees(num_trees, max_depth)

    @property
    @torch.jit.unused
    def feature_names(self) -> list[str]:
        """Names of the features, in their order."""
        return [f"feature {index}" for index in range(self.channels)]

    def forward(self, inputs: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, 0 to 255, or features ``(B, C, h, w)``, to logits ``(B, 1, H, W)``, float32."""
        return self.to_pixels(self.scores(self.features(inputs)), inputs)
