"""Where on an H&E image somebody drew with a pen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_propagation, uniform_filter
from skimage.morphology import disk, opening

# Haematoxylin and eosin absorb green most, so in tissue green is the lowest channel. In blue, green and turquoise ink
# red is, by more than noise and JPEG can do.
_RED_DEFICIT = 20
# Where that covers most of what is stained - at least so saturated - it may be haematoxylin, bluish by its dye or by the
# scanner: of its optical density, red has up to 1.25 times as much as green, in a blue pen 1.3 to 1.9 times, in a green one 3.
_MOST_OF_STAINED, _STAINED_FROM = 0.5, 0.05
_LEAST_RED, _NEAR_PX = 1.3, 3
_BLACK_BELOW = 40
# Red ink absorbs blue nearly as much as green, eosin half as much or less: of the optical density in green, blue has 0.73
# to 1.06 in a red pen and, on average, 0.13 to 0.63 in 14 real slides. Single pixels and dark folds of tissue
# reach 0.7 too, but in none of these slides is a disc of this radius plainly red as well.
_LEAST_BLUE, _MOST_RED = 0.7, 0.9
_STROKE_RADIUS_PX = 4
# The rim and the dark parts of a stroke are no redder than pale mucus and folds: they are ink only next to plain red.
_FAINT, _PLAIN, _MOST_RED_IN_PLAIN = 0.03, 0.3, 0.35
# Thin black ink is grey. Single dark pixels of tissue are too, but in the same slides no disc of this radius.
_GREY_BELOW, _GREY_SATURATION, _GREY_RADIUS_PX = 100, 0.15, 2


def ink_mask(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Blue, green, black or red ink, roughly, on a thumbnail of an H&E slide.

    Red ink is found in strokes of at least 9 px only. A pool of blood that wide, if it is as red as ink, is taken for
    ink too. Blue that covers most of what is stained is ink only where it is as blue as a pen, and close around.

    Args:
        rgb: uint8 ``(H, W, 3)``, on glass without a tint (see `glass_colour`).

    Returns:
        ``(H, W)``.
    """
    red, green, blue = (rgb[..., channel].astype(np.int16) for channel in range(3))
    coloured = np.maximum(green, blue) - red > _RED_DEFICIT
    # Haematoxylin may be bluer than red as well, but its green lies below its red.
    coloured &= green >= red
    brightest, darkest = extremes(rgb)
    is_stained = brightest.astype(np.float32) * (1 - _STAINED_FROM) > darkest
    if coloured.sum() > _MOST_OF_STAINED * is_stained.sum():
        coloured &= _near_pen_strokes(rgb)
    return coloured | _black_ink(rgb) | _red_ink(rgb)


def _near_pen_strokes(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels in and around strokes that are bluer or greener than any haematoxylin: ``(H, W)``."""
    red, green, _ = _optical_densities(rgb)
    strokes = opening((red > _LEAST_RED * green) & (red > _FAINT), disk(1))
    return np.asarray(binary_dilation(strokes, disk(_NEAR_PX)))


def extremes(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The highest and the lowest channel of each pixel, two ``(H, W)``; a reduction of 3 values takes 20 times as long."""
    red, green, blue = np.moveaxis(rgb, -1, 0)
    return np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)


def _black_ink(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    brightest, darkest = extremes(rgb)
    grey = (brightest < _GREY_BELOW) & (brightest - darkest < _GREY_SATURATION * brightest)
    black = brightest < _BLACK_BELOW
    return black | opening(black | grey, disk(_GREY_RADIUS_PX))


def _red_ink(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Strokes that are plainly red somewhere, with what is reddish around: ``(H, W)``."""
    red, green, blue = _optical_densities(rgb)
    reddish = (green > _FAINT) & (blue > _LEAST_BLUE * green) & (red < _MOST_RED * green)
    plain = reddish & (green > _PLAIN) & (red < _MOST_RED_IN_PLAIN * green)
    if not plain.any():  # as on most slides
        return plain
    stroke = disk(_STROKE_RADIUS_PX, decomposition="sequence")
    return binary_propagation(opening(plain, stroke), mask=opening(reddish, stroke))


def _optical_densities(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Optical densities (3, H, W) of the mean of 3 x 3 pixels, so that noise does not break up a stroke."""
    smooth = uniform_filter(rgb.astype(np.float32), size=(3, 3, 1))
    return np.moveaxis(-np.log10((smooth + 1) / 256), -1, 0)
