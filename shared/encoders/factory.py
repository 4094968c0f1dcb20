"""Where encoders come from: one name for each source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .efficientnet_lite import load_efficientnet_lite0
from .encoder import Encoder, FeatureOptions

__all__ = ["load_encoder"]


def load_encoder(
    source: str,
    stride_px: int | None = None,
    smoothing: int = 1,
    strides_px: Sequence[int] | None = None,
    tokens: str = "dense",
    checkpoint_path: str | Path | None = None,
) -> Encoder:
    """An encoder with trained weights, in eval mode and frozen.

    Args:
        source: "efficientnet_lite0".
        stride_px: see `FeatureOptions`.
        smoothing: the same.
        strides_px: the same.
        tokens: the same.
        checkpoint_path: a local file of the encoder's weights, instead of those that are installed or downloaded.

    Raises:
        ValueError: if there is no such source, an option does not fit it, or weights do not.
        ModuleNotFoundError: if a package is missing that the source needs; it names the remedy.
        RuntimeError: if weights cannot be had: it never starts from random values instead.
    """
    options = FeatureOptions(stride_px, smoothing, strides_px, tokens)
    if source != "efficientnet_lite0":
        raise ValueError(f"there is no encoder {source!r}: expected efficientnet_lite0")
    encoder: Encoder = load_efficientnet_lite0(options, checkpoint_path)
    return encoder.eval().requires_grad_(False)
