"""Masks from annotations: only the requested region is ever an array."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from .annotation import Annotation, polygons_of
from .annotation_classes import class_indices
from .drawing_order import drawn_areas


class AnnotationMask:
    """Class indices of a slide's pixels, drawn from its annotations region by region.

    A pixel belongs to an area when its centre lies in it. Where areas overlap, the smaller one is on top, so that a class that
    is nested in another is seen, see `drawn_areas`. Exclusions become 0 wherever they are in the file: those of an ImageScope
    layer (NegativeROA) uncover what other layers have there, those by name make the slide 0 there. Memory grows with the
    outlines and the region, not with the slide.

    Args:
        annotations: of the slide, see `read_annotations`.
        num_classes: classes, from 2 to 255; 0 is where nothing is annotated.
        class_names: the class of each index, see `class_indices`.
        tumour_classes: without `class_names`: the classes that are tumour, see `class_indices`.
        needs_tumour: see `class_indices`.

    Attributes:
        is_empty: whether there is no area of a class above 0.
        only_class: the class that all areas are of, where neither `class_names` nor `tumour_classes` says what classes mean;
            None where they do, and where nothing is annotated.

    Raises:
        ValueError: see `class_indices`.
    """

    def __init__(
        self,
        annotations: Sequence[Annotation],
        num_classes: int = 2,
        class_names: Sequence[str] | None = None,
        tumour_classes: Collection[str] | None = None,
        needs_tumour: bool = False,
    ) -> None:
        indices = class_indices(annotations, num_classes, class_names, tumour_classes, needs_tumour)
        areas = drawn_areas(annotations, indices)
        self.is_empty = not any(index for _, index in areas)
        bases = [annotation.base_class for annotation in annotations if not annotation.is_exclusion]
        self.only_class = bases[0] if bases and class_names is None and tumour_classes is None else None
        everywhere = [annotation.polygon for annotation in annotations if annotation.is_exclusion and annotation.layer is None]
        self._values = [index for _, index in areas] + [0] * len(everywhere)
        self._tree = shapely.STRtree([polygon for polygon, _ in areas] + everywhere)

    def read(self, xy: tuple[int, int], size_px: tuple[int, int], downsample: float = 1.0) -> NDArray[np.uint8]:
        """A region.

        Args:
            xy: its top-left corner in level-0 pixels, anywhere.
            size_px: (width, height) of the result.
            downsample: level-0 pixels per pixel of the result.

        Returns:
            ``(height, width)`` class indices.
        """
        # Most manifests have no annotation files, and are read without it.
        import rasterio.features
        from rasterio.transform import Affine

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
        found = [
            (polygon, self._values[hit]) for hit, part in zip(hits.tolist(), parts, strict=True) for polygon in polygons_of(part)
        ]
        if found:
            rasterio.features.rasterize(found, out=mask, transform=Affine(downsample, 0, left, 0, downsample, top))
        return mask
