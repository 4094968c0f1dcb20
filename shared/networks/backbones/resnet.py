"""MONAI's 2-D ResNets, made so that they equal torchvision's, and their dilated form."""

from pathlib import Path

from monai.networks import nets
from torch import nn

from ..layers.norm_layers import replace_batch_norm
from .imagenet_weights import load_imagenet_weights

__all__ = ["BACKBONES", "dilate_resnet", "resnet"]

BACKBONES = ("resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200")


def resnet(
    backbone: str,
    num_classes: int | None = None,
    norm: str = "batch",
    pretrained: bool = False,
    weights_path: str | Path | None = None,
) -> nets.ResNet:
    """A 2-D ResNet for three channels, with the parameter names and shapes of torchvision's.

    Args:
        backbone: one of `BACKBONES`.
        num_classes: outputs of the last linear layer; None leaves it out.
        norm: "batch", "group" or "frozen", see `replace_batch_norm`.
        pretrained: start from ImageNet weights, all but the last linear layer. With ``norm="group"`` only the
            convolutions take them, for there is no GroupNorm in the file. Without it, "frozen" has nothing to freeze
            but mean 0 and variance 1: use it with a checkpoint.
        weights_path: a local file with torchvision's state dict, instead of the download.

    Raises:
        ValueError: if there is no such backbone or norm, weights do not fit, or `weights_path` is not asked for.
        RuntimeError: if the ImageNet weights cannot be had.

    Reference:
        He et al., CVPR 2016, with the stride in the 3 x 3 convolution of a bottleneck, as in torchvision.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}; got {backbone!r}")
    if weights_path is not None and not pretrained:
        raise ValueError(f"weights_path needs pretrained=True; got {pretrained=}, weights_path={str(weights_path)!r}")
    network: nets.ResNet = getattr(nets, backbone)(
        spatial_dims=2,
        n_input_channels=3,
        conv1_t_stride=2,
        shortcut_type="B",
        bias_downsample=False,
        feed_forward=num_classes is not None,
        num_classes=num_classes or 0,
    )
    if pretrained:
        load_imagenet_weights(network, backbone, weights_path)
    # MONAI's own `norm` reaches the stem only, and the weights need batch normalisation to load into.
    replace_batch_norm(network, norm)
    return network


def dilate_resnet(network: nets.ResNet, output_stride: int = 8) -> nets.ResNet:
    """Bring the output stride from 32 to 8 by dilation 2 in layer3 and 4 in layer4, or to 16 by 2 in layer4, in place.

    The strides go, and every filter after a stride is spread in its place; the convolution that had the stride keeps
    its former dilation. So every fourth (second) feature in each direction is exactly a feature of the network as it was.

    Args:
        network: a ResNet with features ``(B, C, ceil(H / 32), ceil(W / 32))``; it is changed and returned.
        output_stride: 8 or 16.

    Returns:
        the network, now with features ``(B, C, ceil(H / output_stride), ceil(W / output_stride))``.

    Raises:
        ValueError: for another output stride.

    Reference:
        Chen et al., DeepLab, TPAMI 2018, section 3.1 (the algorithm a trous).
    """
    if output_stride not in (8, 16):
        raise ValueError(f"output_stride must be 8 or 16; got {output_stride}")
    dilation = 1
    for stage in (network.layer3, network.layer4) if output_stride == 8 else (network.layer4,):
        for convolution in (layer for layer in stage.modules() if isinstance(layer, nn.Conv2d)):
            has_stride = convolution.stride == (2, 2)
            convolution.stride = (1, 1)
            if convolution.kernel_size == (3, 3):
                convolution.dilation = convolution.padding = (dilation, dilation)
                # In execution order the strided 3 x 3 convolution is the stage's first.
                dilation *= 2 if has_stride else 1
    return network
