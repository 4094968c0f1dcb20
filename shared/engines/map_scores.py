"""Scores of finished tumour maps against masks or annotation files, in memory that grows with no slide and no cohort."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..data import TissueCache, record_error
from ..inference.finished import FINISHED
from ..inference.inputs import image_name
from ..inference.map_file import MapFile
from ..inference.row_store import TABLE_NAME
from ..metrics import binary_scores
from ..metrics.ranking import counts_at, roc_auc, roc_auc_of_histograms, score_histograms
from ..writers import read_rows, reduced_strips
from ..wsi import read_mask_region
from .evaluation_report import COUNTS, number
from .lesion_froc import FrocSlide, MapFROC

Record = dict[str, Any]

# Level-0 pixels of a mask held at once.
_STRIP_AREA_PX = 2**25
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
        self.maps, self.tissue, self.froc_mpp = Path(maps), tissue, froc_mpp
        self.threshold, self._least_score = threshold, math.ceil(255 * threshold - 1e-9)
        for record in records:
            if record.get("x") is not None:
                raise record_error(record, ValueError("maps are scored as a whole, and this row is a region of a slide"))
        with_truth = [record for record in records if record.get("mask") is not None or record["label"] == 0]
        self.num_without_truth = len(records) - len(with_truth)
        table = read_rows(self.maps / TABLE_NAME)
        self._row_of = {name: row for name, row in table.items() if row["status"] in FINISHED}
        self.records = [record for record in with_truth if _name(record) in self._row_of]
        missing = [record for record in with_truth if _name(record) not in self._row_of]
        if missing and not allow_missing:
            status = table.get(_name(missing[0]), {}).get("status", "not begun")
            raise ValueError(
                f"{len(missing)} of {len(with_truth)} slides have no finished map in {self.maps}, the first is "
                f"{missing[0]['image']} ({status}): map them, or leave them out by --allow_missing"
            )
        self.num_missing = len(missing)
        if not self.records:
            raise ValueError(f"nothing to score: no slide has both a map in {self.maps} and a mask or label 0")

    def run(self) -> tuple[dict[str, Any], list[Record]]:
        """Metrics of the cohort, and a row a slide.

        Raises:
            ValueError: naming manifest, row and file of a mask, a map or a slide that cannot be read.
        """
        pooled = {part: torch.zeros(2, 256, dtype=torch.int64) for part in PARTS}
        rows = []
        for record in tqdm(self.records, "scoring maps", unit="slide", disable=None):
            histograms = self._checked_histograms(record)
            for part in PARTS:
                pooled[part] += histograms[part]
            rows.append(self._slide_row(record, histograms))
        froc = MapFROC([self._froc_slide(record) for record in self.records]).scores()
        return self._metrics(pooled, rows) | {"lesions": froc}, rows

    def _slide_row(self, record: Record, histograms: Mapping[str, Tensor]) -> Record:
        """What one slide scores; its own score is the share of its tissue that is tumour on the map."""
        counts = counts_at(histograms["tissue"], self._least_score)
        num_pixels = int(counts.sum())
        return {
            "slide": _name(record),
            "label": record["label"],
            "score": float(counts[:2].sum()) / num_pixels if num_pixels else 0.0,
            "tissue_auc": number(roc_auc_of_histograms(histograms["tissue"])),
            "auc": number(roc_auc_of_histograms(histograms["all"])),
            **dict(zip(COUNTS, counts.tolist(), strict=True)),
            **{name: number(score) for name, score in binary_scores(counts).items()},
        }

    def _metrics(self, pooled: Mapping[str, Tensor], rows: Sequence[Record]) -> dict[str, Any]:
        labelled = [row for row in rows if row["label"] is not None]
        scores = torch.tensor([row["score"] for row in labelled])
        labels = torch.tensor([int(row["label"] > 0) for row in labelled])
        metrics: dict[str, Any] = {
            "num_slides": len(rows),
            "num_missing": self.num_missing,
            "num_without_truth": self.num_without_truth,
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
        pixel_px = self._pixel_px(record)
        total = {part: torch.zeros(2, 256, dtype=torch.int64) for part in PARTS}
        # With the pixel size that it was mapped with: the file may have none.
        tissue = self.tissue.get(record["image"], float(self._row_of[_name(record)]["mpp"]))
        with MapFile(self.maps / f"{_name(record)}.ome.tif") as probability:
            columns = nearest_pixels(0, probability.shape[1], pixel_px / tissue.pixel_px, tissue.mask.shape[1])
            for top, truth in self._truth(record, probability.shape, pixel_px):
                values = torch.from_numpy(probability.read_rows(top, top + len(truth)))
                rows = nearest_pixels(top, len(truth), pixel_px / tissue.pixel_px, tissue.mask.shape[0])
                is_tissue, is_tumour = torch.from_numpy(tissue.mask[np.ix_(rows, columns)]), torch.from_numpy(truth)
                total["tissue"] += score_histograms(values[is_tissue], is_tumour[is_tissue])
                total["all"] += score_histograms(values.masked_fill(~is_tissue, 0), is_tumour)
        return total

    def _froc_slide(self, record: Record) -> FrocSlide:
        row = self._row_of[_name(record)]
        factor = max(1, round(self.froc_mpp / float(row["map_mpp"])))

        def probability() -> np.ndarray:
            with MapFile(self.maps / f"{_name(record)}.ome.tif") as source:
                return np.concatenate(list(reduced_strips(source, factor))) / np.float32(255)

        def mask() -> np.ndarray:
            with MapFile(self.maps / f"{_name(record)}.ome.tif") as source:
                shape = (-(-source.shape[0] // factor), -(-source.shape[1] // factor))
            return np.concatenate([truth for _, truth in self._truth(record, shape, self._pixel_px(record) * factor)])

        return FrocSlide(float(row["map_mpp"]) * factor, probability, mask)

    def _pixel_px(self, record: Record) -> float:
        """Level-0 pixels per map pixel: the map file's own resolution is rounded."""
        row = self._row_of[_name(record)]
        return float(row["map_mpp"]) / float(row["mpp"])

    def _truth(self, record: Record, shape: tuple[int, int], pixel_px: float) -> Iterator[tuple[int, np.ndarray]]:
        """First row and tumour, uint8 0 or 1, of strips of a grid ``(H, W)`` whose pixels are `pixel_px` level-0 pixels wide."""
        row = self._row_of[_name(record)]
        size_px = (int(row["width_px"]), int(row["height_px"]))
        height = max(1, int(_STRIP_AREA_PX / (shape[1] * pixel_px**2)))
        for top in range(0, shape[0], height):
            strip = (min(height, shape[0] - top), shape[1])
            if record.get("mask") is None:
                yield top, np.zeros(strip, np.uint8)
                continue
            corner = (0, round(top * pixel_px))
            yield top, read_mask_region(record["mask"], corner, strip[::-1], size_px, pixel_px, record["image"])


def _name(record: Record) -> str:
    return image_name(Path(record["image"]))


def nearest_pixels(start: int, count: int, scale: float, limit: int) -> np.ndarray:
    """Indices on a grid of `limit` pixels of the middles of `count` pixels from `start` on, `scale` of its pixels wide each."""
    return np.minimum(((np.arange(start, start + count) + 0.5) * scale).astype(np.int64), limit - 1)
