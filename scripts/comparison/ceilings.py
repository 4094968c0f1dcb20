"""What a method could score whose labels were all right: true labels painted over whole images, and over squares of them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shared.data.patches.tissue_regions import label_of_mask
from shared.data.record import label_of
from shared.evaluation.maps.scoring_grid import ScoringGrid
from shared.inference.outputs.map_file import MapFile

# Instances a side of an image.
INSTANCES_PER_SIDE = 4
CEILINGS = {
    "true_labels": "Ceiling: true {unit} labels everywhere",
    "true_instances": "Ceiling: true labels of {instances}",
}


@dataclass(frozen=True)
class CeilingGrid(ScoringGrid):
    """A grid whose decisions are made from the truth and not from a map.

    Attributes:
        cell_px: (height, width) in pixels of the grid of the cells that get one label each; None for one label of the record.
    """

    cell_px: tuple[float, float] | None = None

    def decisions(self, source: MapFile | None, top: int, height: int) -> NDArray[np.uint8]:
        """As of a map that is sure, ``(1, height, W)`` or ``(2, height, W)``."""
        return self._painted[:, top : top + height].copy()

    @cached_property
    def _painted(self) -> NDArray[np.uint8]:
        truth = self.truth(0, self.shape[0])
        classes = self._one_label(truth) if self.cell_px is None else self._label_a_cell(truth, self.cell_px)
        sure = np.where(classes > 0, 255, 0).astype(np.uint8)
        return np.stack([sure] if self.num_classes == 2 else [sure, classes])

    def _one_label(self, truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
        label = label_of_mask(truth) if self.record["label"] is None else label_of(self.record)
        return np.full(self.shape, label, np.uint8)

    def _label_a_cell(self, truth: NDArray[np.uint8], cell_px: tuple[float, float]) -> NDArray[np.uint8]:
        rows, columns = (
            np.unique([*(round(step * side) for step in range(math.ceil(length / side))), length])
            for side, length in zip(cell_px, self.shape, strict=True)
        )
        classes = np.zeros(self.shape, np.uint8)
        for top, bottom in itertools.pairwise(rows):
            for left, right in itertools.pairwise(columns):
                classes[top:bottom, left:right] = label_of_mask(truth[top:bottom, left:right])
        return classes
