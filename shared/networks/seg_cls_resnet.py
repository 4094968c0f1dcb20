"""Segmentation and classification by one network: the images' labels are read off the segmentation."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Dict, Optional, Union  # noqa: UP035  TorchScript reads these

from torch import Tensor, nn
from torch.nn import functional as F

from .backbones.resnet import resnet
from .layers.pixel_normalization import IMAGENET_MEAN, IMAGENET_STD, PixelNormalization

__all__ = ["HEADS", "SegClsResNet18"]

HEADS = ("paper", "released")
ENCODER = ("conv1", "bn1", "act", "maxpool", "layer1", "layer2", "layer3")
DECODER_FEATURES, CLASSIFIER_FEATURES = 64, 8


class SegClsResNet18(nn.Module):
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
        if head not in HEADS:
            raise ValueError(f"head must be one of {', '.join(HEADS)}; got {head!r}")
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, background among them; got {num_classes}")
        self.head = head
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
        if head == "paper":
            self.classifier: nn.Module = nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(num_classes, CLASSIFIER_FEATURES, 1, bias=False),
                nn.BatchNorm2d(CLASSIFIER_FEATURES),
                nn.ReLU(inplace=True),
                nn.Conv2d(CLASSIFIER_FEATURES, num_classes, 1, bias=False),
                nn.Flatten(),
            )
        else:
            self.classifier = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
        self.classifier.requires_grad_(train_classifier)

    def forward(
        self,
        images: Optional[Tensor] = None,  # noqa: UP045
        labelled: Optional[Tensor] = None,  # noqa: UP045
    ) -> Union[Tensor, Dict[str, Tensor]]:  # noqa: UP006, UP007
        """Segment images; in training, both kinds of images at once.

        Masked and labelled images are passes of their own: their sizes may differ, and batch normalisation sees each alone.

        Args:
            images: RGB ``(B, 3, H, W)``, uint8 or float, 0 to 255.
            labelled: RGB ``(K, 3, h, w)``, likewise, or None.

        Returns:
            without `labelled` class logits ``(B, C, H, W)``. With them a dictionary: ``pixel_logits (B, C, H, W)`` of `images`
            if there are any, and ``image_logits (K, C)``. With the released head also ``image_logits_of_masked (B, C)`` and
            ``pixel_logits_of_labelled (K, C, h, w)``, which its loss wants.

        Raises:
            ValueError: if there are no images at all, or in training a single labelled one (its batch normalisation has one
                value a channel).
        """
        if labelled is None:
            if images is None:
                raise ValueError("the network needs images, labelled images, or both")
            return self._pixels(self.maps(images), images)
        if self.training and self.head == "paper" and labelled.shape[0] < 2:
            raise ValueError(
                "batch normalisation of the classifier needs at least 2 labelled images a step and process; "
                f"got {labelled.shape[0]}"
            )
        logits = {}
        labelled_maps = self.maps(labelled)
        if images is not None:
            maps = self.maps(images)
            logits["pixel_logits"] = self._pixels(maps, images)
            if self.head == "released":
                logits["image_logits_of_masked"] = self.classifier(maps)
        logits["image_logits"] = self.classifier(labelled_maps)
        if self.head == "released":
            logits["pixel_logits_of_labelled"] = self._pixels(labelled_maps, labelled)
        return logits

    def maps(self, images: Tensor) -> Tensor:
        """Class logits ``(B, C, h, w)``, one place every 8 pixels, from RGB images ``(B, 3, H, W)``."""
        return self.decoder(self.encoder(self.normalization(images)))

    def classify(self, images: Tensor) -> Tensor:
        """Class logits ``(B, C)`` of whole RGB images ``(B, 3, H, W)``."""
        return self.classifier(self.maps(images))

    def _pixels(self, maps: Tensor, images: Tensor) -> Tensor:
        # Not to the images' size: where that is no multiple of 16, the map would be squeezed and its places shifted.
        return F.interpolate(maps, scale_factor=8.0, mode="nearest")[:, :, : images.shape[2], : images.shape[3]]
