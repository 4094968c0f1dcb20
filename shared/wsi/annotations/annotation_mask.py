"""Masks from annotations: only the region asked for is ever an array."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray
from rasterio.transform import Affine
from shapely.geometry import Polygon

from .annotation import Annotation, polygons_of
from .reading import plain_name

_NOTHING = 255


class AnnotationMask:
    """Class indices of a slide's pixels, drawn from its annotations region by region.

    A pixel belongs to an area when its centre lies in it. Where areas overlap, the later one in the file is on top, so a class
    that is nested in another must stand behind it. Exclusions become 0 wherever in the file they stand: those of an ImageScope
    layer (NegativeROA) uncover what lies below their layer, those by name make the slide 0 there. Memory grows with the
    outlines and the region, not with the slide.

    Args:
        annotations: of the slide, see `read_annotations`.
        num_classes: classes, from 2 to 255; 0 is where nothing is annotated.
        class_names: the class of each index; case and blanks do not count. None, with two classes: every area is 1.

    Raises:
        ValueError: if `num_classes` is out of range, `class_names` are not as many or not distinct, or an annotation has another
            class.
    """

    def __init__(self, annotations: Sequence[Annotation], num_classes: int = 2, class_names: Sequence[str] | None = None) -> None:
        self._annotations = list(annotations)
        self._indices = _class_indices(self._annotations, num_classes, class_names)
        self._tree = shapely.STRtree([annotation.polygon for annotation in self._annotations])

    def read(self, xy: tuple[int, int], size_px: tuple[int, int], downsample: float = 1.0) -> NDArray[np.uint8]:
        """A region.

        Args:
            xy: its top-left corner in level-0 pixels, anywhere.
            size_px: (width, height) of the result.
            downsample: level-0 pixels per pixel of the result.

        Returns:
            ``(height, width)`` class indices.
        """
        width, height = size_px
        mask = np.zeros((height, width), dtype=np.uint8)
        # At an even downsample the centre falls between two pixels of level 0. The next one stands for it, as in a mask file.
        shift = 0.5 if downsample % 2 == 0 else 0.0
        left, top = xy[0] + shift, xy[1] + shift
        right, bottom = left + width * downsample, top + height * downsample
        hits = np.sort(self._tree.query(shapely.box(left, top, right, bottom)))
        # Of an outline of 100 000 points a region needs a few hundred, and only those are quick to draw.
        parts = shapely.clip_by_rect(
            self._tree.geometries[hits], left - downsample, top - downsample, right + downsample, bottom + downsample
        )
        transform = Affine(downsample, 0, left, 0, downsample, top)
        found = [
            _Hit(self._annotations[index], self._indices[index], polygons_of(part))
            for index, part in zip(hits.tolist(), parts, strict=True)
        ]
        in_layers = [hit for hit in found if not hit.counts_everywhere]
        for _, layer in itertools.groupby(in_layers, key=lambda hit: hit.annotation.layer):
            _paint_layer(mask, list(layer), transform)
        everywhere = [hit for hit in found if hit.counts_everywhere]
        _paint(mask, everywhere, 0, transform)
        return mask


class _Hit(NamedTuple):
    """An annotation, its class index, and what of it lies in a region."""

    annotation: Annotation
    class_index: int
    polygons: list[Polygon]

    @property
    def counts_everywhere(self) -> bool:
        """Whether it is an exclusion from all layers."""
        return self.annotation.is_exclusion and self.annotation.layer is None


def _paint_layer(mask: NDArray[np.uint8], layer: Sequence[_Hit], transform: Affine) -> None:
    holes = [hit for hit in layer if hit.annotation.is_exclusion]
    areas = [hit for hit in layer if not hit.annotation.is_exclusion]
    if not holes:
        _paint(mask, areas, None, transform)
    elif areas:
        painted = np.full_like(mask, _NOTHING)
        _paint(painted, areas, None, transform)
        _paint(painted, holes, _NOTHING, transform)
        np.copyto(mask, painted, where=painted != _NOTHING)


def _paint(mask: NDArray[np.uint8], hits: Sequence[_Hit], value: int | None, transform: Affine) -> None:
    """Draw hits in their order, with one value or (None) each with its class index."""
    areas = [(polygon, hit.class_index if value is None else value) for hit in hits for polygon in hit.polygons]
    if areas:
        rasterio.features.rasterize(areas, out=mask, transform=transform)


def _class_indices(annotations: Sequence[Annotation], num_classes: int, class_names: Sequence[str] | None) -> list[int]:
    """The class index of each annotation; 0 for exclusions."""
    check_classes(num_classes, class_names)
    if class_names is None:
        if num_classes > 2:
            raise ValueError(f"annotations of {num_classes} classes need class_names: a name for each index from 0")
        return [int(not annotation.is_exclusion) for annotation in annotations]
    index_of = {plain_name(name): index for index, name in enumerate(class_names)}
    indices = []
    for annotation in annotations:
        index = 0 if annotation.is_exclusion else index_of.get(plain_name(annotation.class_name))
        if index is None:
            name = f"the class {annotation.class_name!r}" if annotation.class_name else "no class"
            raise ValueError(f"{annotation.place} has {name}, wanted one of {', '.join(map(repr, class_names))} (class_names)")
        indices.append(index)
    return indices


def check_classes(num_classes: int, class_names: Sequence[str] | None) -> None:
    """Check that classes and their names agree.

    Raises:
        ValueError: as `AnnotationMask`.
    """
    if not 2 <= num_classes <= _NOTHING:
        raise ValueError(f"num_classes must be from 2 to {_NOTHING}, got {num_classes}")
    if class_names is None:
        return
    distinct = {plain_name(name) for name in class_names}
    if isinstance(class_names, str) or not len(distinct) == len(class_names) == num_classes:
        raise ValueError(f"class_names must be {num_classes} different names, got {class_names!r}")
