"""Pictures of a slide, its maps and its truth, square by square."""

from __future__ import annotations

import functools
import io
import threading
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.data.record_masks import read_record_mask, without_label
from shared.inference.cohort.finished import MAP_SUFFIX
from shared.inference.cohort.folder_settings import SETTINGS_NAME
from shared.inference.overview import Overview
from shared.writers.palette import TUMOUR_COLOUR, class_colour
from shared.wsi import Slide

from .cohort import Cohort, stamp_of
from .map_pixels import MapPixels
from .tissue_share import find_overview
from .zoom import TILE_PX, Zoom

# Perceptually uniform, and readable for colour-blind people.
COLOUR_MAPS = ("viridis", "cividis", "magma", "plasma")
_KEPT = 16
_KEPT_WHOLE = 4
_LARGEST_WHOLE_PX = 2**26
_READ_PX = 2048  # side of the squares that are read at once
_REDUCED_PX = 400  # longer side; outlining is fast at this size, however many specks the map has
_UNKNOWN_MPP = 1.0  # for slides that do not state it; only positions are used


class Layers:
    """The squares of every layer of every slide, as PNG. The slides and maps that were used last stay open.

    Safe to use from several threads.

    Args:
        cohort: slides and methods.
    """

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort
        self._lock = threading.Lock()
        self._slide = functools.lru_cache(_KEPT)(self._open_slide)
        self._map = functools.lru_cache(_KEPT)(self._open_map)
        self._whole = functools.lru_cache(_KEPT_WHOLE)(_whole_map)
        self._tissue = functools.lru_cache(_KEPT)(self._find_overview)
        self._foreign = functools.lru_cache(_KEPT)(
            lambda method, name, stamp: cohort.methods[method].is_foreign(cohort.slides[name])
        )
        self._reduced = functools.lru_cache(_KEPT)(_reduced_map)

    def slide(self, name: str) -> Slide:
        """An open slide.

        Raises:
            ValueError: if it is unknown, or cannot be read.
        """
        with self._lock:
            return self._slide(name)

    def zoom(self, name: str) -> Zoom:
        return Zoom(self.slide(name).size_px)

    def _open_slide(self, name: str) -> Slide:
        if name not in self.cohort.slides:
            raise ValueError(f"there is no slide {name!r}")
        viewed = self.cohort.slides[name]
        slide = Slide(viewed.path, mpp=viewed.mpp)
        return slide if slide.has_mpp else Slide(viewed.path, mpp=_UNKNOWN_MPP)

    def map(self, method: int, name: str, channel: int = 0) -> MapPixels:
        """An open map.

        Raises:
            ValueError: if there is none, or it cannot be read.
        """
        if not 0 <= method < len(self.cohort.methods):
            raise ValueError(f"there is no method {method}")
        maps = self.cohort.methods[method]
        if not maps.has_map(name):
            raise ValueError(f"{maps.title} has no map of {name!r}")
        with self._lock:
            return self._map(maps.path(name, MAP_SUFFIX), channel, maps.stamp(name))

    @staticmethod
    def _open_map(path: Path, channel: int, stamp: str) -> MapPixels:
        return MapPixels(path, channel)

    def whole_map(self, method: int, name: str) -> tuple[NDArray[np.uint8], tuple[int, int]] | None:
        """The non-empty part of a map, kept for the next threshold; None if it is too large to keep.

        Returns:
            its values, and its top-left corner (x, y) in map pixels.

        Raises:
            ValueError: as `map`.
        """
        source = self.map(method, name)
        left, top, right, bottom = source.filled_box
        if (right - left) * (bottom - top) > _LARGEST_WHOLE_PX:
            return None
        maps = self.cohort.methods[method]
        return self._whole(maps.path(name, MAP_SUFFIX), maps.stamp(name), source)

    def reduced_map(self, method: int, name: str) -> tuple[NDArray[np.uint8], tuple[float, float], float]:
        """The non-empty part of a map, reduced to a size that is outlined without delay.

        Returns:
            its values, and in map pixels its top-left corner (x, y) and the side of one of its pixels.

        Raises:
            ValueError: as `map`.
        """
        maps = self.cohort.methods[method]
        return self._reduced(maps.path(name, MAP_SUFFIX), maps.stamp(name), self.map(method, name))

    def overview(self, method: int, name: str) -> Overview | None:
        """The tissue of a map as it was found for it, see `find_overview`; kept for the next threshold.

        Raises:
            ValueError: as `map`.
        """
        return self._tissue(method, name, self.cohort.methods[method].stamp(name))

    def _find_overview(self, method: int, name: str, stamp: str) -> Overview | None:
        shape = self.map(method, name).shape
        return find_overview(self.slide(name), self.cohort.methods[method], name, shape, self.map_pixel(method, name))

    def is_foreign(self, method: int, name: str) -> bool:
        """See `Maps.is_foreign`; kept while the map and the folder's settings stay as they are."""
        maps = self.cohort.methods[method]
        return self._foreign(method, name, maps.stamp(name) + stamp_of(maps.folder / SETTINGS_NAME))

    def map_pixel(self, method: int, name: str) -> float:
        """Level-0 pixels per map pixel."""
        row = self.cohort.methods[method].rows[name]
        return float(row["map_mpp"]) / float(row["mpp"])

    def slide_square(self, name: str, place: tuple[int, int, int]) -> bytes:
        """A square of the slide itself; the deepest zoom shows its level-0 pixels.

        Args:
            name: of the slide.
            place: zoom, column and row of the square.
        """
        slide, zoom = self.slide(name), self.zoom(name)
        corner, step = zoom.corner(*place), zoom.step(place[0])
        if corner is None:
            return clear_square()
        if step > 1:
            return png(slide.read_region(corner, TILE_PX, slide.mpp * step, exact=True))
        times = round(1 / step)
        return png(slide.read_region(corner, TILE_PX // times).repeat(times, axis=0).repeat(times, axis=1))

    def map_square(self, method: int, name: str, place: tuple[int, int, int], colours: str, channel: int = 0) -> bytes:
        """A square of a map in colours, transparent where the map is 0, as outside the tissue.

        Args:
            method: number of the method.
            name: name of the slide.
            place: zoom, column and row of the square.
            colours: one of `COLOUR_MAPS`.
            channel: index of the class in a multi-class map.
        """
        # One of tumour has a single channel, whichever class is shown of the others.
        source = self.map(method, name, channel if self.cohort.methods[method].class_names_of(name) else 0)
        zoom, pixel = self.zoom(name), self.map_pixel(method, name)
        corner, step = zoom.corner(*place), zoom.step(place[0])
        if corner is None:
            return clear_square()
        values = source.read((corner[0] / pixel, corner[1] / pixel), TILE_PX, step / pixel)
        return png(colour_table(colours)[values])

    def truth_square(self, name: str, place: tuple[int, int, int]) -> bytes:
        """A square of the slide's mask: the colour of each class, transparent in the background.

        Args:
            name: name of the slide.
            place: zoom, column and row of the square.
        """
        viewed = self.cohort.slides[name]
        if viewed.record is None or not viewed.record.get("mask"):
            raise ValueError(f"{name!r} has no mask")
        slide, zoom = self.slide(name), self.zoom(name)
        corner, step = zoom.corner(*place), zoom.step(place[0])
        if corner is None:
            return clear_square()
        names = self._class_names
        # A mask that contradicts its label is to be seen.
        classes = read_record_mask(
            without_label(viewed.record),
            corner,
            TILE_PX,
            slide.size_px,
            step,
            num_classes=len(names) if names else 2,
            class_names=names,
        )
        return png(_class_table()[classes])

    @property
    def _class_names(self) -> tuple[str, ...] | None:
        """The classes of the masks, which are those of the maps."""
        names = next((maps.class_names for maps in self.cohort.methods if maps.class_names), None)
        return None if names is None else tuple(names)

    def thumbnail(self, name: str, height_px: int) -> bytes:
        """A small picture of the slide, with its first map if there is one.

        Args:
            name: name of the slide.
            height_px: height of the picture.
        """
        drawn = (maps.path(name, ".png") for maps in self.cohort.methods if maps.has_map(name))
        path = next((path for path in drawn if path.is_file()), None)
        if path is None:
            return png(_shrunk(Image.fromarray(self.slide(name).thumbnail(4 * height_px)), height_px))
        with Image.open(path) as picture:
            return png(_shrunk(picture.convert("RGB"), height_px))


def _whole_map(path: Path, stamp: str, source: MapPixels) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    left, top, right, bottom = source.filled_box
    values = np.empty((bottom - top, right - left), np.uint8)
    # Squares of a map that is much longer than wide would hold far more than it does.
    for y in range(0, len(values), _READ_PX):
        for x in range(0, values.shape[1], _READ_PX):
            part = values[y : y + _READ_PX, x : x + _READ_PX]
            part[:] = source.read((left + x, top + y), max(part.shape), 1)[: part.shape[0], : part.shape[1]]
    return values, (left, top)


def _reduced_map(path: Path, stamp: str, source: MapPixels) -> tuple[NDArray[np.uint8], tuple[float, float], float]:
    left, top, right, bottom = map(float, source.filled_box)
    step = max(1.0, max(right - left, bottom - top) / _REDUCED_PX)
    values = source.read((left, top), _REDUCED_PX, step)
    columns, rows = np.flatnonzero(values.any(axis=0)), np.flatnonzero(values.any(axis=1))
    if step > 1 and len(columns):
        # One more pixel on each side, because the reduction may have lost the border.
        left, right = left + max(0, columns[0] - 1) * step, min(right, left + (columns[-1] + 2) * step)
        top, bottom = top + max(0, rows[0] - 1) * step, min(bottom, top + (rows[-1] + 2) * step)
        step = max(1.0, max(right - left, bottom - top) / _REDUCED_PX)
        values = source.read((left, top), _REDUCED_PX, step)
    return values, (left, top), step


def _shrunk(picture: Image.Image, height_px: int) -> NDArray[np.uint8]:
    width_px = max(1, round(picture.width * height_px / picture.height))
    return np.asarray(picture.resize((width_px, height_px), Image.Resampling.BOX))


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode ``(H, W, 3)`` or ``(H, W, 4)`` as PNG, with little compression: on one machine, speed matters more than size."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


@functools.cache
def clear_square() -> bytes:
    """The transparent square shown outside the slide."""
    return png(np.zeros((TILE_PX, TILE_PX, 4), np.uint8))


@functools.lru_cache
def colour_table(name: str) -> NDArray[np.uint8]:
    """RGBA of each value of a map, ``(256, 4)``; 0 is transparent.

    Raises:
        ValueError: for a name that is not one of `COLOUR_MAPS`.
    """
    if name not in COLOUR_MAPS:
        raise ValueError(f"unknown colour map {name!r}: expected one of {', '.join(COLOUR_MAPS)}")
    table = matplotlib.colormaps[name](np.arange(256), bytes=True)
    table[0] = 0
    return np.asarray(table, np.uint8)


@functools.lru_cache
def _class_table() -> NDArray[np.uint8]:
    table = np.zeros((256, 4), np.uint8)
    table[1:, :3] = [class_colour(index) for index in range(1, 256)]
    table[1, :3] = TUMOUR_COLOUR
    table[1:, 3] = 255
    return table
