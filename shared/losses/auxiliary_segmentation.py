"""Cross entropy of a segmentation and, with a weight that fades, of the score maps that it is the sum of."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["AuxiliarySegmentationLoss", "auxiliary_segmentation_loss"]


def auxiliary_segmentation_loss(fused: Tensor, levels: Tensor, labels: Tensor, auxiliary_weight: float = 1.0) -> Tensor:
    """Mean cross entropy of the fused logits, plus `auxiliary_weight` times the sum of those of the levels.

    Args:
        fused: class logits ``(B, C, H, W)``.
        levels: the logits of each level ``(B, T, C, H, W)``.
        labels: class indices ``(B, H, W)``, int64.
        auxiliary_weight: of every level, >= 0.

    Returns:
        scalar, float32 (float64 for float64 logits).

    Raises:
        ValueError: if the shapes do not fit.

    Reference:
        Chen et al., DCAN, CVPR 2016, section 2.1. Weight decay is the optimiser's.
    """
    batch_size, num_classes, *size = fused.shape
    if levels.ndim != 5 or levels.shape[0] != batch_size or [*levels.shape[2:]] != [num_classes, *size]:
        raise ValueError(f"levels must be (B, T, C, H, W) of logits {tuple(fused.shape)}; got {tuple(levels.shape)}")
    if [*labels.shape] != [batch_size, *size]:
        raise ValueError(f"labels must be {(batch_size, *size)}; got {tuple(labels.shape)}")
    precision = torch.promote_types(fused.dtype, torch.float32)
    with torch.autocast(fused.device.type, enabled=False):
        loss = F.cross_entropy(fused.to(precision), labels)
        for level in levels.unbind(1):
            loss = loss + auxiliary_weight * F.cross_entropy(level.to(precision), labels)
    return loss


class AuxiliarySegmentationLoss(nn.Module):
    """Module of `auxiliary_segmentation_loss`, for what a `shared.networks.DCAN` returns in train mode.

    Args:
        auxiliary_weight: of every level; `shared.handlers.FadingAuxiliaryWeight` lowers it during training.

    Raises:
        ValueError: if the weight is negative.
    """

    def __init__(self, auxiliary_weight: float = 1.0) -> None:
        super().__init__()
        if auxiliary_weight < 0:
            raise ValueError(f"auxiliary_weight must be >= 0; got {auxiliary_weight}")
        self.auxiliary_weight = auxiliary_weight

    def forward(self, outputs: tuple[Tensor, Tensor], labels: Tensor) -> Tensor:
        """Fused logits ``(B, C, H, W)`` with those of the levels ``(B, T, C, H, W)``, and labels ``(B, H, W)``, to a scalar."""
        return auxiliary_segmentation_loss(*outputs, labels, self.auxiliary_weight)
