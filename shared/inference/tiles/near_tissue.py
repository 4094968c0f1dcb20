"""Glass that shares a tile with tissue: the network's answers there mean nothing, and the map is 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# Lumens and the tissue's own outline stay in the map: what is cut is further from any tissue than this.
GLASS_UM = 50.0
# Glass is white. The masks of tissue leave out what is small or pale, which nothing may be cut from.
LEAST_WHITE = 220


@dataclass(frozen=True)
class NearTissue:
    """Where a map may be above 0.

    Args:
        cells: bool ``(h, w)``, each cell `factor` map pixels wide and high, from the map's top-left corner.
        factor: map pixels per cell.
    """

    cells: NDArray[np.bool_]
    factor: int

    @classmethod
    def of(cls, holds_tissue: NDArray[np.bool_], rgb: NDArray[np.uint8], factor: int, cell_um: float) -> NearTissue | None:
        """Everything up to `GLASS_UM`, and to one cell, from whatever is tissue or not white; None where that is the whole map.

        Args:
            holds_tissue: bool ``(h, w)``, where there is any tissue in a cell.
            rgb: picture of the cells, ``(h, w, 3)``.
            factor: map pixels per cell.
            cell_um: micrometres per cell.
        """
        is_glass = ~holds_tissue & (rgb.min(axis=2) >= LEAST_WHITE)
        far_um = max(GLASS_UM, 1.5 * cell_um)  # 1.5 cells: the neighbours at the corners too
        cells = ndimage.distance_transform_edt(is_glass) * cell_um <= far_um
        return None if cells.all() else cls(cells, factor)

    def keep(self, core: NDArray[np.uint8], top: int, left: int) -> NDArray[np.uint8]:
        """A part ``(C, h, w)`` of the map, whose first pixel is in row `top` and column `left`, with 0 on glass."""
        rows, columns = (
            (np.arange(start, start + length) // self.factor).clip(max=most - 1)
            for start, length, most in zip((top, left), core.shape[1:], self.cells.shape, strict=True)
        )
        inside = self.cells[np.ix_(rows, columns)]
        return core if inside.all() else core * inside
