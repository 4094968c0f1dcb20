"""WILDCAT: a ResNet with several maps a class, whose highest and lowest places speak for the image."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .backbones.resnet import dilate_resnet, resnet
from .layers.pixel_normalization import IMAGENET_MEAN, IMAGENET_STD, PixelNormalization

__all__ = ["Wildcat", "max_min_pooling"]


def max_min_pooling(score_maps: Tensor, k_max: float = 0.2, k_min: float = 0.2, alpha: float = 0.7) -> Tensor:
    """Mean of the k+ highest places of each map, plus alpha times the mean of its k- lowest.

    Args:
        score_maps: ``(B, C, h, w)``.
        k_max: k+: below 1 a share of the places, rounded (one at least); else their number (all at most).
        k_min: k- likewise; 0 for none.
        alpha: weight of the lowest places.

    Returns:
        scores ``(B, C)``.

    Raises:
        ValueError: if k_max is not above 0, or k_min is below 0.

    Reference:
        Durand et al., CVPR 2017, equation (2): s = max_h (1/k+) sum h z + alpha min_h (1/k-) sum h z. The released code
        halves the sum; that is a constant, here left out as in the equation.

    >>> max_min_pooling(torch.tensor([4.0, 1.0, -2.0, 2.0]).view(1, 1, 2, 2), k_max=2, k_min=1, alpha=0.5)
    tensor([[2.]])
    """
    if k_max <= 0 or k_min < 0:
        raise ValueError(f"need k_max > 0 and k_min >= 0; got {k_max=}, {k_min=}")
    places = score_maps.flatten(2)
    num_places = places.shape[2]
    scores = places.topk(_number_of(k_max, num_places), dim=2).values.mean(dim=2)
    if k_min > 0 and alpha != 0:
        scores = scores + alpha * places.topk(_number_of(k_min, num_places), dim=2, largest=False).values.mean(dim=2)
    return scores


def _number_of(k: float, num_places: int) -> int:
    return min(num_places, int(k)) if k >= 1 else max(1, round(k * num_places))


class Wildcat(nn.Module):
    """ResNet, multi-map transfer layer, class-wise and spatial pooling, on raw pixel values.

    A 1 x 1 convolution gives M maps for each class; their mean is the class's score map. From it `max_min_pooling` makes the
    image's score, which alone is trained; of a trained network the score maps are the segmentation.

    Args:
        backbone: see `InstanceClassifier`.
        num_classes: C: 2 for normal and tumour.
        maps_per_class: M.
        norm: "batch", "group" or "frozen", see `InstanceClassifier`.
        pretrained: start the ResNet from ImageNet weights.
        output_stride: 32 for the ResNet as it is; 16 or 8 for finer maps by dilation, see `dilate_resnet`.
        k_max: see `max_min_pooling`; of maps at the size that the network sees.
        k_min: the same.
        alpha: the same.
        weights_path: a local file with torchvision's state dict, instead of the download.
        mean: of red, green, blue, as shares of 255.
        std: the same.

    Raises:
        ValueError: if there is no such backbone, norm or stride, fewer than one class or map, k out of range, or the weights do
            not fit.
        RuntimeError: if the ImageNet weights cannot be had.

    Reference:
        Durand et al., WILDCAT, CVPR 2017, section 3; CAMEL compares with ResNet-50. Maps, k and alpha by default as in the
        released code's example for VOC 2007.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        num_classes: int = 2,
        maps_per_class: int = 8,
        norm: str = "batch",
        pretrained: bool = False,
        output_stride: int = 32,
        k_max: float = 0.2,
        k_min: float = 0.2,
        alpha: float = 0.7,
        weights_path: str | Path | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if num_classes < 1 or maps_per_class < 1:
            raise ValueError(f"need a class and a map at least; got {num_classes=}, {maps_per_class=}")
        if k_max <= 0 or k_min < 0:
            raise ValueError(f"need k_max > 0 and k_min >= 0; got {k_max=}, {k_min=}")
        self.num_classes, self.maps_per_class = num_classes, maps_per_class
        self.k_max, self.k_min, self.alpha = float(k_max), float(k_min), float(alpha)
        self.normalization = PixelNormalization(mean, std)
        self.backbone = resnet(backbone, norm=norm, pretrained=pretrained, weights_path=weights_path)
        if output_stride != 32:
            dilate_resnet(self.backbone, output_stride)
        self.transfer = nn.Conv2d(self.backbone.in_planes, num_classes * maps_per_class, kernel_size=1)

    def score_maps(self, images: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, 0 to 255, to class-wise pooled score maps ``(B, C, h, w)``, float32."""
        backbone = self.backbone
        features = backbone.maxpool(backbone.act(backbone.bn1(backbone.conv1(self.normalization(images)))))
        features = backbone.layer4(backbone.layer3(backbone.layer2(backbone.layer1(features))))
        return self.transfer(features).float().unflatten(1, [self.num_classes, self.maps_per_class]).mean(dim=2)

    def image_scores(self, images: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, 0 to 255, to class scores ``(B, C)``."""
        return max_min_pooling(self.score_maps(images), self.k_max, self.k_min, self.alpha)

    def forward(self, images: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, uint8 or float, 0 to 255, to logits, float32.

        Returns:
            in train mode the images' class scores ``(B, C)``; in eval mode, and from a scripted network, the score maps brought
            to the size of the images ``(B, C, H, W)``.
        """
        if not torch.jit.is_scripting() and self.training:
            return self.image_scores(images)
        return F.interpolate(self.score_maps(images), size=images.shape[-2:], mode="bilinear", align_corners=False)
