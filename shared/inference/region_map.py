"""A part of an image, mapped on the whole image's own tiles, as annotations and without files: for a viewer that waits."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import shapely

from ..writers.geojson import TUMOUR_CLASS
from ..writers.palette import TUMOUR_COLOUR, Colour, class_colour
from ..wsi.annotations.frames import LEVEL0
from .inputs import ImageInput
from .look_ahead import OpenedSlide
from .outputs.polygons import Region, class_regions, tumour_regions
from .outputs.probability_map import ProbabilityMap
from .outputs.slide_results import ResultOptions, Scale, annotation_features, least_pixels
from .slide_mapper import SlideMapper
from .tiles.map_grid import MapGrid

# (x, y, width, height) in level-0 pixels.
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class RegionResult:
    """Annotations as GeoJSON features in level-0 pixels, level 0's micrometres per pixel, and the number of tiles computed."""

    features: list[dict[str, Any]]
    mpp: float
    num_tiles: int


def map_region(mapper: SlideMapper, image: ImageInput, box: Box | None = None, tissue_only: bool | None = None) -> RegionResult:
    """The annotations that lie in a box, or in a whole image of which no files are wanted.

    The tiles are those of the whole image, so that the annotations are those of the whole map; at the border of the tiles that
    touch the box they end. Pieces that reach that border are kept however small they are. Tissue is found on the whole image.

    Args:
        mapper: of the network.
        image: the image.
        box: of the image, in part at least; None for all of it.
        tissue_only: None is as the mapper does it. False for small crops, of which nothing says what glass looks like.

    Raises:
        ValueError: if the image cannot be read, has no pixel size, or the box lies outside it.
    """
    with ExitStack() as stack:
        opened = stack.enter_context(_open(mapper, image, box, mapper.tissue.only if tissue_only is None else tissue_only))
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="region-")))
        whole = stack.enter_context(ProbabilityMap(folder / "map.part", opened.grid, mapper._num_classes, opened.near_tissue))
        mapper._fill(whole, opened, image.name)
        options = replace(mapper._result_options(), volume=None, ome_zarr=False, geoparquet=False, annotation_frame=LEVEL0)
        found = _regions(whole, opened, options)
        return RegionResult(list(annotation_features(found, opened.scale, options)), opened.scale.mpp, int(opened.wanted.sum()))


def clip_box(box: Box, size_px: tuple[int, int]) -> Box:
    """The part of a box that lies in an image of (width, height) `size_px`.

    Raises:
        ValueError: if there is none.

    >>> clip_box((-10, 20, 50, 100), (1000, 60))
    (0, 20, 40, 40)
    """
    x, y, width, height = box
    right, bottom = min(x + width, size_px[0]), min(y + height, size_px[1])
    left, top = max(x, 0), max(y, 0)
    if right <= left or bottom <= top:
        raise ValueError(
            f"the region at ({x}, {y}) of {width} x {height} px contains nothing of the image of {size_px[0]} x {size_px[1]} px"
        )
    return left, top, right - left, bottom - top


def _open(mapper: SlideMapper, image: ImageInput, box: Box | None, tissue_only: bool) -> OpenedSlide:
    with ExitStack() as stack:
        slide = stack.enter_context(mapper.pixels.open(image))
        scale = mapper._scale(slide)
        grid = mapper._grid(slide, scale)
        touched = _tiles_in(grid, scale, (0, 0, *slide.size_px) if box is None else clip_box(box, slide.size_px))
        overview = mapper._overview(slide, grid, scale, tissue_only)
        wanted = grid.tiles_on(overview.holds_tissue, overview.factor * scale.map_downsample) & touched
        batches = mapper._read_batches(slide, grid, wanted, scale)
        stack.pop_all()  # it stays open
        return OpenedSlide(slide, grid, wanted, [], batches, scale, overview, mapper._near_tissue(slide, overview, scale))


def _tiles_in(grid: MapGrid, scale: Scale, box: Box) -> np.ndarray:
    """Which tiles' cores touch the box: bool ``(rows, columns)``."""
    touched = np.zeros(grid.num_tiles, bool)
    spans = []
    for axis, start, length in ((grid.y, box[1], box[3]), (grid.x, box[0], box[2])):
        core = axis.step * scale.downsample
        spans.append(slice(math.floor(start / core), math.ceil((start + length) / core)))
    touched[spans[0], spans[1]] = True
    return touched


@dataclass(frozen=True)
class _Window:
    """Some rows and columns of a map, itself to be read by rows."""

    source: ProbabilityMap
    top: int
    left: int
    shape: tuple[int, int]

    @property
    def num_classes(self) -> int:
        return self.source.num_classes

    def read_rows(self, start: int, stop: int, index: int = 0) -> np.ndarray:
        return self.source.read_rows(self.top + start, self.top + stop, index)[:, self._columns]

    def read_classes(self, start: int, stop: int) -> np.ndarray:
        return self.source.read_classes(self.top + start, self.top + stop)[:, self._columns]

    @property
    def _columns(self) -> slice:
        return slice(self.left, self.left + self.shape[1])


def _regions(whole: ProbabilityMap, opened: OpenedSlide, options: ResultOptions) -> dict[str, tuple[Colour, list[Region]]]:
    """Colour and regions of each class, in pixels of the whole map."""
    names = [TUMOUR_CLASS] if options.class_names is None else list(options.class_names)[1:]
    colours = [TUMOUR_COLOUR] if options.class_names is None else [class_colour(index) for index in range(1, len(names) + 1)]
    by_class: dict[str, tuple[Colour, list[Region]]] = {name: (colour, []) for name, colour in zip(names, colours, strict=True)}
    if not opened.wanted.any():
        return by_class
    window = _window(whole, opened)
    found = (
        ((1, region) for region in tumour_regions(window, options.threshold))
        if options.class_names is None
        else class_regions(cast(ProbabilityMap, window))
    )
    least = least_pixels(opened.scale, options)
    for index, region in found:
        if region.num_pixels >= least or _is_cut(region, window):
            moved = shapely.transform(region.polygon, lambda points: points + np.array([window.left, window.top]))
            by_class[names[index - 1]][1].append(Region(moved, region.num_pixels, region.mean_probability))
    return by_class


def _window(whole: ProbabilityMap, opened: OpenedSlide) -> _Window:
    """The smallest rectangle of the map around the computed tiles."""
    rows, columns = (np.flatnonzero(opened.wanted.any(axis=axis)) for axis in (1, 0))
    height, width = opened.grid.core_shape
    top, left = int(rows[0]) * height, int(columns[0]) * width
    bottom, right = min((int(rows[-1]) + 1) * height, whole.shape[0]), min((int(columns[-1]) + 1) * width, whole.shape[1])
    return _Window(whole, top, left, (bottom - top, right - left))


def _is_cut(region: Region, window: _Window) -> bool:
    """Whether a region touches a border of the window that is not also a border of the map."""
    left, top, right, bottom = region.polygon.bounds
    height, width = window.source.shape
    return bool(
        (left <= 0 and window.left > 0)
        or (top <= 0 and window.top > 0)
        or (right >= window.shape[1] and window.left + window.shape[1] < width)
        or (bottom >= window.shape[0] and window.top + window.shape[0] < height)
    )
