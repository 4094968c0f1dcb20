"""Image labels as a mask."""

from torch import Tensor

__all__ = ["check_labels", "tumour_images"]


def tumour_images(labels: Tensor, num_images: int) -> Tensor:
    """Where the label is 1, of labels that are checked to be one per image, 0 or 1.

    Args:
        labels: image labels 0 or 1, ``(B,)``, bool, integer or float.
        num_images: B.

    Returns:
        True for tumour images, ``(B,)``.

    Raises:
        ValueError: if the shape does not fit, or, on the CPU, a label is neither 0 nor 1. To look at labels on another device
            would wait for it: trainings check them before they are moved there.

    >>> import torch
    >>> tumour_images(torch.tensor([0.0, 1.0]), num_images=2)
    tensor([False,  True])
    """
    if labels.shape != (num_images,):
        raise ValueError(f"labels must be ({num_images},), one per image; got {tuple(labels.shape)}")
    if labels.device.type == "cpu":
        check_labels(labels)
    return labels == 1


def check_labels(labels: Tensor) -> None:
    """Raise a ValueError unless all labels are 0 or 1."""
    wrong = labels[(labels != 0) & (labels != 1)]
    if len(wrong):
        raise ValueError(f"image labels must be 0 or 1; got {wrong[0].item()}")
