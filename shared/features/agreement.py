"""Whether features are of one pixel size and one distance between patches, so that they may be used together."""

from __future__ import annotations

from ..geometry.pyramid import MPP_TOLERANCE
from .slide_features import SlideFeatures

# Of two files that each may differ from one nominal size by the tolerance, one above it and one below.
_LARGEST_RATIO = (1 + MPP_TOLERANCE) / (1 - MPP_TOLERANCE)


def has_mpp_of(features: SlideFeatures, mpp: float) -> bool:
    """Whether the encoder was given pixels of `mpp` micrometres, to 2 %; True for files that do not state it."""
    return features.mpp is None or abs(features.mpp / mpp - 1) <= MPP_TOLERANCE


def check_alike(first: SlideFeatures, second: SlideFeatures) -> None:
    """Check that two files are of the same nominal pixel size and stride, as far as they state them.

    A slide whose pixels, or a whole multiple of them, are within 2 % of the wanted size is read as it is. So one setting makes
    files from 2 % below to 2 % above it, and two of them may differ by 4.1 %.

    Raises:
        ValueError: naming both files.
    """
    for what, one, other in (
        ("um per pixel", first.mpp, second.mpp),
        ("um from patch to patch", first.stride_um, second.stride_um),
    ):
        if one is not None and other is not None and max(one / other, other / one) > _LARGEST_RATIO:
            raise ValueError(
                f"{second.path} and {first.path} contain features that do not fit together: expected {one:g} {what}, found "
                f"{other:g}. Embed all slides with the same settings"
            )
