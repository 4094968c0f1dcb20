"""Pictures whose tags say that they are to be turned: how cameras, and some programs that write strips, store them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.ExifTags import Base

# Values of the tag by which nothing is to be turned; 0 is written for "unknown".
UPRIGHT = (0, 1)
# Whether rows and columns are exchanged, and which axes run backwards then, by the tag's value (TIFF 6.0, "Orientation").
_TURNS: dict[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Stored pixels ``(H, W, ...)`` as they are to be seen; other values than 2 to 8 turn nothing.

    >>> upright(np.array([[1, 2, 3], [4, 5, 6]]), 6)
    array([[4, 1],
           [5, 2],
           [6, 3]])
    """
    swap, backwards = _TURNS.get(orientation, (False, ()))
    turned = pixels.swapaxes(0, 1) if swap else pixels
    return np.flip(turned, backwards) if backwards else turned


def upright_image(image: Image.Image) -> Image.Image:
    """An image that Pillow opened and has not decoded yet, as it is to be seen."""
    return image if _orientation(image) in UPRIGHT else ImageOps.exif_transpose(image)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of `upright_image`, without decoding it."""
    swap, _ = _TURNS.get(_orientation(image), (False, ()))
    return (image.height, image.width) if swap else (image.width, image.height)


def _orientation(image: Image.Image) -> int:
    """The rotation that remains to be applied to an image from Pillow."""
    # Pillow turns TIFF itself. Of PNG a tag after the pixels is not looked for: they would be decoded for it.
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    return int(image.getexif().get(Base.Orientation, 1))
