"""Maps of classes from which the images' labels are read off too: joint segmentation and classification."""

from abc import ABC, abstractmethod
from typing import Dict, Optional, Union  # noqa: UP035  TorchScript reads these

from torch import Tensor, nn

__all__ = ["HEADS", "JointMaps"]

HEADS = ("paper", "released")
CLASSIFIER_FEATURES = 8


class JointMaps(nn.Module, ABC):
    """A network that segments, and classifies what it segments.

    Subclasses implement `maps` and `to_pixels`, and call `add_classifier` when they are made.
    """

    def add_classifier(self, num_classes: int, head: str = "paper", train_classifier: bool = True) -> None:
        """Register the classifier of a map, see `shared.networks.SegClsResNet18`.

        Raises:
            ValueError: if there is no such head, or there are fewer than 2 classes.
        """
        if head not in HEADS:
            raise ValueError(f"head must be one of {', '.join(HEADS)}; got {head!r}")
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, background among them; got {num_classes}")
        self.head = head
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

        Masked and labelled images are separate passes: their sizes may differ, and batch normalisation sees each alone.

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
                raise ValueError("the network needs masked images, labelled images, or both")
            return self.to_pixels(self.maps(images), images)
        if self.training and self.head == "paper" and labelled.shape[0] < 2:
            raise ValueError(
                "batch normalisation of the classifier needs at least 2 labelled images per step and process; "
                f"got {labelled.shape[0]}"
            )
        logits = {}
        labelled_maps = self.maps(labelled)
        if images is not None:
            maps = self.maps(images)
            logits["pixel_logits"] = self.to_pixels(maps, images)
            if self.head == "released":
                logits["image_logits_of_masked"] = self.classifier(maps)
        logits["image_logits"] = self.classifier(labelled_maps)
        if self.head == "released":
            logits["pixel_logits_of_labelled"] = self.to_pixels(labelled_maps, labelled)
        return logits

    @abstractmethod
    def maps(self, images: Tensor) -> Tensor:
        """Class logits ``(B, C, h, w)`` from RGB images ``(B, 3, H, W)``."""

    @abstractmethod
    def to_pixels(self, maps: Tensor, images: Tensor) -> Tensor:
        """Maps ``(B, C, h, w)`` of images ``(B, 3, H, W)`` at the images' size."""

    def classify(self, images: Tensor) -> Tensor:
        """Class logits ``(B, C)`` of whole RGB images ``(B, 3, H, W)``."""
        return self.classifier(self.maps(images))
