"""The two criteria by which CAMEL's cMIL chooses the instance that represents its image."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["CRITERIA", "Criterion", "check_bag_labels", "criterion", "max_max", "max_min"]

Criterion: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def max_max(logits: Tensor, labels: Tensor) -> Tensor:
    """The instance with the highest tumour logit of each bag, whatever the bag's label.

    Args:
        logits: tumour logit per instance, ``(num_bags, num_instances)``.
        labels: bag labels 0 or 1, ``(num_bags,)``, bool, integer or float. Checked, but without influence.

    Returns:
        index of the picked instance, ``(num_bags,)``, int64. Of equal logits the lowest index wins, on every device.

    Raises:
        ValueError: if a shape does not fit, or, on the CPU, a label is neither 0 nor 1 or a logit is NaN. On another device the
            first NaN of a bag is picked.

    Reference:
        Xu et al., CAMEL, ICCV 2019, equation 2. Picked on logits, which unlike probabilities do not saturate to ties.

    >>> max_max(torch.tensor([[0.5, 2.0, 2.0], [-1.0, -3.0, -2.0]]), torch.tensor([1, 0]))
    tensor([1, 0])
    """
    _check_bags(logits, labels)
    return _first_argmax(logits)


def max_min(logits: Tensor, labels: Tensor) -> Tensor:
    """The instance with the highest tumour logit of each tumour bag, with the lowest of each normal bag.

    Args:
        logits: tumour logit per instance, ``(num_bags, num_instances)``.
        labels: bag labels 0 or 1, ``(num_bags,)``, bool, integer or float.

    Returns:
        index of the picked instance, ``(num_bags,)``, int64. Of equal logits the lowest index wins, on every device.

    Raises:
        ValueError: if a shape does not fit, or, on the CPU, a label is neither 0 nor 1 or a logit is NaN. On another device the
            first NaN of a bag is picked.

    Reference:
        Xu et al., CAMEL, ICCV 2019, equation 3.

    >>> max_min(torch.tensor([[0.5, 2.0, 2.0], [-1.0, -3.0, -2.0]]), torch.tensor([1, 0]))
    tensor([1, 1])
    """
    _check_bags(logits, labels)
    is_tumour = (labels == 1).unsqueeze(1)
    return _first_argmax(torch.where(is_tumour, logits, -logits))


CRITERIA: dict[str, Criterion] = {"max_max": max_max, "max_min": max_min}


def criterion(name: str) -> Criterion:
    """The selection criterion of this name, so that a configuration can choose it.

    Args:
        name: a key of `CRITERIA`.

    Raises:
        ValueError: if there is no criterion of this name.

    >>> criterion("max_min") is max_min
    True
    """
    if name not in CRITERIA:
        raise ValueError(f"criterion must be one of {', '.join(CRITERIA)}; got {name!r}")
    return CRITERIA[name]


def _check_bags(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"logits must be (num_bags, num_instances >= 1); got {tuple(logits.shape)}")
    if labels.shape != logits.shape[:1]:
        raise ValueError(f"labels must be ({logits.shape[0]},), one per bag; got {tuple(labels.shape)}")
    if labels.device.type == "cpu":
        check_bag_labels(labels)


def check_bag_labels(labels: Tensor) -> None:
    """Raise a ValueError unless all labels are 0 or 1."""
    wrong = labels[(labels != 0) & (labels != 1)]
    if len(wrong):
        raise ValueError(f"bag labels must be 0 or 1; got {wrong[0].item()}")


def _first_argmax(scores: Tensor) -> Tensor:
    # Not torch.argmax: which of several equal maxima it returns is undefined and differs between devices.
    scores = scores.detach()
    num_instances = scores.shape[1]
    indices = torch.arange(num_instances, device=scores.device).expand_as(scores)
    is_nan = scores.isnan()
    # On another device, which to look at would wait for, a NaN is picked, and makes the loss NaN.
    if scores.device.type == "cpu" and is_nan.any():
        raise ValueError(f"logits must be numbers; got NaN in bag {int(is_nan.any(dim=1).nonzero()[0])}")
    is_maximum = (scores == scores.amax(dim=1, keepdim=True)) | is_nan
    return torch.where(is_maximum, indices, num_instances).amin(dim=1)
