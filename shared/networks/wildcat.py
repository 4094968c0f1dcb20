"""WILDCAT: a ResNet with several maps per class, whose highest and lowest places represent the image."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from .backbones.resnet import dilate_resnet, resnet
from .layers.pixel_normalization import IMAGENET_MEAN, IMAGENET_STD, PixelNormalization
from .layers.score_pooling import ScorePooling

__all__ = ["Wildcat"]


class Wildcat(ScorePooling):
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
        self.set_pooling(num_classes, maps_per_class, k_max, k_min, alpha)
        self.backbone_name, self.norm = backbone, norm
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
        return self.class_means(self.transfer(features))
