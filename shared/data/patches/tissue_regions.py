"""Whole slides cut into the labelled images that CAMEL and CDWS-MIL train on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...geometry.tile_grid import TileGrid
from ...wsi.slide import Slide
from ...wsi.slide_pool import open_slide
from ...wsi.tissue.tissue_map import TissueMap, find_tissue
from ..record import Record, part_of, record_error
from ..record_masks import read_record_mask
from ..tissue_cache import TissueCache

_THUMBNAIL_PX = 2048


def slide_regions(
    record: Record,
    size_px: int,
    mpp: float,
    min_tissue: float = 0.5,
    stride_px: int = 0,
    tissue: TissueCache | None = None,
    num_classes: int = 2,
    class_names: Sequence[str] | None = None,
) -> list[Record]:
    """The tissue regions of one slide as manifest records, labelled from its mask.

    Regions lie on a grid, do not overlap (unless `stride_px` says so) and lie wholly inside the slide. A region's label is
    1 if its mask holds any tumour (CAMEL, section 4.1), and its ``area`` is the tumour share of the region. Of several classes
    the label is the one above 0 that covers most of the region, the higher one of two alike, and the area that of all above 0.
    Without a mask every region of a normal slide is 0.

    Args:
        record: of a slide, with ``label`` or ``mask``; ``case_id`` and ``split`` are passed on.
        size_px: side of a region at `mpp`.
        mpp: micrometres per pixel at which the regions will be read.
        min_tissue: regions with a smaller share of tissue are left out.
        stride_px: step at `mpp`; 0 for `size_px`.
        tissue: where to keep the slides' tissue and how to find it; None finds it now, in a thumbnail of 2048 px.
        num_classes: of the masks; two are 0 and whatever is above it.
        class_names: the class of each index in annotation files, see `read_record_mask`.

    Returns:
        Records with ``x, y, width_px, height_px`` in level-0 pixels.

    Raises:
        ValueError: naming the row, for a slide that cannot be read, or a tumour slide without a mask: its regions have no labels.
    """
    if record.get("mask") is None and record.get("label") != 0:
        raise record_error(
            record, "regions of a slide with tumour can only be labelled by its mask, and the column 'mask' is empty"
        )
    try:
        slide = open_slide(record["image"], mpp=record.get("mpp"))
        grid = TileGrid.for_mpp(slide.size_px, slide.mpp, size_px, mpp, stride_px, slide.level_downsamples)
        found = tissue.get(record["image"], record.get("mpp")) if tissue else _tissue_of_thumbnail(slide)
        shares = found.shares(grid.positions(), grid.tile_extent_px)
        extent = round(grid.tile_extent_px)
        regions: list[Record] = []
        for (x, y), share in zip(grid.positions().tolist(), shares.tolist(), strict=True):
            if share < min_tissue or x + extent > slide.size_px[0] or y + extent > slide.size_px[1]:
                continue
            area, label = 0.0, 0
            if record.get("mask") is not None:
                mask = read_record_mask(record, (x, y), size_px, slide.size_px, grid.downsample, num_classes, class_names)
                area, label = float((mask > 0).mean()), label_of_mask(mask)
            region: Record = {**part_of(record), "x": x, "y": y, "width_px": extent, "height_px": extent}
            regions.append({**region, "label": label, "area": max(round(area, 4), 1e-4) if area else 0.0})
    except (ValueError, OSError) as error:
        raise record_error(record, error) from error
    return regions


def label_of_mask(mask: NDArray[np.uint8]) -> int:
    """The label of an image by its mask: the class above 0 with the most pixels, of those alike the highest; else 0."""
    return label_of_counts(np.bincount(mask.ravel(), minlength=2))


def label_of_counts(counts: NDArray[np.int64]) -> int:
    """`label_of_mask` by the mask's number of pixels of each class, ``(C,)``."""
    above = counts[:0:-1]
    return int(len(above) - above.argmax()) if above.any() else 0


def _tissue_of_thumbnail(slide: Slide) -> TissueMap:
    return find_tissue(slide, slide.mpp * max(1.0, max(slide.size_px) / _THUMBNAIL_PX))
