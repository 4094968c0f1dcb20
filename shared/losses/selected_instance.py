"""Cross entropy of the one instance that represents its bag."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..selection.criteria import Criterion, criterion as criterion_of_name

__all__ = ["SelectedInstanceLoss", "binary_cross_entropy", "selected_instance_loss"]


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of tumour logits, in float32 even if the logits are float16 or bfloat16.

    Args:
        logits: tumour logits, any shape with at least one element.
        labels: 0 or 1 (or a probability), same shape, bool, integer or float.

    Returns:
        scalar, float32 (float64 for float64 logits).

    Raises:
        ValueError: if the shapes differ or are empty: the mean over nothing would be NaN.

    >>> binary_cross_entropy(torch.zeros(3), torch.tensor([0, 1, 1]))
    tensor(0.6931)
    """
    if logits.shape != labels.shape or logits.numel() == 0:
        raise ValueError(
            f"logits and labels must have one shape that is not empty; got {tuple(logits.shape)}, {tuple(labels.shape)}"
        )
    precision = torch.promote_types(logits.dtype, torch.float32)
    with torch.autocast(logits.device.type, enabled=False):
        return F.binary_cross_entropy_with_logits(logits.to(precision), labels.to(precision))


def selected_instance_loss(logits: Tensor, labels: Tensor, criterion: Criterion) -> Tensor:
    """Cross entropy between the bags' labels and the one instance of each bag that `criterion` picks.

    Only the picked instances receive a gradient.

    Args:
        logits: tumour logit per instance, ``(num_bags, num_instances)``. With a single instance, which a two-pass
            training step has already picked, this is its cross entropy.
        labels: bag labels 0 or 1, ``(num_bags,)``.
        criterion: see `shared.selection`.

    Returns:
        scalar, float32 (float64 for float64 logits).

    Raises:
        ValueError: if the shapes do not fit, there is no bag, a label is neither 0 nor 1, or a logit is NaN.

    Reference:
        Xu et al., CAMEL, ICCV 2019, equation 1. Deviation: the mean over the bags, where the paper sums, so that the
        learning rate does not depend on the batch size.

    >>> from shared.selection import max_max
    >>> selected_instance_loss(torch.tensor([[-5.0, 0.0]]), torch.tensor([1]), max_max)
    tensor(0.6931)
    """
    picked = criterion(logits, labels)
    return binary_cross_entropy(logits.gather(1, picked.unsqueeze(1)).squeeze(1), labels)


class SelectedInstanceLoss(nn.Module):
    """Module of `selected_instance_loss`.

    Args:
        criterion: "max_max", "max_min" or a function with the same signature.

    Raises:
        ValueError: if there is no criterion of this name.
    """

    def __init__(self, criterion: str | Criterion) -> None:
        super().__init__()
        self.criterion = criterion_of_name(criterion) if isinstance(criterion, str) else criterion

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits ``(num_bags, num_instances)`` and bag labels ``(num_bags,)`` to a scalar."""
        return selected_instance_loss(logits, labels, self.criterion)
