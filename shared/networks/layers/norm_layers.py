"""Replacements for batch normalisation."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["NORMS", "FrozenBatchNorm2d", "replace_batch_norm"]

NORMS = ("batch", "group", "frozen")


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation that uses its running statistics in train mode, too, and never changes them.

    Scale and shift stay trainable. The keys and shapes of its state are those of ``nn.BatchNorm2d``, so either loads
    the other's checkpoint. It is no subclass, lest ``SyncBatchNorm.convert_sync_batchnorm`` thaws it.

    Args:
        batch_norm: the layer whose parameters and statistics it takes over.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, batch_norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps = batch_norm.eps
        self.weight = nn.Parameter(batch_norm.weight.detach().clone())
        self.bias = nn.Parameter(batch_norm.bias.detach().clone())
        for name, buffer in batch_norm.named_buffers():
            self.register_buffer(name, buffer.clone())

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(B, C, H, W)`` to the same shape."""
        return F.batch_norm(features, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps)


def replace_batch_norm(network: nn.Module, norm: str) -> nn.Module:
    """Put another normalisation in place of every ``BatchNorm2d`` inside the network, in place.

    Args:
        network: the network; it is changed and returned.
        norm: "batch" leaves it as it is; "group" gives GroupNorm with 32 groups (or the largest common divisor of 32
            and the channels), scale 1 and shift 0 as in Wu & He, ECCV 2018; "frozen" gives `FrozenBatchNorm2d` with
            the layers' present statistics.

    Raises:
        ValueError: if there is no such normalisation.

    >>> replace_batch_norm(nn.Sequential(nn.BatchNorm2d(48)), "group")[0].num_groups
    16
    """
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}; got {norm!r}")
    if norm == "batch":
        return network
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.BatchNorm2d):
                setattr(parent, name, _group_norm(layer) if norm == "group" else FrozenBatchNorm2d(layer))
    return network


def _group_norm(batch_norm: nn.BatchNorm2d) -> nn.GroupNorm:
    num_channels = batch_norm.num_features
    return nn.GroupNorm(math.gcd(32, num_channels), num_channels)
