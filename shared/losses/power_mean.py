"""The generalised mean of an image's instance probabilities, and its cross entropy with the image's label."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .tumour_images import tumour_images

__all__ = [
    "GeneralizedMeanLoss",
    "generalized_mean",
    "generalized_mean_loss",
    "image_cross_entropy",
    "log_generalized_mean",
]


def log_generalized_mean(log_probabilities: Tensor, r: float = 4.0, weights: Tensor | None = None) -> Tensor:
    """Logarithm of the generalised mean ``(mean_k p_k^r)^(1/r)`` of each image's instances.

    Args:
        log_probabilities: natural logarithm of the instances' probabilities, ``(B, ...)``, finite, <= 0.
        r: sharpness, > 0: 1 is the mean, towards infinity the maximum.
        weights: of the instances, same shape, >= 0, with a positive sum in each image; None for equal weights. An instance
            of weight 0 takes no part.

    Returns:
        log of the image's probability, ``(B,)``, <= 0, float32 (float64 for float64 input). It is accurate, and so is its
        gradient, for tiny probabilities and for probabilities close to 1.

    Raises:
        ValueError: if r is not positive and finite, an image has no instance, or the shapes differ.

    Reference:
        Jia et al., IEEE TMI 2017, equation 2.

    >>> log_generalized_mean(torch.tensor([[0.25, 0.25, 0.25], [0.5, 0.1, 0.1]]).log(), r=100.0).exp()
    tensor([0.2500, 0.4945])
    """
    if not 0 < r < math.inf:
        raise ValueError(f"r must be > 0 and finite; got {r}")
    if log_probabilities.ndim < 2 or log_probabilities.numel() == 0:
        raise ValueError(f"need (B, ...) with at least one image and one instance; got {tuple(log_probabilities.shape)}")
    if weights is not None and weights.shape != log_probabilities.shape:
        raise ValueError(f"weights must be {tuple(log_probabilities.shape)}; got {tuple(weights.shape)}")
    precision = torch.promote_types(log_probabilities.dtype, torch.float32)
    with torch.autocast(log_probabilities.device.type, enabled=False):
        log_powers = r * log_probabilities.to(precision).flatten(1)
        if weights is None:
            log_mean = log_powers.logsumexp(dim=1) - math.log(log_powers.shape[1])
            # 1 - p^r keeps the digits that p^r has no room for where p is close to 1.
            complement = -log_powers.expm1().mean(dim=1)
        else:
            shares = weights.to(precision).flatten(1)
            shares = shares / shares.sum(dim=1, keepdim=True)
            log_mean = (log_powers + shares.log()).logsumexp(dim=1)
            complement = -(shares * log_powers.expm1()).sum(dim=1)
        # The clamp does not touch what is picked: it keeps the other branch's gradient finite.
        return torch.where(complement < 0.5, torch.log1p(-complement.clamp(max=0.5)), log_mean) / r


def generalized_mean(logits: Tensor, r: float = 4.0) -> Tensor:
    """Probability of each image: the generalised mean of its instances' probabilities.

    Args:
        logits: tumour logits of the instances, ``(B, 1, H, W)`` or any other ``(B, ...)``.
        r: sharpness, > 0: 1 is the mean, towards infinity the maximum.

    Returns:
        probabilities ``(B,)``, float32 (float64 for float64 logits).

    Raises:
        ValueError: if r is not positive and finite or an image has no instance.

    Reference:
        Jia et al., IEEE TMI 2017, equation 2.

    >>> generalized_mean(torch.tensor([0.0, 0.0, -99.0, -99.0]).view(1, 1, 2, 2), r=1.0)
    tensor([0.2500])
    """
    return log_generalized_mean(_log_sigmoid(logits), r).exp()


def image_cross_entropy(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """Mean over the images of ``-log Y`` for label 1 and ``-log(1 - Y)`` for label 0, of given ``log Y``.

    Args:
        log_probabilities: natural logarithm of the images' probabilities, ``(B,)``, <= 0. For label 0 values above minus the
            smallest normal number (in float32 a loss of 87) count as that number, and have no gradient.
        labels: image labels 0 or 1, ``(B,)``, bool, integer or float.

    Returns:
        scalar, float32 (float64 for float64 input).

    Raises:
        ValueError: if the shapes differ, there is no image, or a label is neither 0 nor 1.

    Reference:
        Jia et al., IEEE TMI 2017, equation 1. Deviation: the mean over the images, where the paper sums, so that the learning
        rate does not depend on the batch size.

    >>> image_cross_entropy(torch.tensor([0.5, 0.5]).log(), torch.tensor([0, 1]))
    tensor(0.6931)
    """
    if log_probabilities.ndim != 1 or len(log_probabilities) == 0:
        raise ValueError(f"log_probabilities must be (B,) with at least one image; got {tuple(log_probabilities.shape)}")
    is_tumour = tumour_images(labels, len(log_probabilities))
    precision = torch.promote_types(log_probabilities.dtype, torch.float32)
    with torch.autocast(log_probabilities.device.type, enabled=False):
        log_tumour = log_probabilities.to(precision)
        log_normal = _log_complement(log_tumour.clamp(max=-torch.finfo(precision).tiny))
        return -torch.where(is_tumour, log_tumour, log_normal).mean()


def generalized_mean_loss(logits: Tensor, labels: Tensor, r: float = 4.0) -> Tensor:
    """Cross entropy between the images' labels and the generalised mean of their instances' probabilities.

    Every instance of an image of label 0 receives a gradient, however sure the network is, up to logits of 87 in float32.

    Args:
        logits: tumour logits of the instances, ``(B, 1, H, W)`` or any other ``(B, ...)``.
        labels: image labels 0 or 1, ``(B,)``, bool, integer or float.
        r: sharpness of the generalised mean, > 0.

    Returns:
        scalar, float32 (float64 for float64 logits).

    Raises:
        ValueError: if r is not positive and finite, there is no image, an image has no instance, the labels' shape does not
            fit, or a label is neither 0 nor 1.

    Reference:
        Jia et al., IEEE TMI 2017, equations 1 and 2. Deviation: the mean over the images, where the paper sums.

    >>> generalized_mean_loss(torch.zeros(2, 1, 5, 5), torch.tensor([1, 0]))
    tensor(0.6931)
    """
    return image_cross_entropy(log_generalized_mean(_log_sigmoid(logits), r), labels)


class GeneralizedMeanLoss(nn.Module):
    """Module of `generalized_mean_loss`.

    Args:
        r: sharpness of the generalised mean, > 0.

    Raises:
        ValueError: if r is not positive and finite.
    """

    def __init__(self, r: float = 4.0) -> None:
        super().__init__()
        if not 0 < r < math.inf:
            raise ValueError(f"r must be > 0 and finite; got {r}")
        self.r = r

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits ``(B, 1, H, W)`` and image labels ``(B,)`` to a scalar."""
        return generalized_mean_loss(logits, labels, self.r)


def _log_sigmoid(logits: Tensor) -> Tensor:
    # In bfloat16 a logit of 6 would already have lost its 1 - p: to float32 first.
    return F.logsigmoid(logits.to(torch.promote_types(logits.dtype, torch.float32)))


def _log_complement(log_probabilities: Tensor) -> Tensor:
    """``log(1 - exp(l))`` of l < 0 with its gradient: each of two forms where it loses no digits."""
    is_high = log_probabilities > -math.log(2)
    low, high = log_probabilities.clamp(max=-0.5), log_probabilities.clamp(min=-1)
    return torch.where(is_high, torch.log(-high.expm1()), torch.log1p(-low.exp()))
