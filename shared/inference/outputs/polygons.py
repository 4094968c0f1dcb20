"""Exact polygons of a map of any size: strip by strip, joined across the seams."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import rasterio.features
import shapely
from scipy import ndimage, sparse
from shapely.geometry import Polygon

from ...writers.ome_tiff import RowSource
from .probability_map import ProbabilityMap

MOST_POINTS_OF_TOPOLOGY = 50_000  # of a polygon whose topology is kept while it is simplified
STRIP_AREA_PX = 2**21  # map pixels looked at together; labels and sums take about 30 bytes per pixel
OUTLINES_TOGETHER = 1000  # made into polygons by one call


@dataclass(frozen=True)
class Region:
    """One 4-connected area: outline with holes as (x, y) in map pixels, its size and mean probability."""

    polygon: Polygon
    num_pixels: int
    mean_probability: float


@dataclass
class _Pieces:
    """The parts of regions that reach over a seam, and which of them touch each other."""

    polygons: list[Polygon] = field(default_factory=list)
    num_pixels: list[int] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)
    links: set[tuple[int, int]] = field(default_factory=set)


def tumour_regions(
    source: RowSource, threshold: float = 0.5, min_pixels: int = 0, strip_height_px: int | None = None
) -> Iterator[Region]:
    """Areas where the map reaches a threshold, as valid polygons with holes.

    Memory grows with the outlines only: a region inside one strip is given out at once, pieces of the others wait until
    the last strip. The strips do not show in the result.

    Args:
        source: the map, ``(H, W)`` uint8, 255 being probability 1.
        threshold: a pixel belongs to a region when its value is at least ``255 * threshold``, in (0, 1].
        min_pixels: regions with fewer map pixels are left out.
        strip_height_px: map rows looked at together; None is as many as have `STRIP_AREA_PX` pixels.

    Raises:
        ValueError: if the threshold is out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], got {threshold}")
    tracer = _Tracer(source.shape, min_pixels)
    # The same pixels as of `255 * threshold`, compared as bytes.
    least = math.ceil(255 * threshold)
    for top, bottom in _strips(source.shape, strip_height_px):
        rows = source.read_rows(top, bottom)
        yield from tracer.trace(np.where(rows >= least, rows, np.uint8(0)), top)
    yield from tracer.finish()


def class_regions(
    source: ProbabilityMap, min_pixels: int = 0, strip_height_px: int | None = None
) -> Iterator[tuple[int, Region]]:
    """Areas of one likeliest class, with the class, for all but class 0; see `tumour_regions`.

    A region's mean probability is that of its class.
    """
    tracers = {index: _Tracer(source.shape, min_pixels) for index in range(1, source.num_classes)}
    for top, bottom in _strips(source.shape, strip_height_px):
        classes = source.read_classes(top, bottom)
        for index, tracer in tracers.items():
            rows = source.read_rows(top, bottom, index)
            # A class that is the likeliest is likelier than the background, so it is not 0.
            yield from ((index, region) for region in tracer.trace(np.where(classes == index, rows, np.uint8(0)), top))
    for index, tracer in tracers.items():
        yield from ((index, region) for region in tracer.finish())


def simplified(polygon: Polygon, tolerance: float) -> Polygon:
    """The polygon with fewer points and as many holes, none of its outline moved by more than `tolerance` (in its own unit).

    Douglas and Peucker's method, ring by ring. Where rings meet after that, they keep their topology, or, if there are so many
    points that this takes minutes, move less. Where that fails too (an outline that touches itself), the polygon as it is.
    """
    if not tolerance:
        return polygon
    keeps_topology = shapely.get_num_coordinates(polygon) <= MOST_POINTS_OF_TOPOLOGY
    for asked, keeps in ((tolerance, False), (tolerance, keeps_topology), (tolerance / 2, False), (tolerance / 4, False)):
        simpler = _simplified_rings(polygon, asked, keeps)
        if simpler.is_valid:
            return simpler
    return polygon


