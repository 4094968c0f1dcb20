"""Small heads that see one feature at a time, or its neighbours too."""

from __future__ import annotations

from torch import nn

__all__ = ["pixelwise_head"]

HEAD_STD = 0.01


def pixelwise_head(in_channels: int, out_channels: int, hidden_channels: int | None = None, kernel_size: int = 1) -> nn.Module:
    """A linear head, or a small network of two layers, at each place of a map of features.

    Args:
        in_channels: of the features.
        out_channels: of the answers.
        hidden_channels: None for a linear head; else the first of two convolutions has so many channels, and ReLU after it.
        kernel_size: of the first convolution: 1, so that every feature is seen by itself, or an odd number.

    Raises:
        ValueError: for an even or negative kernel size.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be an odd number, found {kernel_size}")
    first = nn.Conv2d(in_channels, hidden_channels or out_channels, kernel_size, padding=kernel_size // 2)
    if hidden_channels is None:
        nn.init.normal_(first.weight, std=HEAD_STD)
        nn.init.zeros_(first.get_parameter("bias"))
        return first
    nn.init.kaiming_normal_(first.weight, mode="fan_in", nonlinearity="relu")
    last = nn.Conv2d(hidden_channels, out_channels, 1)
    nn.init.normal_(last.weight, std=HEAD_STD)
    nn.init.zeros_(last.get_parameter("bias"))
    return nn.Sequential(first, nn.ReLU(inplace=True), last)
