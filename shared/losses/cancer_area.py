"""The penalty on tumour probability beyond an annotator's rough cancer area."""

import torch
from torch import Tensor, nn

from .tumour_images import tumour_images

__all__ = ["AreaConstraintLoss", "area_constraint", "check_areas"]


def area_constraint(probabilities: Tensor, labels: Tensor, areas: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over all images of ``(v - a)^2`` where the label is 1 and ``v > a``, else 0; v is the mean probability.

    Args:
        probabilities: of the instances, in [0, 1], ``(B, 1, H, W)`` or any other ``(B, ...)``.
        labels: image labels 0 or 1, ``(B,)``, bool, integer or float.
        areas: cancer's share of the image, in [0, 1], ``(B,)``. Not used for label 0, where it may be NaN.
        weights: of the instances, same shape as `probabilities`, >= 0, with a positive sum in each image; None for equal
            weights.

    Returns:
        scalar, float32 (float64 for float64 probabilities).

    Raises:
        ValueError: if a shape does not fit, there is no image or no instance, or, on the CPU, a label is neither 0 nor 1, or the
            area of an image of label 1 is NaN or out of range. On another device a NaN makes the loss NaN.

    Reference:
        Jia et al., IEEE TMI 2017, equations 7 and 8. Deviation: the mean over the images, those without a penalty included,
        where the paper sums, so that the learning rate does not depend on the batch size.

    >>> area_constraint(torch.full((2, 1, 4, 4), 0.5), torch.tensor([1, 0]), torch.tensor([0.3, float("nan")]))
    tensor(0.0200)
    """
    if probabilities.ndim < 2 or probabilities.numel() == 0:
        raise ValueError(f"need (B, ...) with at least one image and one instance; got {tuple(probabilities.shape)}")
    if weights is not None and weights.shape != probabilities.shape:
        raise ValueError(f"weights must be {tuple(probabilities.shape)}; got {tuple(weights.shape)}")
    is_tumour = tumour_images(labels, len(probabilities))
    if areas.shape != is_tumour.shape:
        raise ValueError(f"areas must be {tuple(is_tumour.shape)}, one per image; got {tuple(areas.shape)}")
    if areas.device.type == "cpu":
        check_areas(areas, is_tumour)
    precision = torch.promote_types(probabilities.dtype, torch.float32)
    with torch.autocast(probabilities.device.type, enabled=False):
        instances = probabilities.to(precision).flatten(1)
        if weights is None:
            mean = instances.mean(dim=1)
        else:
            shares = weights.to(precision).flatten(1)
            mean = (instances * shares).sum(dim=1) / shares.sum(dim=1)
        excess = (mean - areas.to(precision)).clamp(min=0)
        return torch.where(is_tumour, excess, 0).square().mean()


class AreaConstraintLoss(nn.Module):
    """Module of `area_constraint`."""

    def forward(self, probabilities: Tensor, labels: Tensor, areas: Tensor) -> Tensor:
        """Probabilities ``(B, 1, H, W)``, image labels ``(B,)`` and cancer areas ``(B,)`` to a scalar."""
        return area_constraint(probabilities, labels, areas)


def check_areas(areas: Tensor, is_tumour: Tensor) -> None:
    """Raise a ValueError unless the areas ``(B,)`` of tumour images, ``(B,)`` bool, are in [0, 1]."""
    # NaN is in no range.
    wrong = (is_tumour & ~((areas >= 0) & (areas <= 1))).nonzero()
    if len(wrong):
        position = int(wrong[0])
        raise ValueError(
            f"the area of an image of label 1 must be in [0, 1]; got {areas[position].item()} at position {position}"
        )