def _simplified_rings(polygon: Polygon, tolerance: float, keeps_topology: bool) -> Polygon:
    """Each ring as simple as the tolerance allows; valid or not."""
    rings = shapely.get_rings(polygon)
    coordinates, ring_of = shapely.get_coordinates(rings, return_index=True)
    points, result = shapely.points(coordinates), rings.copy()
    is_open = np.ones(len(rings), bool)
    # GEOS also drops the point where a ring begins and then moves the outline by up to twice what it was asked for.
    for asked in (tolerance, tolerance / 2):
        if keeps_topology:
            whole = shapely.simplify(polygon, asked, preserve_topology=True)
            simpler = shapely.get_rings(whole)
            if len(simpler) != len(rings):
                continue
        else:
            simpler = shapely.simplify(rings, asked, preserve_topology=False)
        # The prepared geometry comes first: else every point is measured against every segment.
        shapely.prepare(simpler)
        is_far = ~shapely.dwithin(simpler[ring_of], points, tolerance + 1e-9)
        is_ring = shapely.get_type_id(simpler) == shapely.GeometryType.LINEARRING  # not so where little is left of it
        is_better = is_open & is_ring & (np.bincount(ring_of[is_far], minlength=len(rings)) == 0)
        result[is_better] = simpler[is_better]
        is_open &= ~is_better
    return shapely.polygons(result[0], result[1:])


