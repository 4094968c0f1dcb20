"""The one scorer of maps: from map, truth and tissue to counts of pixels, in memory that does not grow with the slide."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...metrics.classes import confusion_matrix
from ...metrics.ranking import counts_at, roc_auc_of_histograms, score_histograms
from ..report import number, pooled_scores
from .scoring_grid import RowsOfDecisions, ScoringGrid, StripTissue

PARTS = ("tissue", "all")


@dataclass(frozen=True)
class MapCounts:
    """Counts of the pixels of a map, of each of `PARTS`: in tissue, and with the background.

    Tumour is all that is not class 0. AUCs from these histograms are exact: a map has 256 values.

    Attributes:
        histograms: how often each value 0 to 255 occurs among normal and among tumour pixels, ``(2, 256)``.
        confusions: true class down ``(C, C)``; empty for maps of tumour.
    """

    histograms: dict[str, Tensor]
    confusions: dict[str, Tensor]

    @classmethod
    def pooled(cls, counts: Iterable[MapCounts]) -> MapCounts:
        """The sum over maps."""
        maps = list(counts)
        return cls(
            {part: torch.stack([one.histograms[part] for one in maps]).sum(0) for part in PARTS},
            {part: torch.stack([one.confusions[part] for one in maps]).sum(0) for part in maps[0].confusions},
        )

    def of_zero(self) -> MapCounts:
        """The counts of a map of tumour that says 0 at the same pixels."""
        return MapCounts({part: at_zero(found) for part, found in self.histograms.items()}, {})

    def decided(self, part: str, least: int) -> Tensor:
        """Tp, fp, fn, tn, int64 ``(4,)``: tumour is a value of at least `least`; of several classes what is likeliest decides."""
        if self.confusions:
            return tumour_counts(self.confusions[part])
        return counts_at(self.histograms[part], least)

    def auc(self, part: str) -> float | None:
        return number(roc_auc_of_histograms(self.histograms[part]))

    def scores(self, part: str, least: int = 0) -> dict[str, float | None]:
        """The AUC, and `pooled_scores` of what is `decided`."""
        return {"auc": self.auc(part), **pooled_scores(self.decided(part, least))}


def count_pixels(grid: ScoringGrid, source: RowsOfDecisions | None, tissue: StripTissue, with_glass: bool = False) -> MapCounts:
    """Count the pixels of a grid.

    Args:
        grid: with the truth.
        source: the map; None for a grid whose decisions come from elsewhere.
        tissue: of the grid's strips.
        with_glass: what the map says of the background counts too; else the background scores 0, and is of class 0.
    """
    num_classes = grid.num_classes
    histograms = {part: torch.zeros(2, 256, dtype=torch.int64) for part in PARTS}
    sums = {part: torch.zeros(num_classes, num_classes, dtype=torch.int64) for part in PARTS if num_classes > 2}
    for top, height in grid.strips():
        truth, is_tissue = torch.from_numpy(grid.truth(top, height)), torch.from_numpy(tissue(top, height))
        seen = torch.from_numpy(grid.decisions(source, top, height))
        if not with_glass:
            seen.masked_fill_(~is_tissue, 0)
        for part, kept in (("tissue", is_tissue), ("all", slice(None))):
            histograms[part] += score_histograms(seen[0][kept], truth[kept] > 0)
            if part in sums:
                sums[part] += confusion_matrix(seen[1][kept], truth[kept], num_classes)
    return MapCounts(histograms, sums)


def means_of_slides(slides: Sequence[MapCounts], part: str, least: int) -> dict[str, float | None]:
    """``mean_slide_auc`` and ``mean_slide_iou``: each slide's own AUC and IoU, means over the slides with tumour in a part.

    Args:
        slides: counts of one slide each.
        part: of `PARTS`.
        least: value from which a map says tumour.
    """
    with_tumour = [one for one in slides if one.histograms[part][1].any()]
    if not with_tumour:
        return {"mean_slide_auc": None, "mean_slide_iou": None}
    aucs = torch.stack([roc_auc_of_histograms(one.histograms[part]) for one in with_tumour])
    tp, fp, fn, _ = torch.stack([one.decided(part, least) for one in with_tumour]).double().unbind(1)
    # A slide that is tumour everywhere has an IoU, and no AUC.
    return {"mean_slide_auc": number(aucs.nanmean()), "mean_slide_iou": number((tp / (tp + fp + fn)).mean())}


def at_zero(histograms: Tensor) -> Tensor:
    """Histograms ``(2, 256)`` with all that they count at the value 0.

    >>> at_zero(torch.tensor([[1, 2, 0], [0, 4, 1]]))
    tensor([[3, 0, 0],
            [5, 0, 0]])
    """
    moved = torch.zeros_like(histograms)
    moved[:, 0] = histograms.sum(dim=1)
    return moved


def least_value(threshold: float) -> int:
    """The smallest value of a map, 0 to 255, that is at least a probability.

    >>> least_value(0.5), least_value(0.2), least_value(1.0)
    (128, 51, 255)
    """
    return math.ceil(255 * threshold - 1e-9)


def tumour_counts(confusion: Tensor) -> Tensor:
    """Tp, fp, fn, tn of "not class 0", ``(4,)``, from a confusion matrix, true class down.

    >>> tumour_counts(torch.tensor([[5, 1, 0], [2, 3, 1], [0, 1, 4]]))
    tensor([9, 1, 2, 5])
    """
    return torch.stack([confusion[1:, 1:].sum(), confusion[0, 1:].sum(), confusion[1:, 0].sum(), confusion[0, 0]])
