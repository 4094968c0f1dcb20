"""Slides with masks of several classes as patches centred on their lesions: manifest records, no pixel is copied."""

from __future__ import annotations

import math
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
from .centred_patches import centred_patches, patch_corner

# Level-0 pixels of a mask that are read at once, and pixels of a whole mask: 5 GB while its components are found.
_BLOCK_PX, _LARGEST_MASK_PX = 2**26, 2**28


def slide_patches(
    record: Record,
    size_px: int,
    mpp: float,
    num_classes: int = 2,
    class_names: Sequence[str] | None = None,
    min_tissue: float = 0.75,
    tissue: TissueCache | None = None,
    num_background: int = 0,
    size_by: str = "area",
    seed: int = 0,
) -> list[Record]:
    """The patches of one slide: see `centred_patches`, those with little tissue left out.

    Args:
        record: of a slide, with ``mask``: an image of class indices or an annotation file. ``case_id`` and ``split`` are passed
            on. A slide of label 0 needs no mask.
        size_px: side of a patch at `mpp`.
        mpp: micrometres per pixel at which the patches will be read, and at which components are looked for.
        num_classes: classes of the mask.
        class_names: the class of each index, for annotation files; see `read_record_mask`.
        min_tissue: patches with a smaller share of tissue are dropped (appendix B.1: 75 %).
        tissue: where to keep the slides' tissue and how to find it; None finds it now, by saturation as in appendix B.1, at 8 um
            per pixel.
        num_background: patches of class 0, of tissue without any lesion, drawn at random from a grid of patches side by side;
            fewer where there are not as many. The paper has none: more than 90 % of the pixels are background as it is.
        size_by: see `centred_patches`.
        seed: of k-means and of the background.

    Returns:
        Records with ``x, y, width_px, height_px`` in level-0 pixels and ``label``, from top to bottom. Of two patches at the same
        place the one of the larger component stays.

    Raises:
        ValueError: naming the row, for a slide or mask that cannot be read, a slide with lesions but no mask, or a mask that
            would have more than 2^28 pixels.
    """
    if record.get("mask") is None and record.get("label") != 0:
        raise record_error(record, "lesions can only be found in a mask, and the column 'mask' is empty")
    try:
        slide = open_slide(record["image"], mpp=record.get("mpp"))
        grid = TileGrid.for_mpp(slide.size_px, slide.mpp, size_px, mpp, 0, slide.level_downsamples)
        mask = _class_mask(record, slide, grid.downsample, num_classes, class_names)
        found = tissue.get(record["image"], record.get("mpp")) if tissue else find_tissue(slide, method="saturation")
        labels = _lesions(grid, mask, found, min_tissue, size_by, seed)
        labels |= dict.fromkeys(_background(grid, mask, found, min_tissue, num_background, seed), 0)
    except (ValueError, OSError) as error:
        raise record_error(record, error) from error
    extent = round(grid.tile_extent_px)
    return [
        {**part_of(record), "x": x, "y": y, "width_px": extent, "height_px": extent, "label": labels[x, y]}
        for x, y in sorted(labels, key=lambda place: (place[1], place[0]))
    ]


def _class_mask(
    record: Record, slide: Slide, downsample: float, num_classes: int, class_names: Sequence[str] | None
) -> NDArray[np.uint8]:
    """Class indices of a whole slide ``(H, W)`` at `downsample`, read in blocks: a mask of level 0 may not fit into memory."""
    width, height = (math.ceil(side / downsample) for side in slide.size_px)
    if width * height > _LARGEST_MASK_PX:
        raise ValueError(
            f"at {slide.mpp * downsample:g} um per pixel the mask would have {width} x {height} px, too many to find components "
            "in (2^28 at most): choose a larger mpp"
        )
    mask = np.zeros((height, width), dtype=np.uint8)
    if record.get("mask") is None:
        return mask
    block_px = max(1, int(math.sqrt(_BLOCK_PX) / downsample))
    for top in range(0, height, block_px):
        for left in range(0, width, block_px):
            block = mask[top : top + block_px, left : left + block_px]
            corner, size_px = (round(left * downsample), round(top * downsample)), (block.shape[1], block.shape[0])
            block[:] = read_record_mask(record, corner, size_px, slide.size_px, downsample, num_classes, class_names)
    return mask


def _lesions(
    grid: TileGrid, mask: NDArray[np.uint8], tissue: TissueMap, min_tissue: float, size_by: str, seed: int
) -> dict[tuple[int, int], int]:
    """The class of each centred patch with enough tissue, by its corner."""
    extent = round(grid.tile_extent_px)
    labels: dict[tuple[int, int], int] = {}
    for patch in sorted(centred_patches(mask, grid.tile_size_px, size_by, seed), key=lambda patch: -patch.component_px):
        labels.setdefault(patch_corner(patch, extent, grid.downsample, grid.slide_size_px), patch.label)
    shares = tissue.shares(np.array(list(labels), dtype=np.int64).reshape(-1, 2), extent)
    return {corner: label for (corner, label), share in zip(labels.items(), shares.tolist(), strict=True) if share >= min_tissue}


def _background(
    grid: TileGrid, mask: NDArray[np.uint8], tissue: TissueMap, min_tissue: float, count: int, seed: int
) -> list[tuple[int, int]]:
    """Corners of patches of the grid that lie on the slide, hold enough tissue and no lesion."""
    extent = round(grid.tile_extent_px)
    corners = grid.positions()
    corners = corners[(corners + extent <= np.array(grid.slide_size_px)).all(axis=1)]
    lesions = TissueMap(mask > 0, grid.downsample)
    corners = corners[(tissue.shares(corners, extent) >= min_tissue) & (lesions.shares(corners, extent) == 0)]
    chosen = np.random.default_rng(seed).permutation(len(corners))[:count]
    return [(int(x), int(y)) for x, y in corners[chosen]]
