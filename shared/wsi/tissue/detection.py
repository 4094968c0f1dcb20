"""Where on a thumbnail there is tissue."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, label
from skimage.color import rgb2hsv
from skimage.filters import rank, threshold_otsu
from skimage.morphology import disk, footprint_rectangle, opening

from .glass import glass_colour, more_stained, on_white_glass, stain_gain
from .ink import extremes, ink_mask

# Otsu splits whatever it is given: without limits it halves both empty glass (whose saturation stays below 0.03)
# and a tile full of tissue (0.5). Pale, fatty tissue starts at about 0.06.
_LOWEST_THRESHOLD, _HIGHEST_THRESHOLD = 0.05, 0.12
_MEDIAN_RADIUS_PX = 2
_WHITE_ABOVE = 220
# Blue haematoxylin starts at 0.65, red eosin ends at 0.05 beyond 1: this keeps 99 % of the tissue in 14 slides.
_FIRST_HUE, _LAST_HUE = 0.6, 0.08
_LEAST_SATURATION = 0.07
# Larger ones are glass between pieces of tissue.
_LARGEST_HOLE = 0.01
_OPENING_RADIUS_PX = 2
# Ciga and Martel give the threshold; the released code works with a kernel of 10 px, which has no middle.
_SATURATED_FROM = 0.1
_OPENING_SIDE_PX = 9
_GLASS_VARIES_BY = 6


def tissue_mask(rgb: NDArray[np.uint8], method: str = "otsu") -> NDArray[np.bool_]:
    """Tissue on H&E, without ink (see :func:`ink_mask`).

    Meant for thumbnails at 4 to 32 um per pixel; works on single tiles too. Empty glass gives no tissue, an image full
    of tissue gives (nearly) all. The picture is divided by the colour of its glass first, where there is any (see
    `glass_colour`), and a pale stain is made strong (see `stain_gain`).

    Args:
        rgb: uint8 ``(H, W, 3)``.
        method: ``"otsu"``: Otsu's threshold on saturation, within limits. ``"white"``: whatever is not white.
            ``"hsv"``: saturated pixels from blue over purple and pink to red, with holes (lumina, fat) of up to
            1 % of the image filled and specks taken away. ``"saturation"``: saturation of at least 10 % of the largest possible,
            every hole filled, however large, then opened with a square of 9 px.

    Returns:
        ``(H, W)``.

    Raises:
        ValueError: for another shape, type or method.

    Reference:
        ``"white"`` is the released code of Lerousseau et al., MICCAI 2020: a pixel is white if red, green and blue all
        exceed 220, and a tile is kept unless more than 75 % of it are white: ``share of tissue >= 0.25``. ``"saturation"``
        is Ciga and Martel, "Learning to segment images with classification labels", appendix B.1, which gives no size of the
        opening (reading: 9 px; the released code closes with 10 px instead) and keeps tiles with a share of at least 0.75.
        Deviations of both: ink is no tissue here; glass that the rule would call tissue, being tinted or dark, is made white
        first, and a pale stain strong. On other slides the rules are applied to the pixels as they are.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"need a uint8 image (H, W, 3), got {rgb.dtype} {rgb.shape}")
    if method not in _METHODS:
        raise ValueError(f"need a tissue method of {', '.join(TISSUE_METHODS)}; got {method!r}")
    glass = glass_colour(rgb)
    lit = rgb if glass is None else on_white_glass(rgb, glass)
    ink = ink_mask(lit)
    gain = stain_gain(lit, _smooth_saturation(lit), ink)
    picture = rgb if gain == 1 and _takes_as_glass(method, glass) else lit
    return _METHODS[method](picture if gain == 1 else more_stained(lit, gain), ink)


def _takes_as_glass(method: str, glass: NDArray[np.float32] | None) -> bool:
    """Whether a published rule, which knows no glass but white, takes this colour for glass anyway."""
    if glass is None:
        return True
    if method == "white":
        return bool(glass.min() > _WHITE_ABOVE + _GLASS_VARIES_BY)
    return method == "saturation" and bool(1 - glass.min() / glass.max() < _SATURATED_FROM - _GLASS_VARIES_BY / 255)


def _otsu(rgb: NDArray[np.uint8], ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    saturation = _smooth_saturation(rgb)
    stained = saturation[~ink]
    if not stained.size:
        return np.zeros(ink.shape, dtype=bool)
    otsu = threshold_otsu(stained) if stained.min() < stained.max() else _LOWEST_THRESHOLD
    return (saturation > np.clip(otsu, _LOWEST_THRESHOLD, _HIGHEST_THRESHOLD)) & ~ink


def _smooth_saturation(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    # The median takes single noisy pixels and dust away and keeps edges.
    return _median((_saturation_of(rgb) * 255).astype(np.uint8)) / 255


def _median(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # The rank filter takes the median of fewer pixels at the rim: with the rim repeated, it has them all.
    padded = np.pad(image, _MEDIAN_RADIUS_PX, mode="edge")
    inner = slice(_MEDIAN_RADIUS_PX, -_MEDIAN_RADIUS_PX)
    median: NDArray[np.uint8] = rank.median(padded, disk(_MEDIAN_RADIUS_PX))[inner, inner]
    return median


@cache
def _saturation_table() -> NDArray[np.float64]:
    """scikit-image's saturation of every (brightest, darkest) channel of a pixel: ``(256, 256)``."""
    brightest, darkest = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8), indexing="ij")
    table: NDArray[np.float64] = rgb2hsv(np.stack([brightest, np.minimum(brightest, darkest), darkest], axis=-1))[..., 1]
    return table


def _saturation_of(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """``(H, W)``, as `rgb2hsv` has it, without hue and value."""
    return _saturation_table()[extremes(rgb)]


def _white(rgb: NDArray[np.uint8], ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return (rgb <= _WHITE_ABOVE).any(axis=-1) & ~ink


def _hsv(rgb: NDArray[np.uint8], ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    hue, saturation, _ = np.moveaxis(rgb2hsv(rgb), -1, 0)
    stained = ((hue > _FIRST_HUE) | (hue < _LAST_HUE)) & (saturation > _LEAST_SATURATION)
    # No limit on value: black ink is one below, and pink tissue is as bright as glass.
    stained &= ~ink
    holes, _ = label(~stained)
    is_small = np.bincount(holes.ravel()) <= _LARGEST_HOLE * stained.size
    # A dot of ink in tissue is no hole of it.
    return opening(stained | is_small[holes], disk(_OPENING_RADIUS_PX)) & ~ink


def _saturation(rgb: NDArray[np.uint8], ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    filled = binary_fill_holes((_saturation_of(rgb) >= _SATURATED_FROM) & ~ink)
    square = footprint_rectangle((_OPENING_SIDE_PX, _OPENING_SIDE_PX), decomposition="separable")
    return opening(filled, square) & ~ink


_METHODS = {"otsu": _otsu, "white": _white, "hsv": _hsv, "saturation": _saturation}
TISSUE_METHODS = tuple(_METHODS)
