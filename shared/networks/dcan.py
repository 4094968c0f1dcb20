"""DCAN's segmentation branch: score maps of several depths of VGG-16, up-sampled, supervised one by one, and summed."""

from collections.abc import Sequence
from pathlib import Path
from typing import List, Tuple, Union  # noqa: UP035  TorchScript reads these

import torch
from torch import Tensor, nn

from .backbones.vgg16 import STAGE_CHANNELS, VGG16Trunk, bilinear_upsampling
from .layers.pixel_normalization import IMAGENET_MEAN, IMAGENET_STD, PixelNormalization

__all__ = ["DCAN"]

LEVEL_STRIDES = (8, 16, 32)


class DCAN(nn.Module):
    """Multi-level contextual features with auxiliary supervision, on raw pixel values; without the branch for contours.

    Class scores are read at three depths of VGG-16 - after conv4_3, conv5_3 and fc7, at strides of 8, 16 and 32 px - and
    brought to the size of the image by learned up-sampling. Their sum is the segmentation. In training each of the three is a
    segmentation of its own, see `shared.losses.AuxiliarySegmentationLoss`.

    Args:
        out_channels: classes.
        head_channels: of fc6 and fc7.
        norm: see `VGG16Trunk`: None, or a normalisation after every convolution, for a training from scratch.
        pretrained: start from torchvision's ImageNet weights, see `VGG16Trunk`.
        weights_path: a local file with torchvision's state dict, instead of the download.
        mean: of red, green, blue, as shares of 255.
        std: the same.

    Raises:
        ValueError: as `VGG16Trunk`.
        RuntimeError: if the ImageNet weights cannot be had.

    Reference:
        Chen et al., DCAN, CVPR 2016, section 2.1; without contours as in Jia et al., IEEE TMI 2017, section V.C.5. Dropout
        before the scores, weights drawn with deviation 0.01. Readings: the levels are the last three of VGG-16 with different
        strides; ImageNet weights in place of DeepLab's of PASCAL VOC.
    """

    def __init__(
        self,
        out_channels: int = 2,
        head_channels: int = 1024,
        norm: str | None = None,
        pretrained: bool = False,
        weights_path: str | Path | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.normalization = PixelNormalization(mean, std)
        self.trunk = VGG16Trunk(head_channels, norm, pretrained, weights_path)
        # The head ends with its own dropout.
        self.dropout = nn.Dropout()
        level_channels = (STAGE_CHANNELS[3], STAGE_CHANNELS[4], head_channels)
        self.score_layers = nn.ModuleList(_score_layer(channels, out_channels) for channels in level_channels)
        self.upsamplings = nn.ModuleList(bilinear_upsampling(out_channels, stride) for stride in LEVEL_STRIDES)

    def level_logits(self, images: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, 0 to 255, to each level's logits ``(B, 3, out_channels, H, W)``."""
        convolved, pooled = self.trunk(self.normalization(images))
        features = [self.dropout(convolved[3]), self.dropout(convolved[4]), self.trunk.head(pooled[4])]
        logits: List[Tensor] = []  # noqa: UP006
        for index, (score, upsample) in enumerate(zip(self.score_layers, self.upsamplings)):  # noqa: B905  TorchScript has no strict
            logits.append(upsample(score(features[index]))[:, :, : images.shape[2], : images.shape[3]])
        return torch.stack(logits, dim=1)

    def forward(self, images: Tensor) -> Union[Tensor, Tuple[Tensor, Tensor]]:  # noqa: UP006, UP007
        """RGB images ``(B, 3, H, W)``, uint8 or float, 0 to 255, to logits of the same size.

        Returns:
            in train mode the fused logits ``(B, out_channels, H, W)`` and those of the levels ``(B, 3, out_channels, H, W)``;
            in eval mode, and from a scripted network, the fused ones alone.
        """
        levels = self.level_logits(images)
        if not torch.jit.is_scripting() and self.training:
            return levels.sum(dim=1), levels
        return levels.sum(dim=1)


def _score_layer(in_channels: int, out_channels: int) -> nn.Conv2d:
    layer = nn.Conv2d(in_channels, out_channels, kernel_size=1)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer
