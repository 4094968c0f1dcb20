"""Cross entropy of a slide's tiles with the proxy labels that its own label and two assumed shares give."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..selection.alpha_beta import alpha_beta_labels, check_shares, number_of

__all__ = ["AlphaBetaLoss", "alpha_beta_loss"]


def alpha_beta_loss(
    logits: Tensor, slide_label: Tensor | float, alpha: float, beta: float, weights: tuple[float, float] = (1.0, 1.0)
) -> Tensor:
    """Mean cross entropy of the tiles of one slide that have a label.

    In a normal slide every tile is normal. In a tumour slide the top ``floor(num_tiles * alpha)`` tiles are tumour, the bottom
    ``floor(num_tiles * beta)`` normal, and the others have no part in it: their gradient is exactly 0.

    Args:
        logits: tumour logit per tile, ``(num_tiles,)``.
        slide_label: 0 or 1; a number or a tensor of one element.
        alpha: least share of tumour tiles assumed in a tumour slide.
        beta: least share of normal tiles assumed in a tumour slide.
        weights: of normal and of tumour slides, the paper's c0 and c1.

    Returns:
        scalar, float32 (float64 for float64 logits), also under autocast.

    Raises:
        ValueError: if the shares are out of range, the logits are not ``(num_tiles,)``, there are none, or fewer than
            ``1 / alpha``: tumour slides would then have no tumour tile and teach that everything is normal.

    Reference:
        Lerousseau et al., MICCAI 2020, section 2, whose P(f; alpha, 100) must read percentiles (100 - alpha) to 100. The mean
        is over a slide's unmasked tiles, as in section 3.1.

    >>> alpha_beta_loss(torch.tensor([0.0, 9.0, -9.0]), slide_label=1, alpha=1 / 3, beta=1 / 3) < 1e-3
    tensor(True)
    """
    if logits.dim() != 1 or not len(logits):
        raise ValueError(f"logits must be (num_tiles,) with at least one tile; got {tuple(logits.shape)}")
    check_shares(alpha, beta)
    _check_number(len(logits), alpha)
    precision = torch.promote_types(logits.dtype, torch.float32)
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.to(precision)
        labels, mask = alpha_beta_labels(logits, alpha, beta)
        # Without asking for the label's value, which would wait for the device.
        is_tumour = torch.as_tensor(slide_label, device=logits.device).reshape(()) > 0
        labels, mask = labels * is_tumour, mask | ~is_tumour
        entropy = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").masked_fill(~mask, 0)
        weight = torch.where(is_tumour, weights[1], weights[0])
        return weight * entropy.sum() / mask.sum().clamp(min=1)


def _check_number(num_tiles: int, alpha: float) -> None:
    if number_of(num_tiles, alpha) == 0:
        raise ValueError(
            f"alpha {alpha:g} of {num_tiles} tiles selects none: each slide needs {math.ceil(1 / alpha - 1e-9)} tiles "
            "(tiles_per_slide), or a larger alpha"
        )


class AlphaBetaLoss(nn.Module):
    """Module of `alpha_beta_loss`, for one slide or several of them.

    Args:
        alpha: see `alpha_beta_loss`.
        beta: the same.
        normal_weight: of normal slides, the paper's c0.
        tumour_weight: of tumour slides, the paper's c1.
        tiles_per_slide: least number of tiles that slides will have, to find out now whether alpha is too small for it.

    Raises:
        ValueError: if the shares are out of range, or `alpha` of the tiles is not even one.
    """

    def __init__(
        self,
        alpha: float,
        beta: float,
        normal_weight: float = 1.0,
        tumour_weight: float = 1.0,
        tiles_per_slide: int | None = None,
    ) -> None:
        super().__init__()
        check_shares(alpha, beta)
        if tiles_per_slide is not None:
            _check_number(tiles_per_slide, alpha)
        self.alpha, self.beta, self.weights = alpha, beta, (normal_weight, tumour_weight)

    def forward(self, logits: Tensor, slide_labels: Tensor | float) -> Tensor:
        """Logits ``(num_tiles,)`` and a label, or ``(num_slides, num_tiles)`` and ``(num_slides,)``: then the slides' mean."""
        if logits.dim() == 1:
            return alpha_beta_loss(logits, slide_labels, self.alpha, self.beta, self.weights)
        labels = torch.as_tensor(slide_labels, device=logits.device)
        if logits.dim() != 2 or labels.shape != logits.shape[:1]:
            raise ValueError(
                f"need logits (num_slides, num_tiles) and labels (num_slides,); got {tuple(logits.shape)}, {tuple(labels.shape)}"
            )
        losses = [alpha_beta_loss(*slide, self.alpha, self.beta, self.weights) for slide in zip(logits, labels, strict=True)]
        return torch.stack(losses).mean()
