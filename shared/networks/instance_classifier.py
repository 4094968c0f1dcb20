"""The classifier of instances: a ResNet with one tumour logit, or a coarse map of them."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from .backbones.resnet import dilate_resnet, resnet
from .layers.pixel_normalization import IMAGENET_MEAN, IMAGENET_STD, PixelNormalization

__all__ = ["InstanceClassifier"]


class InstanceClassifier(nn.Module):
    """ResNet with one logit on raw pixel values.

    Args:
        backbone: "resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152" or "resnet200".
        norm: "batch", "group" (32 groups) or "frozen" (batch normalisation that always uses its running statistics,
            scale and shift trainable).
        pretrained: start from torchvision's ImageNet weights, downloaded once; see `resnet` for "group" and "frozen".
        weights_path: a local file with torchvision's state dict, instead of the download.
        mean: of red, green, blue, as shares of 255.
        std: the same.
        dense_stride: None for one logit per image; 32 or 16 for one every 32 or 16 pixels, by the same linear layer at each
            place in the stead of after the mean over all. The parameters are the same, so either form loads the other's
            checkpoint; at 32 the map's mean is the image's logit.

    Raises:
        ValueError: if there is no such backbone, norm or stride, or the weights do not fit.
        RuntimeError: if the ImageNet weights cannot be had: it never starts from random values instead.

    Reference:
        Xu et al., CAMEL, ICCV 2019, section 3.1: ResNet-50. The paper has no word on pre-training. Lerousseau et al., MICCAI
        2020, section 3.1: ResNet-50 from ImageNet. Their 13 x 13 outputs of a tile of 224 px are none that a ResNet-50 has:
        it has 7 x 7, and 14 x 14 without its last stride.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        norm: str = "batch",
        pretrained: bool = False,
        weights_path: str | Path | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        dense_stride: int | None = None,
    ) -> None:
        super().__init__()
        if dense_stride not in (None, 16, 32):
            raise ValueError(f"dense_stride must be 16, 32 or None; got {dense_stride}")
        self.dense_stride = dense_stride
        # Of another size the map of logits would reach beyond the image, and be squeezed into it.
        self.size_multiple_px = dense_stride or 1
        self.normalization = PixelNormalization(mean, std)
        self.resnet = resnet(backbone, num_classes=1, norm=norm, pretrained=pretrained, weights_path=weights_path)
        if dense_stride == 16:
            dilate_resnet(self.resnet, output_stride=16)

    def forward(self, images: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, uint8 or float, 0 to 255, to tumour logits ``(B, 1)``, dense ``(B, 1, h, w)``."""
        backbone = self.resnet
        normalized = self.normalization(images)
        if self.dense_stride is None:
            return backbone(normalized)
        # Step by step as in `DeepLabV2`, not in a function of both: TorchScript passes no modules.
        features = backbone.maxpool(backbone.act(backbone.bn1(backbone.conv1(normalized))))
        features = backbone.layer4(backbone.layer3(backbone.layer2(backbone.layer1(features))))
        return F.conv2d(features, backbone.fc.weight[:, :, None, None], backbone.fc.bias)  # type: ignore[union-attr]
