"""Logits of any of the project's networks -> probabilities on the map's pixels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def tumour_probability(logits: Tensor) -> Tensor:
    """Probability of tumour, float32.

    Args:
        logits: ``(B, C, H, W)`` of a segmentation network or ``(B, C)`` of a classifier; one channel is taken through a
            sigmoid, of two the second one's softmax is taken.

    Returns:
        ``(B, H, W)``; of a classifier ``(B, 1, 1)``.

    Raises:
        ValueError: for any other shape.
    """
    if logits.ndim not in (2, 4) or logits.shape[1] not in (1, 2):
        raise ValueError(f"the network must return logits (B, C, H, W) or (B, C) with C = 1 or 2, got {tuple(logits.shape)}")
    if logits.ndim == 2:
        logits = logits[:, :, None, None]
    logits = logits.float()
    return logits[:, 0].sigmoid() if logits.shape[1] == 1 else (logits[:, 1] - logits[:, 0]).sigmoid()


def class_probabilities(logits: Tensor, num_classes: int) -> Tensor:
    """Softmax over several classes, float32.

    Args:
        logits: ``(B, C, H, W)`` of a segmentation network or ``(B, C)`` of a classifier.
        num_classes: C, at least 3.

    Returns:
        ``(B, C, H, W)``; of a classifier ``(B, C, 1, 1)``.

    Raises:
        ValueError: for any other shape.
    """
    if logits.ndim not in (2, 4) or logits.shape[1] != num_classes:
        raise ValueError(
            f"for {num_classes} class names the network must return logits (B, {num_classes}, H, W) or (B, {num_classes}), "
            f"got {tuple(logits.shape)}"
        )
    return (logits[:, :, None, None] if logits.ndim == 2 else logits).float().softmax(dim=1)


def to_map_pixels(probability: Tensor, shape: tuple[int, int]) -> Tensor:
    """Bring tiles ``(B, C, h, w)`` to `shape` (H, W): means where the network is finer than the map, else bilinear.

    Of a classifier's tiles ``(B, C, 1, 1)`` the map pixels are one value in memory (strides of 0).
    """
    if probability.shape[2:] == shape:
        return probability
    if probability.shape[2:] == (1, 1):
        return probability.expand(-1, -1, *shape)
    is_finer = probability.shape[2] >= shape[0] and probability.shape[3] >= shape[1]
    if is_finer:
        return functional.interpolate(probability, size=shape, mode="area")
    return functional.interpolate(probability, size=shape, mode="bilinear", align_corners=False)
