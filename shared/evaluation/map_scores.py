"""Scores of finished tumour maps against masks or annotation files, in memory that grows with no slide and no cohort."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..data.image_dataset import record_error
from ..data.tissue_cache import TissueCache
from ..inference.outputs.map_file import MapFile
from ..metrics.binary import binary_scores
from ..metrics.ranking import counts_at, roc_auc, roc_auc_of_histograms, score_histograms
from ..writers.ome_tiff import reduced_strips
from .lesion_froc import FrocSlide, MapFROC
from .map_cohort import MapCohort, Record, slide_name
from .report import COUNTS, number

PARTS = ("tissue", "all")


class MapScores:
    """Pixel scores, AUCs and FROC of the maps in a folder that `SlideMapper` has filled.

    Pixels are those of the maps, scored twice: in tissue only, and with the background, which scores 0 whatever the map says of
    it. AUCs are exact for the 256 values that a map can have.

    Args:
        maps: the folder, with its ``slides.csv``.
        records: of whole slides, see `load_manifest`. Those with a mask and those with label 0 are scored, others left out.
        tissue: where the slides' tissue is found.
        threshold: probability from which a map pixel is tumour.
        froc_mpp: micrometres per pixel, about, of the grid on which lesions are looked for; CAMELYON16's level 6 is 15.6.
        allow_missing: leave out slides that have no finished map; they are an error otherwise.

    Raises:
        ValueError: for rows that are no whole slides, maps that are missing, and where nothing is left to score.
    """

    def __init__(
        self,
        maps: str | Path,
        records: Sequence[Record],
        tissue: TissueCache,
        threshold: float = 0.5,
        froc_mpp: float = 16.0,
        allow_missing: bool = False,
    ) -> None:
        if not 0 < threshold <= 1 or froc_mpp <= 0:
            raise ValueError(f"need 0 < threshold <= 1 and froc_mpp > 0, got {threshold=}, {froc_mpp=}")
        self.cohort = MapCohort(maps, records, tissue, allow_missing=allow_missing)
        self.froc_mpp = froc_mpp
        self.threshold, self._least_score = threshold, math.ceil(255 * threshold - 1e-9)

    def run(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Metrics of the cohort, and a row a slide.

        Raises:
            ValueError: naming manifest, row and file of a mask, a map or a slide that cannot be read.
        """
        self.cohort.check_masks()
        pooled = {part: torch.zeros(2, 256, dtype=torch.int64) for part in PARTS}
        rows = []
        for record in tqdm(self.cohort.records, "scoring maps", unit="slide", disable=None):
            histograms = self._checked_histograms(record)
            for part in PARTS:
                pooled[part] += histograms[part]
            rows.append(self._slide_row(record, histograms))
        froc = MapFROC([self._froc_slide(record) for record in self.cohort.records]).scores()
        return self._metrics(pooled, rows) | {"lesions": froc}, rows

    def _slide_row(self, record: Record, histograms: Mapping[str, Tensor]) -> dict[str, Any]:
        """What one slide scores; its own score is the share of its tissue that is tumour on the map."""
        counts = counts_at(histograms["tissue"], self._least_score)
        num_pixels = int(counts.sum())
        return {
            "slide": slide_name(record),
            "label": record["label"],
            "score": float(counts[:2].sum()) / num_pixels if num_pixels else 0.0,
            "tissue_auc": number(roc_auc_of_histograms(histograms["tissue"])),
            "auc": number(roc_auc_of_histograms(histograms["all"])),
            **dict(zip(COUNTS, counts.tolist(), strict=True)),
            **{name: number(score) for name, score in binary_scores(counts).items()},
        }

    def _metrics(self, pooled: Mapping[str, Tensor], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        labelled = [row for row in rows if row["label"] is not None]
        scores = torch.tensor([row["score"] for row in labelled])
        labels = torch.tensor([int(row["label"] > 0) for row in labelled])
        metrics: dict[str, Any] = {
            "num_slides": len(rows),
            "num_missing": self.cohort.num_missing,
            "num_without_truth": self.cohort.num_without_truth,
            "threshold": self.threshold,
            "slides": {"auc": number(roc_auc(scores, labels)) if labelled else None},
        }
        for part in PARTS:
            counts = counts_at(pooled[part], self._least_score)
            metrics[f"pixels_{part}"] = {
                "auc": number(roc_auc_of_histograms(pooled[part])),
                **{name: number(score) for name, score in binary_scores(counts).items()},
            }
        return metrics

    def _checked_histograms(self, record: Record) -> dict[str, Tensor]:
        try:
            return self._histograms(record)
        except (ValueError, OSError) as error:
            raise record_error(record, error) from error

    def _histograms(self, record: Record) -> dict[str, Tensor]:
        """Of tissue and of all pixels, ``(2, 256)`` each."""
        total = {part: torch.zeros(2, 256, dtype=torch.int64) for part in PARTS}
        with MapFile(self.cohort.path(record)) as probability:
            for top, truth, tissue in self.cohort.strips(record, probability.shape):
                values = torch.from_numpy(probability.read_rows(top, top + len(truth)))
                is_tissue, is_tumour = torch.from_numpy(tissue), torch.from_numpy(truth)
                total["tissue"] += score_histograms(values[is_tissue], is_tumour[is_tissue])
                total["all"] += score_histograms(values.masked_fill(~is_tissue, 0), is_tumour)
        return total

    def _froc_slide(self, record: Record) -> FrocSlide:
        path, map_mpp = self.cohort.path(record), self.cohort.map_mpp(record)
        factor = max(1, round(self.froc_mpp / map_mpp))

        def probability() -> np.ndarray:
            with MapFile(path) as source:
                return np.concatenate(list(reduced_strips(source, factor))) / np.float32(255)

        def mask() -> np.ndarray:
            with MapFile(path) as source:
                shape = (-(-source.shape[0] // factor), -(-source.shape[1] // factor))
            return np.concatenate([truth for _, truth in self.cohort.truth(record, shape, self.cohort.pixel_px(record) * factor)])

        return FrocSlide(map_mpp * factor, probability, mask)
