"""Proxy labels of a slide's tiles from its label and two assumed shares."""

import math

import torch
from torch import Tensor

__all__ = ["alpha_beta_labels", "check_shares"]

# A share such as 1 - 0.8 is a hair below 0.2 in floats, and floor(150 * (1 - 0.8)) is 29.
_ROUNDING = 1e-9


def alpha_beta_labels(logits: Tensor, alpha: float, beta: float) -> tuple[Tensor, Tensor]:
    """Proxy labels of one tumour slide's tiles: the surest `alpha` share 1, the least sure `beta` share 0.

    Args:
        logits: tumour logit per tile, ``(num_tiles,)``. Ranked without gradient; of equal ones the lower index ranks higher.
        alpha: least share of tumour tiles assumed, in (0, 1].
        beta: least share of normal tiles assumed, in [0, 1), with ``alpha + beta <= 1``.

    Returns:
        labels ``(num_tiles,)`` of the logits' type and mask ``(num_tiles,)``, bool: True where the tile takes part in the loss.

    Raises:
        ValueError: if the shares are out of range or overlap, or the logits are not ``(num_tiles,)``.

    Reference:
        Lerousseau et al., MICCAI 2020, section 2. Counts are floor(num_tiles * share), as in section 3.1.

    >>> alpha_beta_labels(torch.tensor([-2.0, 3.0, 0.1, 1.0]), alpha=0.25, beta=0.5)
    (tensor([0., 1., 0., 0.]), tensor([ True,  True,  True, False]))
    """
    check_shares(alpha, beta)
    if logits.dim() != 1:
        raise ValueError(f"logits must be (num_tiles,), the tiles of one slide; got {tuple(logits.shape)}")
    order = logits.detach().argsort(descending=True, stable=True)
    num_top, num_normal = (number_of(len(order), share) for share in (alpha, beta))
    labels, mask = torch.zeros_like(logits, requires_grad=False), torch.zeros_like(logits, dtype=torch.bool, requires_grad=False)
    labels[order[:num_top]] = 1
    mask[order[:num_top]] = True
    # Not order[-num_normal:], which is every tile when num_normal is 0.
    mask[order[len(order) - num_normal :]] = True
    return labels, mask


def number_of(num_tiles: int, share: float) -> int:
    """``floor(num_tiles * share)``, as in the paper, section 3.1.

    >>> number_of(150, 0.2), number_of(24, 0.04)
    (30, 0)
    """
    return math.floor(num_tiles * share + _ROUNDING)


def check_shares(alpha: float, beta: float) -> None:
    """Raise a ValueError unless ``alpha > 0``, ``beta >= 0`` and ``alpha + beta <= 1``.

    >>> check_shares(0.2, 0.8)
    """
    if not (0 < alpha <= 1 and beta >= 0 and alpha + beta <= 1 + _ROUNDING):
        raise ValueError(f"need 0 < alpha, 0 <= beta, alpha + beta <= 1; got alpha={alpha}, beta={beta}")
