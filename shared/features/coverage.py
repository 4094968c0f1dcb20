"""Whether the cells that are stored of a slide are those of its tissue as it is found now."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..wsi.tissue.tissue_map import TissueMap
from .slide_features import SlideFeatures

# Share of the tissue's cells that may be missing.
COVERAGE_TOLERANCE = 0.02
# Cells whose tissue is looked up at once.
_CELLS_AT_ONCE = 2**20


def cell_shares(tissue: TissueMap, grid_shape: tuple[int, int], stride_px: float) -> NDArray[np.float32]:
    """Share of tissue in each cell of a slide.

    Args:
        tissue: of the slide.
        grid_shape: (rows, columns) of its cells; cell (0, 0) begins at its corner.
        stride_px: side of a cell in level-0 pixels.

    Returns:
        ``(rows, columns)``.
    """
    rows, columns = grid_shape
    shares = np.empty((rows, columns), np.float32)
    step = max(1, _CELLS_AT_ONCE // columns)
    for top in range(0, rows, step):
        row, column = np.indices((min(step, rows - top), columns)).reshape(2, -1)
        corners = np.stack([column, top + row], axis=1) * stride_px
        shares[top : top + step] = tissue.shares(corners, stride_px).reshape(-1, columns)
    return shares


def missing_cells(features: SlideFeatures, tissue: TissueMap, min_tissue: float = 0.5) -> tuple[int, int]:
    """How many of the cells with enough tissue are not stored, and how many there are.

    Args:
        features: of this project, whose cells begin at the slide's corner.
        tissue: of the slide as it is found now.
        min_tissue: least share of tissue in a cell, in (0, 1].
    """
    is_wanted = cell_shares(tissue, features.grid_shape, features.stride_px) >= min_tissue
    is_stored = features.lay_out(np.ones(len(features), dtype=bool), fill=False)
    return int((is_wanted & ~is_stored).sum()), int(is_wanted.sum())
