"""Is a picture one of stained tissue in transmitted light? Where it is not, "no tissue" would be the wrong answer."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .ink import extremes

# Brightest channel. Dense nuclei are at 80 and more; what a scanner did not scan, or fluorescence leaves dark, is near 0.
_DARK_BELOW = 40
_BLACK_SHARE, _DARK_SHARE = 0.999, 0.5
# Where a channel is lit nowhere, a smaller share of dark tells fluorescence from a tile of strong eosin or blood.
_DARK_SHARE_OF_ONE_COLOUR = 0.05
_GLASS_ABOVE = 200
# Light passes somewhere in stained tissue: of tiles full of it the darkest reach 164. Of what is lit on a dark ground one pixel
# in twenty is as pale as the second (in the same tiles, 124), but not in fluorescence.
_DIM_BELOW, _PALE_FROM = 128, 80
_NEARLY_ALL, _LARGEST_PX = 99.9, 2**17
# Differences of the channels: those of JPEG on grey stay below the first, pale stain exceeds the second.
_GREY_UP_TO, _COLOUR_FROM = 2, 16
_COLOURED_SHARE = 0.005
_GREY_SHARE, _CONTENT_SHARE = 0.999, 0.01


def brightfield_problem(rgb: NDArray[np.uint8], needs_colour: bool) -> str | None:
    """Why a picture of a whole slide or tile is not one of stained tissue on bright glass; None if it may be one.

    Black borders around the scanned area are accepted, and so is empty glass.

    Args:
        rgb: uint8 ``(H, W, 3)``.
        needs_colour: tissue is to be distinguished from glass by its colour, which a grey-scale picture does not have.
    """
    brightest, darkest = extremes(rgb)
    is_lit = brightest >= _DARK_BELOW
    share_dark = 1 - float(is_lit.mean())
    if share_dark >= _BLACK_SHARE:
        return "it is completely black: expected tissue on bright glass; was it decoded, and its brightness scaled to 0..255?"
    chroma = brightest - darkest
    channels = _nearly_brightest(rgb)
    if share_dark > _DARK_SHARE_OF_ONE_COLOUR and channels.min() < _DARK_BELOW and channels.max() >= _DIM_BELOW:
        name = ("red", "green", "blue")[int(channels.argmin())]
        return f"its {name} is completely dark, as in fluorescence: expected stained tissue on bright glass"
    if share_dark > _DARK_SHARE and _is_fluorescence(chroma[is_lit], darkest[is_lit]):
        return (
            f"its background is dark ({share_dark:.0%} of it is below {_DARK_BELOW} of 255), as in fluorescence: expected "
            "stained tissue on bright glass"
        )
    is_dim_glass = (brightest > 0.9 * channels.max()) & (chroma < _COLOUR_FROM)
    if channels.max() < _DIM_BELOW and float(is_dim_glass.mean()) > _CONTENT_SHARE:
        return (
            f"its brightest is a grey of {channels.max():.0f} of 255: expected glass of about 240; was its brightness scaled to "
            "0..255?"
        )
    has_content = float((darkest < _GLASS_ABOVE).mean()) > _CONTENT_SHARE
    if needs_colour and has_content and float((chroma <= _GREY_UP_TO).mean()) > _GREY_SHARE:
        return "it is grey-scale, but tissue is recognised by its colour: use a colour image, or set tissue_only to false"
    return None


def _nearly_brightest(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The 99.9th percentile of each channel, ``(3,)``; of a large picture, of some of its pixels."""
    step = math.ceil(math.sqrt(rgb.shape[0] * rgb.shape[1] / _LARGEST_PX))
    return np.asarray(np.percentile(rgb[::step, ::step].reshape(-1, 3), _NEARLY_ALL, axis=0))


def _is_fluorescence(chroma: NDArray[np.uint8], darkest: NDArray[np.uint8]) -> bool:
    """Whether what is lit on a dark ground is grey, or pale nowhere, as no H&E stain is; not if it is glass."""
    if np.median(darkest) > _GLASS_ABOVE:
        return False
    return float((chroma > _COLOUR_FROM).mean()) < _COLOURED_SHARE or float(np.percentile(darkest, 95)) < _PALE_FROM
