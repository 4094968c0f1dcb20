"""Pictures through Pillow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..orientation import upright_image, upright_size
from ..tiff.layout import is_tiff
from ..tiff.sample_range import dark_problem
from .openslide import SLIDE_SUFFIXES
from .reader import TIFF_SUFFIXES, Reader, SlideFile, on_glass

# Pictures that carry no pixel size that anyone could trust.
PLAIN_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp"})
# OpenSlide's names for files that are of no vendor.
_NO_VENDOR = ("generic-tiff", None)
# Pillow's names of 8-bit pictures that it turns into RGB.
_READ_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"})


class PillowReader(Reader):
    """An image file that is small enough to be held decoded: PNG, JPEG, BMP, untiled TIFF.

    It is read as it is to be seen: turned where its tag Orientation (of EXIF or TIFF) says so.
    """

    name = "pillow"
    suffixes = PLAIN_SUFFIXES | TIFF_SUFFIXES
    plain_suffixes = PLAIN_SUFFIXES
    reads_pictures = True

    @classmethod
    def problem(cls, file: SlideFile) -> str | None:
        if file.vendor not in _NO_VENDOR or file.path.suffix.lower() in SLIDE_SUFFIXES:
            return "not tried, because it would show a preview or a label instead of the slide"
        if file.layout is None and is_tiff(file.path):
            return "not tried, because the tags of this TIFF are damaged"
        return None

    def __init__(self, file: SlideFile) -> None:
        self._path = file.path
        self._pixels: NDArray[np.uint8] | None = None
        with Image.open(file.path) as image:
            if image.mode not in _READ_MODES:
                raise ValueError(f"its pixels are of Pillow mode {image.mode}, not 8-bit; convert it to 8-bit RGB")
            self.level_sizes_px = (upright_size(image),)

    def read(self, level: int, origins: NDArray[np.int64], size_px: tuple[int, int], num_workers: int) -> NDArray[np.uint8]:
        if self._pixels is None:
            try:
                with Image.open(self._path) as image:
                    problem = _unused_range_problem(image)
                    self._pixels = on_glass(upright_image(image))
            except Exception as error:  # a damaged file: Pillow raises anything from OSError to SyntaxError
                raise RuntimeError(str(error)) from error
            if problem is not None:
                self._pixels = None
                raise ValueError(f"{self._path} cannot be read: {problem}")
        width, height = size_px
        return np.stack([self._pixels[y : y + height, x : x + width] for x, y in origins.tolist()])

    def close(self) -> None:
        self._pixels = None


def _unused_range_problem(image: Image.Image) -> str | None:
    # Pillow calls a picture of 16-bit samples RGB and takes the upper 8 bits.
    if not any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        return None
    brightest = int(np.asarray(image.convert("RGB")).max())
    return dark_problem(brightest << 8 | 255) if brightest < 128 else None
