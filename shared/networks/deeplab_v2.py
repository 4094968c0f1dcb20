"""DeepLabv2: dilated ResNet and atrous spatial pyramid pooling."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .backbones.resnet import dilate_resnet, resnet
from .layers.pixel_normalization import IMAGENET_MEAN, IMAGENET_STD, PixelNormalization

__all__ = ["AtrousPyramid", "DeepLabV2"]


class AtrousPyramid(nn.Module):
    """Class scores from parallel 3 x 3 convolutions with different dilations, summed.

    The dilations are part of the state dict and loading one sets them: weights used with other dilations would fit without an
    error and answer nonsense.

    Args:
        in_channels: channels of the features.
        out_channels: classes.
        atrous_rates: dilation of each branch, in features.

    Reference:
        Chen et al., DeepLab, TPAMI 2018, section 3.2 in its ResNet variant; weights drawn with deviation 0.01.
    """

    def __init__(self, in_channels: int, out_channels: int, atrous_rates: Sequence[int]) -> None:
        super().__init__()
        branches = [nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=rate, dilation=rate) for rate in atrous_rates]
        for branch in branches:
            nn.init.normal_(branch.weight, std=0.01)
        self.branches = nn.ModuleList(branches)
        self.register_buffer("atrous_rates", torch.tensor(list(atrous_rates)))
        self.register_load_state_dict_post_hook(_set_rates)

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(B, in_channels, h, w)`` to scores ``(B, out_channels, h, w)``."""
        # Stacked first, sum() over a list is beyond TorchScript.
        return torch.stack([branch(features) for branch in self.branches]).sum(dim=0)


def _set_rates(pyramid: AtrousPyramid, incompatible_keys: object) -> None:
    rates = pyramid.get_buffer("atrous_rates").tolist()
    for branch, rate in zip(pyramid.branches, rates, strict=True):
        if isinstance(branch, nn.Conv2d):
            branch.dilation = branch.padding = (rate, rate)


class DeepLabV2(nn.Module):
    """DeepLabv2 with a ResNet of output stride 8, on raw pixel values.

    Args:
        backbone: see `InstanceClassifier`.
        out_channels: classes.
        norm: "batch", "group" or "frozen", see `InstanceClassifier`.
        pretrained: start the ResNet from ImageNet weights.
        atrous_rates: dilations of the pyramid's branches, in features (8 pixels each). For images smaller than the 640 px
            crops of the paper take smaller ones: a branch whose taps fall outside a training crop never learns.
        weights_path: a local file with torchvision's state dict, instead of the download.
        mean: of red, green, blue, as shares of 255.
        std: the same.

    Raises:
        ValueError: if there is no such backbone or norm, no branch, a rate below 1, or the weights do not fit.
        RuntimeError: if the ImageNet weights cannot be had.

    Reference:
        Chen et al., DeepLab, TPAMI 2018. CAMEL names DeepLabv2 with ResNet-34. Deviations: no fully connected CRF, one
        scale instead of three, and batch normalisation is trained unless ``norm="frozen"``.
    """

    def __init__(
        self,
        backbone: str = "resnet34",
        out_channels: int = 2,
        norm: str = "batch",
        pretrained: bool = False,
        atrous_rates: Sequence[int] = (6, 12, 18, 24),
        weights_path: str | Path | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if not atrous_rates or min(atrous_rates) < 1:
            raise ValueError(f"atrous_rates must be one or more numbers >= 1; got {atrous_rates}")
        self.backbone_name, self.norm = backbone, norm
        self.normalization = PixelNormalization(mean, std)
        self.backbone = dilate_resnet(resnet(backbone, norm=norm, pretrained=pretrained, weights_path=weights_path))
        self.pyramid = AtrousPyramid(self.backbone.in_planes, out_channels, atrous_rates)

    def features(self, images: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, 0 to 255, to features ``(B, C, ceil(H / 8), ceil(W / 8))``."""
        backbone = self.backbone
        features = backbone.act(backbone.bn1(backbone.conv1(self.normalization(images))))
        return backbone.layer4(backbone.layer3(backbone.layer2(backbone.layer1(backbone.maxpool(features)))))

    def forward(self, images: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, uint8 or float, 0 to 255, to logits ``(B, out_channels, H, W)``."""
        scores = self.pyramid(self.features(images))
        return F.interpolate(scores, size=images.shape[-2:], mode="bilinear", align_corners=False)
