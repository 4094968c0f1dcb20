"""Segmentation and classification by one network: the images' labels are read off the segmentation."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from .backbones.resnet import resnet
from .layers.joint_maps import JointMaps
from .layers.pixel_normalization import IMAGENET_MEAN, IMAGENET_STD, PixelNormalization

__all__ = ["SegClsResNet18"]

ENCODER = ("conv1", "bn1", "act", "maxpool", "layer1", "layer2", "layer3")
DECODER_FEATURES = 64


class SegClsResNet18(JointMaps):
    """A ResNet-18 up to its third layer, a decoder to a map of class logits, and a classifier of that map.

    Masked images train encoder and decoder. Labelled ones go through both and the classifier, so that an image's label corrects
    the map that the classifier sees. The map has one place every 8 pixels: of 128 x 128 px it is 16 x 16.

    Args:
        num_classes: C.
        head: how a map becomes an image's logits. ``"paper"``: the mean over the map, 1 x 1 convolution C -> 8, batch
            normalisation, ReLU, 1 x 1 convolution 8 -> C. ``"released"``: the map's maximum, no parameters.
        pretrained: start the encoder from torchvision's ImageNet weights, downloaded once.
        weights_path: a local file with torchvision's state dict, instead of the download.
        train_classifier: False for a training without labelled images: the classifier's parameters then take no gradient.
        mean: of red, green, blue, as shares of 255.
        std: the same.

    Raises:
        ValueError: if there is no such head, or there are fewer than 2 classes.
        RuntimeError: if the ImageNet weights cannot be had: it never starts from random values instead.

    Reference:
        Ciga and Martel, Learning to segment images with classification labels, 2019, tables A.1 and A.2. At C = 4 the encoder has
        2,782,784, the decoder 147,844 and the classifier 80 parameters. The table says "2d upsampling (x2)": bilinear, as in the
        released code (but with pixel centres kept in place). The released code has another head than the table.
    """

    def __init__(
        self,
        num_classes: int = 4,
        head: str = "paper",
        pretrained: bool = False,
        weights_path: str | Path | None = None,
        train_classifier: bool = True,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.normalization = PixelNormalization(mean, std)
        backbone = resnet("resnet18", pretrained=pretrained, weights_path=weights_path)
        self.encoder = nn.Sequential(OrderedDict((name, getattr(backbone, name)) for name in ENCODER))
        self.decoder = nn.Sequential(
            nn.Conv2d(256, DECODER_FEATURES, 3, padding=1, bias=False),
            nn.BatchNorm2d(DECODER_FEATURES),
            nn.ReLU(inplace=True),
            nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False),
            nn.Conv2d(DECODER_FEATURES, num_classes, 1),
        )
        self.add_classifier(num_classes, head, train_classifier)

    def maps(self, images: Tensor) -> Tensor:
        """Class logits ``(B, C, h, w)``, one place every 8 pixels, from RGB images ``(B, 3, H, W)``."""
        return self.decoder(self.encoder(self.normalization(images)))

    def to_pixels(self, maps: Tensor, images: Tensor) -> Tensor:
        """Maps ``(B, C, h, w)`` of images ``(B, 3, H, W)`` at the images' size: each place is 8 x 8 pixels."""
        # Not to the images' size: where that is no multiple of 16, the map would be squeezed and its places shifted.
        return F.interpolate(maps, scale_factor=8.0, mode="nearest")[:, :, : images.shape[2], : images.shape[3]]