def _strips(shape: tuple[int, int], height_px: int | None) -> Iterator[tuple[int, int]]:
    height, width = shape
    step = height_px or max(1, STRIP_AREA_PX // width)
    for top in range(0, height, step):
        yield top, min(top + step, height)


class _Tracer:
    """Outlines one mask that comes strip by strip, from the top.

    Args:
        shape: (H, W) of the whole mask.
        min_pixels: regions with fewer pixels are left out.
    """

    def __init__(self, shape: tuple[int, int], min_pixels: int) -> None:
        self._height, width = shape
        self._min_pixels = min_pixels
        self._pieces = _Pieces()
        self._above = np.zeros(width, dtype=np.int64)  # index + 1 of the piece over each column of the seam, 0 for none

    def trace(self, values: np.ndarray, top: int) -> Iterator[Region]:
        """The regions that lie within this strip: uint8 ``(h, W)``, 0 outside the mask, from row `top` on."""
        below, touching = np.zeros_like(self._above), np.zeros_like(self._above)
        # Most of a slide is glass: labelling it would take longer than reading it.
        if values.any():
            is_first, is_last = top == 0, top + len(values) >= self._height
            cells = _Cells.of(values)
            labels, num_labels = ndimage.label(cells.values)
            open_labels = set() if is_first else set(labels[0][labels[0] > 0])
            open_labels |= set() if is_last else set(labels[-1][labels[-1] > 0])
            counts, sums = cells.counts_and_sums(labels, num_labels)
            dropped = np.flatnonzero(counts < self._min_pixels)
            keep = np.ones(num_labels + 1, dtype=bool)
            keep[[label for label in dropped if label not in open_labels]] = False
            keep[0] = False
            index_of = np.zeros(num_labels + 1, dtype=np.int64)
            for polygon, label in cells.outlines(labels, keep, top):
                if label not in open_labels:
                    yield Region(polygon, int(counts[label]), float(sums[label] / counts[label] / 255))
                    continue
                self._pieces.polygons.append(polygon)
                self._pieces.num_pixels.append(int(counts[label]))
                self._pieces.sums.append(float(sums[label]))
                index_of[label] = len(self._pieces.polygons)
            touching, below = (np.repeat(index_of[row], np.diff(cells.columns)) for row in (labels[0], labels[-1]))
        both = (self._above > 0) & (touching > 0)
        self._pieces.links.update(zip((self._above[both] - 1).tolist(), (touching[both] - 1).tolist(), strict=True))
        self._above = below

    def finish(self) -> Iterator[Region]:
        """The regions that reach over seams, after the last strip."""
        return _join(self._pieces, self._min_pixels)


@dataclass(frozen=True)
class _Cells:
    """A strip whose equal neighbouring rows, and columns, are taken together.

    Of glass, and of a network with one answer per tile, little is left then; what is computed is the same.

    Args:
        values: uint8 ``(m, n)``, of each cell.
        rows: where rows of cells begin, and the end of the last, in the strip's pixels: ``(m + 1,)``.
        columns: the same of the columns, ``(n + 1,)``.
    """

    values: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> _Cells:
        """The cells of a strip, uint8 ``(h, W)``."""
        rows = _runs(values)
        values = values[rows[:-1]]
        columns = _runs(values.T)
        return cls(values[:, columns[:-1]], rows, columns)

    def counts_and_sums(self, labels: np.ndarray, num_labels: int) -> tuple[np.ndarray, np.ndarray]:
        """The number of pixels of each label of ``(m, n)``, including 0, and the sum of their values."""
        is_inside = labels > 0
        inside = labels[is_inside]
        # As the floats that they become: numbers of pixels, which are exact.
        sizes = np.outer(np.diff(self.rows), np.diff(self.columns).astype(float))[is_inside]
        counts = np.bincount(inside, weights=sizes, minlength=num_labels + 1)
        sizes *= self.values[is_inside]
        return counts, np.bincount(inside, weights=sizes, minlength=num_labels + 1)

    def outlines(self, labels: np.ndarray, keep: np.ndarray, top: int) -> Iterator[tuple[Polygon, int]]:
        """Outline, in map pixels, and label of each region of ``(m, n)`` that `keep` has; the strip begins at row `top`."""
        found = rasterio.features.shapes(labels.astype(np.int32, copy=False), mask=keep[labels], connectivity=4)
        # Not all at once: a strip of noise has hundreds of thousands of points, which come as Python's numbers.
        while outlines := [(geometry["coordinates"], int(label)) for geometry, label in islice(found, OUTLINES_TOGETHER)]:
            yield from zip(self._polygons([rings for rings, _ in outlines], top), (label for _, label in outlines), strict=True)

    def _polygons(self, outlines: Sequence[Sequence[Any]], top: int) -> np.ndarray:
        """Polygons in map pixels of outlines in cells: of each its rings, the outline first and then the holes."""
        corners = [np.array(ring, dtype=np.int64) for rings in outlines for ring in rings]
        columns, rows = np.concatenate(corners).T
        points = np.stack([self.columns[columns], self.rows[rows] + top], axis=1)
        rings = shapely.linearrings(points, indices=np.repeat(np.arange(len(corners)), [len(ring) for ring in corners]))
        polygons: np.ndarray = shapely.polygons(
            rings, indices=np.repeat(np.arange(len(outlines)), [len(rings) for rings in outlines])
        )
        return polygons


def _runs(rows: np.ndarray) -> np.ndarray:
    """The first of each run of equal rows, and the number of rows.

    >>> _runs(np.array([[1, 2], [1, 2], [0, 2]]))
    array([0, 2, 3])
    """
    differs = (rows[1:] != rows[:-1]).any(axis=1)
    return np.concatenate([[0], np.flatnonzero(differs) + 1, [len(rows)]])


def _join(pieces: _Pieces, min_pixels: int) -> Iterator[Region]:
    """One region for each group of pieces that touch each other."""
    num_pieces = len(pieces.polygons)
    if not num_pieces:
        return
    links = np.array(sorted(pieces.links), dtype=np.int64).reshape(-1, 2)
    graph = sparse.coo_array((np.ones(len(links)), links.T), shape=(num_pieces, num_pieces))
    _, group_of = sparse.csgraph.connected_components(graph, directed=False)
    groups: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(group_of):
        groups[int(group)].append(index)
    for members in groups.values():
        num_pixels = sum(pieces.num_pixels[index] for index in members)
        if num_pixels < min_pixels:
            continue
        polygon = shapely.union_all([pieces.polygons[index] for index in members])
        # The union keeps the corners of the seam as points on straight lines; tolerance 0 takes only those.
        polygon = shapely.simplify(polygon, 0) if len(members) > 1 else polygon
        yield Region(polygon, num_pixels, sum(pieces.sums[index] for index in members) / num_pixels / 255)
