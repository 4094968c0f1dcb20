"""WILDCAT's pooling: several maps a class to one, and of that the highest and lowest places to an image's score."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ScorePooling", "max_min_pooling"]


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


class ScorePooling(nn.Module, ABC):
    """A network that is trained by scores pooled from maps. Subclasses implement `score_maps`, and call `set_pooling`."""

    def set_pooling(self, num_classes: int, maps_per_class: int, k_max: float, k_min: float, alpha: float) -> None:
        """Take the numbers of the pooling, see `shared.networks.Wildcat`.

        Raises:
            ValueError: for fewer than one class or map, or k out of range.
        """
        if num_classes < 1 or maps_per_class < 1:
            raise ValueError(f"need a class and a map at least; got {num_classes=}, {maps_per_class=}")
        if k_max <= 0 or k_min < 0:
            raise ValueError(f"need k_max > 0 and k_min >= 0; got {k_max=}, {k_min=}")
        self.num_classes, self.maps_per_class = num_classes, maps_per_class
        self.k_max, self.k_min, self.alpha = float(k_max), float(k_min), float(alpha)

    def class_means(self, maps: Tensor) -> Tensor:
        """The maps of each class, ``(B, C * M, h, w)``, to their means ``(B, C, h, w)``, float32."""
        return maps.float().unflatten(1, [self.num_classes, self.maps_per_class]).mean(dim=2)

    @abstractmethod
    def score_maps(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` to score maps ``(B, C, h, w)``, float32."""

    def image_scores(self, images: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, 0 to 255, to class scores ``(B, C)``."""
        return max_min_pooling(self.score_maps(images), self.k_max, self.k_min, self.alpha)

    def to_pixels(self, maps: Tensor, images: Tensor) -> Tensor:
        """Maps ``(B, C, h, w)`` of images ``(B, 3, H, W)`` at the images' size, bilinear."""
        return F.interpolate(maps, size=images.shape[-2:], mode="bilinear", align_corners=False)

    def forward(self, images: Tensor) -> Tensor:
        """RGB images ``(B, 3, H, W)``, uint8 or float, 0 to 255, to logits, float32.

        Returns:
            in train mode the images' class scores ``(B, C)``; in eval mode, and from a scripted network, the score maps brought
            to the size of the images ``(B, C, H, W)``.
        """
        if not torch.jit.is_scripting() and self.training:
            return self.image_scores(images)
        return self.to_pixels(self.score_maps(images), images)
