"""At which pixel size an image is read, and what is assumed if the file does not state its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..geometry.pyramid import mpp_to_downsample, snap_downsample
from ..wsi.formats import is_plain_picture
from ..wsi.slide import Slide
from .inputs import ImageInput

# Larger untiled TIFF files are exported slides, and without a pixel size an error.
LARGEST_TILE_PX = 4096


@dataclass(frozen=True)
class PixelSizes:
    """Micrometres per pixel, see `SlideMapper`.

    Args:
        mpp: that the network wants.
        slide_mpp: of level 0 of slides that carry none.
        tile_mpp: of PNG, JPEG and BMP images without one.
        appmag: a slide that states no pixel size, but the magnification of its objective, has 10 um divided by it, before
            `slide_mpp`: 0.5 for 20x. Scanners differ from that by a tenth and more.
    """

    mpp: float
    slide_mpp: float | None = None
    tile_mpp: float | None = None
    appmag: bool = False

    def open(self, image: ImageInput) -> Slide:
        """An image, as a slide that knows its pixel size.

        Raises:
            ValueError: if it cannot be read, or is a slide and nothing says its pixel size.
        """
        slide = Slide(image.path, mpp=image.mpp)
        if slide.has_mpp:
            return slide
        slide.close()
        of_objective = None if slide.magnification is None else 10 / slide.magnification
        fallback = (
            (self.tile_mpp if is_plain_picture(image.path) else None)
            or (of_objective if self.appmag else None)
            or self.slide_mpp
            or (self.mpp if is_tile(slide) else None)
        )
        if fallback is None:
            other = "" if of_objective is None else f", or appmag true to take {of_objective:g} um from its magnification"
            raise ValueError(
                f"{image.path} has no mpp{slide.mpp_note}: give slide_mpp, or list it in a manifest with a column 'mpp'{other}."
            )
        return Slide(image.path, mpp=fallback)

    def downsample(self, slide: Slide) -> float:
        """Level-0 pixels per pixel at which a slide is read."""
        downsample = mpp_to_downsample(self.mpp, slide.mpp)
        # A whole number of level-0 pixels, where one is near, keeps coordinates exact; a level of the slide wins.
        downsample = snap_downsample([max(1, round(downsample))], downsample)
        return slide.downsample(slide.mpp * downsample)

    @staticmethod
    def size_px(slide: Slide, downsample: float) -> tuple[int, int]:
        """(width, height) of a slide in pixels at which it is read."""
        return math.ceil(slide.size_px[0] / downsample), math.ceil(slide.size_px[1] / downsample)


def is_tile(slide: Slide) -> bool:
    """True for PNG, JPEG and BMP, whose pixel size cannot be trusted, and for TIFF that is small and not tiled."""
    return slide.is_picture and (is_plain_picture(slide.path) or max(slide.size_px) <= LARGEST_TILE_PX)
