"""What a method could score whose labels were all right: true labels painted over whole images, and over squares of them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shared.data.patches.tissue_regions import label_of_counts
from shared.data.record import label_of
from shared.evaluation.maps.scoring_grid import RowsOfDecisions, ScoringGrid

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

    def decisions(self, source: RowsOfDecisions | None, top: int, height: int) -> NDArray[np.uint8]:
        """The values of a fully confident map, ``(1, height, W)`` or ``(2, height, W)``."""
        down, across = (
            np.searchsorted(edges, np.arange(start, start + count), side="right") - 1
            for edges, start, count in zip(self._edges, (top, 0), (height, self.shape[1]), strict=True)
        )
        classes = self._labels[np.ix_(down, across)]
        sure = (classes > 0).astype(np.uint8) * np.uint8(255)
        return np.stack([sure] if self.num_classes == 2 else [sure, classes])

    @cached_property
    def _edges(self) -> list[NDArray[np.int64]]:
        """Where cells begin and the last one ends, of the rows and of the columns."""
        return [
            np.unique([*(round(step * side) for step in range(math.ceil(length / side))), length])
            for side, length in zip(self.cell_px or self.shape, self.shape, strict=True)
        ]

    @cached_property
    def _labels(self) -> NDArray[np.uint8]:
        """Labels of the cells."""
        if self.cell_px is None and self.record["label"] is not None:
            return np.full((1, 1), label_of(self.record), np.uint8)
        rows, columns = self._edges
        counts = np.zeros((len(rows) - 1, len(columns) - 1, self.num_classes), np.int64)
        # The truth of a whole slide is larger than memory.
        for top, height in self.strips():
            truth = self.truth(top, height)
            for row, (first, last) in enumerate(itertools.pairwise(rows)):
                part = truth[max(0, first - top) : max(0, last - top)]
                for column, (left, right) in enumerate(itertools.pairwise(columns) if len(part) else ()):
                    counts[row, column] += np.bincount(part[:, left:right].ravel(), minlength=self.num_classes)
        return np.apply_along_axis(label_of_counts, 2, counts).astype(np.uint8)
