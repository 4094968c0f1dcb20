"""Where on a thumbnail there is tissue."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2hsv
from skimage.filters import median, threshold_otsu
from skimage.morphology import disk

# Otsu splits whatever it is given: without limits it halves both empty glass (whose saturation stays below 0.03)
# and a tile full of tissue (0.5). Pale, fatty tissue starts at about 0.06.
_LOWEST_THRESHOLD, _HIGHEST_THRESHOLD = 0.05, 0.12
_MEDIAN_RADIUS_PX = 2
# Haematoxylin and eosin absorb green most, so in tissue green is the lowest channel. In blue, green and turquoise ink
# red is, by more than noise and JPEG can do.
_INK_RED_DEFICIT = 20
_BLACK_BELOW = 40


def tissue_mask(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tissue by saturation: Otsu's threshold within limits, without blue, green or black ink.

    Meant for thumbnails of H&E at 4 to 32 um per pixel; works on single tiles too. Empty glass gives no tissue, an
    image full of tissue gives (nearly) all. Red ink cannot be told from eosin by colour and stays tissue.

    Args:
        rgb: uint8 ``(H, W, 3)``.

    Returns:
        ``(H, W)``.

    Raises:
        ValueError: for another shape or type.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"need a uint8 image (H, W, 3), got {rgb.dtype} {rgb.shape}")
    # The median takes single noisy pixels and dust away and keeps edges.
    saturation = median((rgb2hsv(rgb)[..., 1] * 255).astype(np.uint8), disk(_MEDIAN_RADIUS_PX)) / 255
    ink = ink_mask(rgb)
    stained = saturation[~ink]
    if not stained.size:
        return np.zeros(ink.shape, dtype=bool)
    otsu = threshold_otsu(stained) if stained.min() < stained.max() else _LOWEST_THRESHOLD
    return (saturation > np.clip(otsu, _LOWEST_THRESHOLD, _HIGHEST_THRESHOLD)) & ~ink


def ink_mask(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Blue, green or black ink on an H&E image, uint8 ``(H, W, 3)``, roughly: ``(H, W)``."""
    red, green, blue = (rgb[..., channel].astype(np.int16) for channel in range(3))
    coloured = np.maximum(green, blue) - red > _INK_RED_DEFICIT
    # Haematoxylin may be bluer than red as well, but its green lies below its red.
    coloured &= green >= red
    return coloured | (np.max(rgb, axis=-1) < _BLACK_BELOW)
