"""Boosted trees on the features of every patch, as a network: images in, logits out, trees in its state dict."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .layers.boosted_trees import BoostedTrees
from .layers.patch_features import PatchFeatures

__all__ = ["BoostedPatches"]


class BoostedPatches(BoostedTrees):
    """Tumour logits of every pixel, by boosted trees on `PatchFeatures`.

    The trees are buffers: a checkpoint or an exported model carries them. Fresh, there are none: every logit is 0. A patch's
    logit is that of its middle, and is brought to pixels bilinearly.

    Args:
        num_trees: room for that many trees.
        max_depth: of a tree: 1 for a stump.
        patch_size_px: side of a patch.
        stride_px: between patches.
        num_bins: of a colour histogram.

    Raises:
        ValueError: if a number does not fit.

    Reference:
        MIL-Boosting, the comparator of Jia et al., IEEE TMI 2017, section V.B.4: patches of 64 px, 4 px apart.
    """

    def __init__(
        self, num_trees: int, max_depth: int = 1, patch_size_px: int = 64, stride_px: int = 4, num_bins: int = 8
    ) -> None:
        super().__init__()
        self.features = PatchFeatures(patch_size_px, stride_px, num_bins)
        self.add_trees(num_trees, max_depth)

    @property
    @torch.jit.unused
    def feature_names(self) -> list[str]:
        """Names of the features, in their order."""
        return self.features.names

    def forward(self, images: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, uint8 or float, 0 to 255, to logits ``(B, 1, H, W)``, float32."""
        features = self.features(images)
        patches = self.scores(features)
        height, width = images.shape[2], images.shape[3]
        stride = self.features.stride_px
        size = [features.shape[2] * stride, features.shape[3] * stride]
        return F.interpolate(patches, size=size, mode="bilinear", align_corners=False)[:, :, :height, :width]
