"""Whole slides cut into the labelled images that CAMEL and CDWS-MIL train on."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..geometry import TileGrid
from ..wsi import Slide, open_slide, read_mask_region, tissue_mask
from .regions import record_error

Record = dict[str, Any]

_THUMBNAIL_PX = 2048


def slide_regions(record: Record, size_px: int, mpp: float, min_tissue: float = 0.5, stride_px: int = 0) -> list[Record]:
    """The tissue regions of one slide as manifest records, labelled from its mask.

    Regions lie on a grid, do not overlap (unless `stride_px` says so) and lie wholly inside the slide. A region's label is
    1 if its mask holds any tumour (CAMEL, section 4.1), and its ``area`` is the tumour share of the region. Without a mask
    every region of a normal slide is 0.

    Args:
        record: of a slide, with ``label`` or ``mask``; ``case_id`` and ``split`` are passed on.
        size_px: side of a region at `mpp`.
        mpp: micrometres per pixel at which the regions will be read.
        min_tissue: regions with a smaller share of tissue are left out.
        stride_px: step at `mpp`; 0 for `size_px`.

    Returns:
        Records with ``x, y, width_px, height_px`` in level-0 pixels.

    Raises:
        ValueError: naming the row, for a slide that cannot be read, or a tumour slide without a mask: its regions have no labels.
    """
    if record.get("mask") is None and record.get("label") != 0:
        raise record_error(record, "a slide with tumour needs a mask to label its regions; column 'mask' is empty")
    try:
        slide = open_slide(record["image"], mpp=record.get("mpp"))
        grid = TileGrid.for_mpp(slide.size_px, slide.mpp, size_px, mpp, stride_px, slide.level_downsamples)
        tissue = _tissue_shares(slide, grid)
        extent = round(grid.tile_extent_px)
        regions = []
        for (x, y), share in zip(grid.positions().tolist(), tissue.tolist(), strict=True):
            if share < min_tissue or x + extent > slide.size_px[0] or y + extent > slide.size_px[1]:
                continue
            area = 0.0
            if record.get("mask") is not None:
                mask = read_mask_region(record["mask"], (x, y), size_px, slide.size_px, grid.downsample, record["image"])
                area = float(mask.mean())
            kept = {name: record.get(name) for name in ("image", "mpp", "mask", "case_id", "split")}
            place = {"x": x, "y": y, "width_px": extent, "height_px": extent}
            regions.append({**kept, **place, "label": int(area > 0), "area": max(round(area, 4), 1e-4) if area else 0.0})
    except (ValueError, OSError) as error:
        raise record_error(record, error) from error
    return regions


def _tissue_shares(slide: Slide, grid: TileGrid) -> np.ndarray:
    """Share of tissue in each tile of the grid ``(num_tiles,)``, from a thumbnail."""
    thumbnail = slide.thumbnail(_THUMBNAIL_PX)
    # An integral image gives every tile's sum in constant time.
    sums = np.pad(tissue_mask(thumbnail).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    scale = np.array([thumbnail.shape[1] / slide.size_px[0], thumbnail.shape[0] / slide.size_px[1]])
    limit = np.array([thumbnail.shape[1], thumbnail.shape[0]])
    start = np.clip(np.floor(grid.positions() * scale).astype(int), 0, limit - 1)
    stop = np.clip(np.ceil((grid.positions() + grid.tile_extent_px) * scale).astype(int), start + 1, limit)
    (x0, y0), (x1, y1) = start.T, stop.T
    inside = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return inside / ((x1 - x0) * (y1 - y0))
