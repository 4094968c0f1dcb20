"""Regions of a mask that belongs to a slide or an image: a separate image, or an annotation file."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import shapely
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from .annotations.annotation import Annotation
from .annotations.annotation_file import is_annotation_file
from .annotations.annotation_mask import AnnotationMask
from .annotations.frames import QUPATH
from .annotations.mask_meaning import TUMOUR_MASK, MaskMeaning
from .annotations.reading import read_annotations_in_frame
from .masks.mask_pixels import (
    RefusedMask,
    WhiteBackground,
    check_tiff_colours,
    class_indices_of,
    has_alpha,
    mask_of_picture,
    mask_of_tiff,
)
from .orientation import UPRIGHT, upright, upright_size
from .slide_pool import open_slide
from .tiff.images import num_equal_pictures, tiff_images
from .tiff.tiles import decode_tile

logger = logging.getLogger(__name__)

_TIFF_SUFFIXES = (".tif", ".tiff", ".svs")
# A level-0 mask of a small slide is 10 MB; PNG masks have no regions, so the whole file is decoded and kept.
_MAX_DECODED_MASKS = 8
# Outlines of a slide: 16 bytes a point, some MB where there are many.
_MAX_ANNOTATION_MASKS = 64
# Of a mask with transparency all pixels are to be seen before one can be understood: 400 MB with four channels.
_LARGEST_WITH_ALPHA_PX = 10**8
# Pixels of a tiled mask that are held at once: 64 MB. Bands of fewer rows would decode tiles twice, at the end of one and the
# beginning of the next.
_LARGEST_WINDOW_PX = 2**26
_PILLOW_LIMIT = threading.Lock()


def read_mask_region(
    path: str | Path,
    xy: tuple[int, int],
    size_px: int | tuple[int, int],
    image_size_px: tuple[int, int],
    downsample: float = 1.0,
    image_path: str | Path | None = None,
    meaning: MaskMeaning = TUMOUR_MASK,
    image_mpp: float | None = None,
) -> NDArray[np.uint8]:
    """The part of a mask that belongs to a region read with `Slide.read_region`: class indices, by nearest neighbour.

    Args:
        path: PNG, BMP or TIFF, or an annotation file of the image (``.xml``, ``.json``, ``.geojson``, these with ``.gz``, or
            ``.zip``, see `read_annotations`). With two classes any nonzero pixel (of any colour channel) is 1; with more a
            pixel is the class index, and the file has one channel (or a palette). What is transparent is 0, see `as_mask`. A
            tiled TIFF is read by region, of
            annotation files the outlines are kept; other files are decoded whole and the last few kept. Where a tag
            Orientation (of TIFF or EXIF) says that a mask is to be turned, it is, as images are.
        xy: top-left corner of the region in level-0 pixels of the *image*, anywhere.
        size_px: (width, height) or one side of the result.
        image_size_px: (width, height) of the image's level 0. A mask file has this size or a whole fraction of it.
        downsample: level-0 pixels of the image per pixel of the result, as from `Slide.downsample(mpp)`.
        image_path: the image. Annotations in QuPath's frame are moved by its `Slide.qupath_origin_px`; None: they are in level
            0.
        meaning: the classes.
        image_mpp: as for `open_slide`, where the image is opened to learn its `Slide.qupath_origin_px`.

    Returns:
        ``(height, width)`` class indices; 0 outside the image.

    Raises:
        ValueError: if the mask is missing, damaged, JPEG-compressed (its edges ring, so "nonzero" means nothing), of colours that
            can be understood in two ways (white as 0, a palette or a picture with a white background), its size is no whole
            fraction of the image's, a pixel or an annotation is of no known class, or all annotations lie outside the
            image.
    """
    path = Path(path)
    width, height = (size_px, size_px) if isinstance(size_px, int | np.integer) else size_px
    columns, rows = (
        np.floor(start + (np.arange(length) + 0.5) * downsample).astype(np.int64)
        for start, length in zip(xy, (width, height), strict=True)
    )
    inside_x, inside_y = ((p >= 0) & (p < side) for p, side in zip((columns, rows), image_size_px, strict=True))
    size = (int(image_size_px[0]), int(image_size_px[1]))
    if is_annotation_file(path):
        outlines = open_annotation_mask(path, size, image_path, meaning, image_mpp)
        return outlines.read(xy, (width, height), downsample) * np.outer(inside_y, inside_x)
    mask = _open_mask(path, _modified_ns(path), meaning.num_classes, size, image_path)
    factor = _whole_factor(path, mask.size_px, size, image_path)
    region = np.zeros((height, width), dtype=np.uint8)
    if inside_x.any() and inside_y.any():
        # Where the image's size is no multiple of the factor, the last pixel of a rounded-down mask stands for more.
        x = np.minimum(columns[inside_x] // factor, mask.size_px[0] - 1)
        y = np.minimum(rows[inside_y] // factor, mask.size_px[1] - 1)
        region[np.ix_(inside_y, inside_x)] = _pick(mask, x, y)
    return region


def _pick(mask: _DecodedMask | _TiledMask, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The mask's pixels at these columns and rows, in ascending order: ``(rows, columns)``, read in bands that memory holds."""
    width, height = int(x[-1] - x[0]) + 1, int(y[-1] - y[0]) + 1
    num_rows = max(1, len(y) * _LARGEST_WINDOW_PX // (width * height))
    picked = np.empty((len(y), len(x)), dtype=np.uint8)
    for start in range(0, len(y), num_rows):
        band = y[start : start + num_rows]
        window = mask.read(int(x[0]), int(band[0]), int(x[-1]) + 1, int(band[-1]) + 1)
        picked[start : start + num_rows] = window[np.ix_(band - band[0], x - x[0])]
    return picked


def open_annotation_mask(
    path: str | Path,
    image_size_px: tuple[int, int],
    image_path: str | Path | None = None,
    meaning: MaskMeaning = TUMOUR_MASK,
    image_mpp: float | None = None,
) -> AnnotationMask:
    """The mask of an annotation file, kept for the next call. Arguments and errors as for `read_mask_region`."""
    path = Path(path)
    size = (int(image_size_px[0]), int(image_size_px[1]))
    bounds = (0, 0, *size) if image_path is None else open_slide(image_path, image_mpp).bounds_px
    return _open_annotations(path, _modified_ns(path), meaning, size, bounds)


def image_mask_is_empty(
    path: str | Path,
    image_size_px: tuple[int, int],
    image_path: str | Path | None = None,
    meaning: MaskMeaning = TUMOUR_MASK,
) -> bool | None:
    """Whether all of a mask that is an image is of class 0, as far as this is known without reading more of it.

    Of tiled TIFFs, which are read by region, it is known once a pixel of another class or all of the mask has been read; None
    before. Arguments and errors as for `read_mask_region`.
    """
    path = Path(path)
    size = (int(image_size_px[0]), int(image_size_px[1]))
    return _open_mask(path, _modified_ns(path), meaning.num_classes, size, image_path).is_empty


def _modified_ns(path: Path) -> int:
    """When the file was written: part of what a kept mask is known by, so that one written again is read again."""
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise ValueError(f"the mask {path} cannot be read ({error}); check the manifest's `mask` column") from error


def _whole_factor(path: Path, mask_size: tuple[int, int], image_size: tuple[int, int], image_path: str | Path | None) -> int:
    """Image pixels per mask pixel."""
    # By the longer side, of which a pixel more or less says the least.
    factor = max(1, round(max(image_size) / max(mask_size)))
    if any(abs(mask - image / factor) >= 1 for mask, image in zip(mask_size, image_size, strict=True)):
        of_image = f"{image_path} " if image_path is not None else "its image "
        raise RefusedMask(
            f"the mask {path} is {mask_size[0]} x {mask_size[1]} px, {of_image}{image_size[0]} x {image_size[1]} px: "
            "a mask must have the image's size, or a half, a third, ... of it"
        )
    return factor


class _DecodedMask:
    """A mask in memory: ``(H, W)`` uint8, class indices."""

    def __init__(self, mask: NDArray[np.uint8]) -> None:
        self._mask = mask
        self.size_px = (mask.shape[1], mask.shape[0])
        self.is_empty = not mask.any()

    def read(self, left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
        return self._mask[top:bottom, left:right]


class _TiledMask:
    """A tiled TIFF of which only the tiles asked for are decoded. The file is open during `read` only."""

    def __init__(self, path: Path, size_px: tuple[int, int], num_classes: int) -> None:
        self._path = path
        self.size_px = size_px
        self._num_classes = num_classes
        # None until a tile with another class than 0 was read, or all of them.
        self.is_empty: bool | None = None
        self._empty_tiles: set[int] = set()
        self._background = WhiteBackground(path) if num_classes == 2 else None

    def read(self, left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
        try:
            with tifffile.TiffFile(self._path) as tiff:
                return self._read(tiff, left, top, right, bottom)
        except RefusedMask:
            raise
        except Exception as error:  # damage to a tile: each codec has its own errors
            raise ValueError(f"the mask {self._path} cannot be read ({error}); is the file complete?") from error

    def _read(self, tiff: tifffile.TiffFile, left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
        mask = np.zeros((bottom - top, right - left), dtype=np.uint8)
        page = tiff.pages[0].aspage()
        columns_a_row = -(-page.imagewidth // page.tilewidth)
        for row in range(top // page.tilelength, -(-bottom // page.tilelength)):
            for column in range(left // page.tilewidth, -(-right // page.tilewidth)):
                index = row * columns_a_row + column
                tile = decode_tile(tiff, page, index)
                self._note(index, tile is None or not tile.any(), columns_a_row * -(-page.imagelength // page.tilelength))
                if tile is None:
                    continue
                y, x = row * page.tilelength, column * page.tilewidth
                if self._background is not None:
                    # What lies beyond the picture's edge is padded with black.
                    self._background.see(tile[: page.imagelength - y, : page.imagewidth - x])
                visible = tile[max(0, top - y) : bottom - y, max(0, left - x) : right - x]
                part = class_indices_of(visible, self._path, self._num_classes)
                y, x = max(y, top) - top, max(x, left) - left
                mask[y : y + part.shape[0], x : x + part.shape[1]] = part
        return mask

    def _note(self, index: int, is_empty: bool, num_tiles: int) -> None:
        """Note what was seen of a tile: of a mask that is read in full anyway it is known then whether it is empty."""
        if not is_empty:
            self.is_empty = False
        elif self.is_empty is None:
            self._empty_tiles.add(index)
            self.is_empty = True if len(self._empty_tiles) == num_tiles else None


@functools.lru_cache(maxsize=_MAX_ANNOTATION_MASKS)
def _open_annotations(
    path: Path, modified_ns: int, meaning: MaskMeaning, image_size: tuple[int, int], bounds: tuple[int, int, int, int]
) -> AnnotationMask:
    annotations, frame = read_annotations_in_frame(path, frame=meaning.annotation_frame, qupath_origin_px=bounds[:2])
    try:
        mask = AnnotationMask(annotations, meaning.num_classes, meaning.class_names, meaning.tumour_classes, meaning.needs_tumour)
    except ValueError as error:
        raise ValueError(f"the annotations {path}: {error}") from error
    # A part that begins in level 0's corner may leave out glass that was not stored: there the frames are the same.
    is_moved = frame == QUPATH and bounds[:2] != (0, 0)
    _check_inside(path, annotations, frame, bounds if is_moved else (0, 0, *image_size))
    return mask


def _check_inside(path: Path, annotations: Sequence[Annotation], frame: str, box: tuple[int, int, int, int]) -> None:
    """An error if all annotations lie outside their frame's (x, y, width, height) of level 0, a warning for some."""
    x, y, width, height = box
    area = shapely.box(x, y, x + width, y + height)
    strays = [annotation for annotation in annotations if not shapely.intersects(annotation.polygon, area)]
    if not strays:
        return
    where = f"{strays[0].place} at {_corners(strays[0], (x, y))}" + (f" and {len(strays) - 1} more" if len(strays) > 1 else "")
    outside = f"the image of {width} x {height} px: {where}"
    if len(strays) == len(annotations):
        origin = f", counted from its pixel ({x}, {y}) as QuPath does" if (x, y) != (0, 0) else ""
        raise ValueError(
            f"all annotations of {path} lie outside {outside}; they must belong to this image, in pixels of its level 0{origin} "
            f"(annotation_frame {frame!r})"
        )
    logger.warning("annotations of %s lie outside %s", path, outside)


def _corners(annotation: Annotation, origin: tuple[int, int]) -> str:
    """The corners as they are in the file."""
    left, top, right, bottom = annotation.polygon.bounds - np.array(origin * 2)
    return f"({left:.0f}, {top:.0f}) to ({right:.0f}, {bottom:.0f})"


@functools.lru_cache(maxsize=_MAX_DECODED_MASKS)
def _open_mask(
    path: Path, modified_ns: int, num_classes: int, image_size: tuple[int, int], image_path: str | Path | None
) -> _DecodedMask | _TiledMask:
    is_tiff = path.suffix.lower() in _TIFF_SUFFIXES
    try:
        if is_tiff:
            return _open_tiff_mask(path, num_classes)
        with unlimited_pillow(), Image.open(path) as image:
            _refuse_jpeg(path, image.format == "JPEG")
            # Before anything is decoded: a mask may be as large as its image, and no larger.
            _whole_factor(path, upright_size(image), image_size, image_path)
            return _DecodedMask(mask_of_picture(image, path, num_classes))
    except RefusedMask:
        raise
    except UnidentifiedImageError as error:
        raise ValueError(
            f"the mask {path} cannot be read: expected an image (PNG, BMP, TIFF) or an annotation file (XML, GeoJSON, as .gz or "
            ".zip too), found neither. Is the file complete? Else save it as PNG or tiled TIFF"
        ) from error
    except Exception as error:  # damage: besides OSError anything from SyntaxError (Pillow) to the codecs' own errors
        others = "PNG" if is_tiff else "a tiled TIFF"
        raise ValueError(
            f"the mask {path} cannot be read ({error}). Is the file complete? Save it again, or as {others}"
        ) from error


@contextmanager
def unlimited_pillow() -> Iterator[None]:
    """Let Pillow open an image of any size: its limit is made for files from strangers, and callers have limits of their own."""
    # The limit is one for all threads, and the first to leave must not take it from the others.
    with _PILLOW_LIMIT:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _open_tiff_mask(path: Path, num_classes: int) -> _DecodedMask | _TiledMask:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0].aspage()
        _refuse_jpeg(path, page.compression == tifffile.COMPRESSION.JPEG)
        _refuse_several(path, tiff)
        check_tiff_colours(page, path, num_classes)
        orientation = int(page.tags.valueof("Orientation", 1))
        is_whole = has_alpha(page)
        if is_whole and page.imagewidth * page.imagelength > _LARGEST_WITH_ALPHA_PX:
            raise RefusedMask(
                f"the mask {path} of {page.imagewidth} x {page.imagelength} px has a channel of transparency, which only masks "
                f"of up to {_LARGEST_WITH_ALPHA_PX} px may have: save it with one channel, 0 where there is no tumour"
            )
        if page.is_tiled and page.planarconfig == 1 and orientation in UPRIGHT and not is_whole:
            return _TiledMask(path, (page.imagewidth, page.imagelength), num_classes)
        pixels = page.asarray()
        pixels = np.moveaxis(pixels, 0, -1) if pixels.ndim == 3 and page.planarconfig == 2 else pixels
        pixels = upright(pixels, orientation)
        return _DecodedMask(mask_of_tiff(pixels if pixels.ndim == 3 else pixels[..., None], page, path, num_classes))


def _refuse_several(path: Path, tiff: tifffile.TiffFile) -> None:
    """Of several pictures of one size, such as channels, the first may be any; smaller ones may be levels."""
    images = tiff_images(tiff)
    if num_equal_pictures(images) > 1:
        raise RefusedMask(
            f"the mask {path} holds {num_equal_pictures(images)} pictures of the same size, such as channels, and only one is "
            "read: save the one that is the mask as a separate file"
        )


def _refuse_jpeg(path: Path, is_jpeg: bool) -> None:
    if is_jpeg:
        raise RefusedMask(f"the mask {path} is JPEG-compressed, which blurs its edge; save it as PNG or deflate TIFF")
