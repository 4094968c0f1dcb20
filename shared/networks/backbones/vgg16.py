"""VGG-16 as a fully convolutional trunk, and the learned up-sampling of score maps that goes with it."""

from pathlib import Path
from typing import List, Tuple  # noqa: UP035  TorchScript reads these

import torch
from torch import Tensor, nn

from ..layers.norm_layers import replace_batch_norm
from .imagenet_weights import load_imagenet_vgg16, load_imagenet_vgg16_classifier

__all__ = ["STAGE_CHANNELS", "VGG16Trunk", "bilinear_upsampling", "vgg_convolutions"]

STAGE_CHANNELS = (64, 128, 256, 512, 512)
STAGE_CONVOLUTIONS = (2, 2, 3, 3, 3)
PAPER_HEAD_CHANNELS = 4096


def vgg_convolutions(stage: int, norm: str | None) -> list[nn.Module]:
    """The 3 x 3 convolutions of one stage of VGG-16, each with its ReLU, without the pooling.

    Args:
        stage: 1 to 5.
        norm: None for VGG-16 as it is; "batch", "group" or "frozen" (see `replace_batch_norm`) after every convolution.
    """
    layers: list[nn.Module] = []
    in_channels, out_channels = (3, *STAGE_CHANNELS)[stage - 1 : stage + 1]
    for _ in range(STAGE_CONVOLUTIONS[stage - 1]):
        layers += _convolution(in_channels, out_channels, 3, norm)
        in_channels = out_channels
    return layers


def _convolution(in_channels: int, out_channels: int, kernel_size: int, norm: str | None) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(convolution.get_parameter("bias"))
    layers: list[nn.Module] = [convolution, nn.ReLU(inplace=True)]
    if norm is None:
        return layers
    layers.insert(1, nn.BatchNorm2d(out_channels))
    return list(replace_batch_norm(nn.Sequential(*layers), norm).children())


class VGG16Trunk(nn.Module):
    """The five stages of VGG-16 and its first two fully connected layers as convolutions ("fc6" and "fc7").

    Images of any size: pooling rounds up, as in Caffe, so that place (i, j) of the features at stride s lies over the pixels
    from (s i, s j) on, whatever the size. fc6 is padded instead of the image (by 100 px in the original), for the same places.

    Args:
        head_channels: of fc6 and fc7; VGG-16 has 4096.
        norm: see `vgg_convolutions`; also after fc6 and fc7.
        pretrained: start from torchvision's ImageNet weights, downloaded once; fc6 and fc7 too where they have 4096 channels.
        weights_path: a local file with torchvision's state dict, instead of the download.

    Raises:
        ValueError: if the ImageNet weights do not fit, `weights_path` is not asked for, or `pretrained` is asked for with a
            norm.
        RuntimeError: if the ImageNet weights cannot be had: it never starts from random values instead.

    Reference:
        Simonyan & Zisserman, ICLR 2015; as convolutions Long et al., CVPR 2015, section 4.1, with dropout of 0.5.
    """

    def __init__(
        self,
        head_channels: int = PAPER_HEAD_CHANNELS,
        norm: str | None = None,
        pretrained: bool = False,
        weights_path: str | Path | None = None,
    ) -> None:
        super().__init__()
        check_vgg_weights(pretrained, norm, weights_path)
        self.stages = nn.ModuleList(nn.Sequential(*vgg_convolutions(stage, norm)) for stage in range(1, 6))
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True)
        fc6, fc7 = _convolution(STAGE_CHANNELS[-1], head_channels, 7, norm), _convolution(head_channels, head_channels, 1, norm)
        self.head = nn.Sequential(*fc6, nn.Dropout(), *fc7, nn.Dropout())
        if pretrained:
            load_imagenet_vgg16(self.stages, weights_path)
            if head_channels == PAPER_HEAD_CHANNELS:
                load_imagenet_vgg16_classifier(self.head, weights_path)

    def forward(self, images: Tensor) -> Tuple[List[Tensor], List[Tensor]]:  # noqa: UP006
        """Normalised images ``(B, 3, H, W)`` to each stage's features before and after its pooling.

        Returns:
            of stage t = 1 to 5 ``(B, C, ceil(H / 2 ** (t - 1)), ...)``, and ``(B, C, ceil(H / 2 ** t), ...)``. The head, fc6
            and fc7, takes the last of the latter.
        """
        convolved: List[Tensor] = []  # noqa: UP006
        pooled: List[Tensor] = []  # noqa: UP006
        features = images
        for stage in self.stages:
            convolved.append(stage(features))
            features = self.pool(convolved[-1])
            pooled.append(features)
        return convolved, pooled


def check_vgg_weights(
    pretrained: bool, norm: str | None, weights_path: str | Path | None, norms_with_weights: tuple[str, ...] = ()
) -> None:
    """Raise a ValueError if the ImageNet weights are requested with a norm that has none, or a path to them without them."""
    if pretrained and norm is not None and norm not in norms_with_weights:
        raise ValueError(f"the ImageNet weights are of VGG-16 without normalisation; got pretrained=True and {norm=}")
    if weights_path is not None and not pretrained:
        raise ValueError(f"weights_path needs pretrained=True; got {pretrained=}, weights_path={str(weights_path)!r}")


def bilinear_upsampling(num_channels: int, factor: int) -> nn.ConvTranspose2d:
    """A transposed convolution that begins as bilinear interpolation of each channel, and learns.

    ``(B, C, h, w)`` to ``(B, C, factor * h, factor * w)``: equal to ``F.interpolate(..., align_corners=False)`` but within half
    a place of the border, where it fades to 0.

    Args:
        num_channels: C.
        factor: even.

    Reference:
        Long et al., CVPR 2015, sections 3.3 and 4.2.
    """
    layer = nn.ConvTranspose2d(num_channels, num_channels, 2 * factor, stride=factor, padding=factor // 2, bias=False)
    ramp = 1 - ((torch.arange(2 * factor) + 0.5) / factor - 1).abs()
    with torch.no_grad():
        layer.weight.zero_()
        for channel in range(num_channels):
            layer.weight[channel, channel] = ramp[:, None] * ramp
    return layer
