"""Is a picture one of stained tissue in transmitted light? Where it is not, "no tissue" would be the wrong answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Brightest channel. Dense nuclei are at 80 and more; what a scanner did not scan, or fluorescence leaves dark, is near 0.
_DARK_BELOW = 40
_BLACK_SHARE, _DARK_SHARE = 0.999, 0.5
_GLASS_ABOVE = 200
# Differences of the channels: those of JPEG on grey stay below the first, pale stain exceeds the second.
_GREY_UP_TO, _COLOUR_FROM = 2, 16
_COLOURED_SHARE = 0.005
_GREY_SHARE, _CONTENT_SHARE = 0.999, 0.01


def brightfield_problem(rgb: NDArray[np.uint8], needs_colour: bool) -> str | None:
    """Why a picture of a whole slide or tile is not one of stained tissue on bright glass; None if it may be one.

    Black borders around what was scanned are no problem, nor is empty glass.

    Args:
        rgb: uint8 ``(H, W, 3)``.
        needs_colour: tissue is to be told from glass by its colour, which a grey-scale picture does not have.
    """
    brightest, darkest = rgb.max(axis=-1), rgb.min(axis=-1)
    is_lit = brightest >= _DARK_BELOW
    share_dark = 1 - float(is_lit.mean())
    if share_dark >= _BLACK_SHARE:
        return "it is black throughout: expected tissue on bright glass; was it decoded, or its brightness scaled to 0..255?"
    chroma = brightest - darkest
    if share_dark > _DARK_SHARE and _is_fluorescence(chroma[is_lit], darkest[is_lit]):
        return (
            f"its background is dark ({share_dark:.0%} of it is below {_DARK_BELOW} of 255), as in fluorescence: expected "
            "stained tissue on bright glass"
        )
    has_content = float((darkest < _GLASS_ABOVE).mean()) > _CONTENT_SHARE
    if needs_colour and has_content and float((chroma <= _GREY_UP_TO).mean()) > _GREY_SHARE:
        return "it is grey-scale, and tissue is told from glass by its colour: give it in colour, or set tissue_only to false"
    return None


def _is_fluorescence(chroma: NDArray[np.uint8], darkest: NDArray[np.uint8]) -> bool:
    """Whether what is lit on a dark ground is grey, or lacks a channel, as no H&E stain does; not if it is glass."""
    if np.median(darkest) > _GLASS_ABOVE:
        return False
    return float((chroma > _COLOUR_FROM).mean()) < _COLOURED_SHARE or float(np.median(darkest)) < _DARK_BELOW
