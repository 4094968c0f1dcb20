"""Exact polygons of a map of any size: strip by strip, joined across the seams."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import rasterio.features
import shapely
from rasterio.transform import Affine
from scipy import ndimage, sparse
from shapely.geometry import Polygon, shape

from ..writers import RowSource

STRIP_AREA_PX = 2**21  # map pixels looked at together; labels and sums take about 30 bytes a pixel


@dataclass(frozen=True)
class Region:
    """One 4-connected area at or above the threshold: outline with holes as (x, y) in map pixels, its size and mean."""

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
    height, width = source.shape
    strip_height_px = strip_height_px or max(1, STRIP_AREA_PX // width)
    pieces = _Pieces()
    above = np.zeros(width, dtype=np.int64)  # index + 1 of the piece over each column of the seam, 0 for none
    for top in range(0, height, strip_height_px):
        rows = source.read_rows(top, min(top + strip_height_px, height))
        below = np.zeros(width, dtype=np.int64)
        touching = np.zeros(width, dtype=np.int64)
        labels, num_labels = ndimage.label(rows >= 255 * threshold)
        if num_labels:
            is_last = top + len(rows) >= height
            open_labels = set(labels[0][labels[0] > 0]) if top else set()
            open_labels |= set() if is_last else set(labels[-1][labels[-1] > 0])
            counts = np.bincount(labels.ravel(), minlength=num_labels + 1)
            sums = np.bincount(labels.ravel(), weights=rows.ravel(), minlength=num_labels + 1)
            dropped = np.flatnonzero(counts < min_pixels)
            keep = np.ones(num_labels + 1, dtype=bool)
            keep[[label for label in dropped if label not in open_labels]] = False
            keep[0] = False
            index_of = np.zeros(num_labels + 1, dtype=np.int64)
            for polygon, label in _outlines(labels, keep, top):
                if label not in open_labels:
                    yield Region(polygon, int(counts[label]), float(sums[label] / counts[label] / 255))
                    continue
                pieces.polygons.append(polygon)
                pieces.num_pixels.append(int(counts[label]))
                pieces.sums.append(float(sums[label]))
                index_of[label] = len(pieces.polygons)
            touching, below = index_of[labels[0]], index_of[labels[-1]]
        both = (above > 0) & (touching > 0)
        pieces.links.update(zip((above[both] - 1).tolist(), (touching[both] - 1).tolist(), strict=True))
        above = below
    yield from _join(pieces, min_pixels)


def _outlines(labels: np.ndarray, keep: np.ndarray, top: int) -> Iterator[tuple[Polygon, int]]:
    shapes = rasterio.features.shapes(
        labels.astype(np.int32), mask=keep[labels], connectivity=4, transform=Affine.translation(0, top)
    )
    for geometry, label in shapes:
        yield shape(geometry), int(label)


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
