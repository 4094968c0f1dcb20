"""Tumour maps that another program has left as pictures: one for each slide, of the slide as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ...data.public.tcga_barcode import parse_barcode
from ...inference.inputs import image_name
from ...wsi.file_names import comparable
from ...wsi.mask_region import unlimited_pillow

SUFFIXES = (".png", ".tif", ".tiff")
# Such as those of maps with a pixel for a tile; a picture as large as a slide's level 0 is none.
_MOST_PIXELS = 2**28


class PictureMaps:
    """A folder of maps as pictures, named like the slides: 8-bit grey (0 to 255 being probability 0 to 1), black and white, or
    encoded as the maps that the authors of alpha/beta MIL have released.

    Released maps (``results`` of github.com/MarvinLer/tcga_segmentation) are RGB with a pixel for each tile of 224 px: red is the
    probability, blue is 255 on tissue and 0 elsewhere, green is 0. A slide of The Cancer Genome Atlas and its map may differ in
    what follows the barcode.

    Args:
        folder: of ``<slide>.png`` or ``.tif``, searched with the folders below it.

    Raises:
        ValueError: if there is no such folder or no picture in it, or two of them are of one slide.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        found = sorted(path for path in self.folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        if not found:
            raise ValueError(f"{folder}: expected maps as pictures, <slide>.png or .tif; found none")
        self._paths: dict[str, Path] = {}
        for path in found:
            first = self._paths.setdefault(_key(path), path)
            if first is not path:
                raise ValueError(f"{path} and {first} are maps of one slide: keep one of them")

    def path_of(self, slide: str | Path) -> Path | None:
        """The map of a slide's file; None where there is none."""
        return self._paths.get(_key(Path(slide)))

    def read(self, slide: str | Path, size_px: Sequence[int]) -> NDArray[np.uint8]:
        """The map of a slide, as it is stored: uint8 ``(h, w)``, 255 being probability 1.

        Args:
            slide: its file.
            size_px: (width, height) of its level 0.

        Raises:
            ValueError: if there is none, it cannot be read, has none of the encodings, or not the slide's proportions, to one of
                its pixels.
        """
        path = self.path_of(slide)
        if path is None:
            raise ValueError(f"{self.folder} holds no map of {slide}")
        try:
            with unlimited_pillow(), Image.open(path) as picture:
                mode, size = picture.mode, picture.size
                values = _probabilities(picture) if size[0] * size[1] <= _MOST_PIXELS else None
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"the map {path} cannot be read ({error})") from error
        if values is None:
            raise ValueError(
                f"the map {path}: expected an 8-bit grey picture of probabilities, a black-and-white one, or RGB with the "
                f"probability in red and tissue in blue, of at most {_MOST_PIXELS} pixels; found mode {mode!r} and "
                f"{size[0]} x {size[1]} pixels. Convert it"
            )
        wanted = size[0] * size_px[1] / size_px[0], size[1] * size_px[0] / size_px[1]
        if min(abs(wanted[0] - size[1]), abs(wanted[1] - size[0])) > 1:
            raise ValueError(
                f"the map {path} of {size[0]} x {size[1]} pixels does not have the proportions of its slide of {size_px[0]} x "
                f"{size_px[1]}: expected a map of the whole slide"
            )
        return values


def at_pixels(picture: NDArray[np.uint8], size_px: Sequence[int], shape: tuple[int, int], pixel_px: float) -> NDArray[np.uint8]:
    """A whole slide's picture below the middles of another map's pixels.

    Args:
        picture: ``(h, w)`` of the whole slide.
        size_px: (width, height) of the slide's level 0.
        shape: (H, W) of the other map.
        pixel_px: level-0 pixels per pixel of the other map.

    Returns:
        ``(H, W)``, the nearest pixel's value.
    """
    rows, columns = (
        np.minimum(((np.arange(count) + 0.5) * pixel_px / side * length).astype(np.int64), length - 1)
        for count, side, length in zip(shape, size_px[::-1], picture.shape, strict=True)
    )
    return picture[np.ix_(rows, columns)]


def _probabilities(picture: Image.Image) -> NDArray[np.uint8] | None:
    """255 is probability 1; None for a picture that encodes none."""
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L"))
    if picture.mode != "RGB":
        return None
    red, green, blue = np.moveaxis(np.asarray(picture), 2, 0)
    is_tissue = blue == 255
    return red if not (green.any() or blue[~is_tissue].any() or red[~is_tissue].any()) else None


def _key(path: Path) -> str:
    """By which a slide and its map are the same: a barcode of The Cancer Genome Atlas, or else the name."""
    name = comparable(image_name(path))
    try:
        return parse_barcode(name).slide
    except ValueError:
        return name
