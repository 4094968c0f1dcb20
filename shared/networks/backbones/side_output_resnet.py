"""The first stages of a ResNet with a side output each and their fusion."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ..layers.pixel_normalization import IMAGENET_MEAN, IMAGENET_STD, PixelNormalization
from ..layers.side_outputs import StageSideOutputs, checked_side_outputs
from .resnet import resnet

__all__ = ["SideOutputResNet"]

_NUM_STAGES = 5


class SideOutputResNet(StageSideOutputs):
    """Tumour probability of every pixel from several depths of a ResNet, on raw pixel values: `SideOutputVGG` on another trunk.

    A stage ends where the next one halves the features: the stem before its pooling, then each of the four groups of blocks, with
    a feature every 2, 4, 8, 16 and 32 pixels.

    Args:
        backbone: see `InstanceClassifier`.
        num_stages: of the ResNet, 1 to 5; what lies after them is left out.
        side_outputs: stages with a side output, counted from 1, ascending to `num_stages`; None for every stage.
        fusion_weights: see `SideOutputVGG`.
        norm: "batch", "group" or "frozen", see `InstanceClassifier`.
        pretrained: start the ResNet from ImageNet weights.
        checkpointing: see `SideOutputVGG`.
        weights_path: a local file with torchvision's state dict, instead of the download.
        mean: of red, green, blue, as shares of 255.
        std: the same.

    Attributes:
        margin_px: half of what a feature of the last stage sees, and what it stands for, in whole such features: by so much
            tiles must overlap to leave no seams.

    Raises:
        ValueError: if there is no such backbone or norm, no such stages, or weights do not fit.
        RuntimeError: if the ImageNet weights cannot be had.

    Reference:
        Xu et al., CAMEL, ICCV 2019, table 3: DWS-MIL and CDWS-MIL with a ResNet-50. The paper does not say which of its layers
        have side outputs; three by default, as in VGG-16 (Jia et al., IEEE TMI 2017, section IV).
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        num_stages: int = 3,
        side_outputs: Sequence[int] | None = None,
        fusion_weights: Sequence[float] | None = None,
        norm: str = "batch",
        pretrained: bool = False,
        checkpointing: bool = False,
        weights_path: str | Path | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if not 1 <= num_stages <= _NUM_STAGES:
            raise ValueError(f"num_stages must be 1 to {_NUM_STAGES}; got {num_stages}")
        tapped = checked_side_outputs(num_stages, side_outputs)
        trunk = resnet(backbone, norm=norm, pretrained=pretrained, weights_path=weights_path)
        stages: list[nn.Module] = [
            nn.Sequential(trunk.conv1, trunk.bn1, trunk.act),
            nn.Sequential(trunk.maxpool, trunk.layer1),
            trunk.layer2,
            trunk.layer3,
            trunk.layer4,
        ]
        self.smallest_image_px = 2**num_stages
        self.add_stages(stages[:num_stages], PixelNormalization(mean, std), checkpointing)
        self.add_side_layers([_side_layer(channels) for channels in self._channels(tapped)])
        self.add_fusion(tapped, fusion_weights)
        self.margin_px = _margin_px(self.stages)

    @torch.no_grad()
    def _channels(self, stages: Sequence[int]) -> list[int]:
        """Of the features of some stages, which depend on the ResNet's blocks."""
        was_training = self.training
        taps = self.eval().taps(torch.zeros(1, 3, 32, 32))
        self.train(was_training)
        return [taps[stage - 1].shape[1] for stage in stages]


def _margin_px(stages: nn.Module) -> int:
    field_px, stride_px = 1, 1
    for name, layer in stages.named_modules():
        # What a block adds to its own output sees no more than the block.
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)) and "downsample" not in name:
            (kernel, *_), (stride, *_) = (
                size if isinstance(size, tuple) else (size,) for size in (layer.kernel_size, layer.stride)
            )
            field_px += (kernel - 1) * stride_px
            stride_px *= stride
    # The middle of what a feature sees is the first of the pixels that it stands for, half of them before their middle.
    return math.ceil((field_px // 2 + stride_px) / stride_px) * stride_px


def _side_layer(channels: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, 1, kernel_size=1)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer
