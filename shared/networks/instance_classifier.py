"""The classifier of instances: a ResNet with one tumour logit."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from .pixel_normalization import IMAGENET_MEAN, IMAGENET_STD, PixelNormalization
from .resnet import resnet

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

    Raises:
        ValueError: if there is no such backbone or norm, or the weights do not fit.
        RuntimeError: if the ImageNet weights cannot be had: it never starts from random values instead.

    Reference:
        Xu et al., CAMEL, ICCV 2019, section 3.1: ResNet-50. The paper has no word on pre-training.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        norm: str = "batch",
        pretrained: bool = False,
        weights_path: str | Path | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.normalization = PixelNormalization(mean, std)
        self.resnet = resnet(backbone, num_classes=1, norm=norm, pretrained=pretrained, weights_path=weights_path)

    def forward(self, images: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, uint8 or float, 0 to 255, to tumour logits ``(B, 1)``."""
        return self.resnet(self.normalization(images))
