"""Scores of whole-slide tumour maps against masks: what every method that maps slides is measured by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
import torch
from torch import Tensor
from tqdm import tqdm

from ..data.image_dataset import record_error
from ..data.manifest import write_manifest
from ..data.record import Record, label_of
from ..data.record_masks import read_record_mask
from ..data.tissue_cache import TissueCache
from ..engines.distributed import barrier, gather_in_order, num_processes, rank
from ..handlers.tracking import Tracking
from ..inference.slide_mapper import SlideMapper
from ..metrics.bag_ranking import top_share_of_histogram
from ..metrics.binary import binary_scores
from ..metrics.ranking import counts_at, roc_auc, roc_auc_of_histograms, score_histograms
from ..writers.figures.examples import ExampleRow
from ..writers.table import read_rows
from ..wsi.slide import Slide
from .map_counts import slide_name
from .report import COUNTS, example_indices, example_title, number, write_report
from .scoring_grid import nearest_pixels
from .table import score_table

MASK_TRUTHS = ("mask", "masks_where_given")
_STRIP_AREA_PX = 2**23
_EXAMPLE_PX = 640


class MapEvaluation:
    """Maps the slides of a split, and scores the maps pixel by pixel and slide by slide.

    Into `folder` go the maps of `shared.inference.SlideMapper` (``maps/``; finished ones are not made again), ``metrics.json``,
    ``slides.csv`` (a row a slide) and ``examples.png``. Pixels are those of the maps. They are scored twice: in tissue only, and
    with the background, which scores 0 whatever the map says of it. AUCs are of pixels pooled over all slides, exact for the
    256 values that a map can have; memory does not grow with their number. "Everything is tumour" is scored on the tissue too.

    Where the records are of more than one ``group`` (a manifest's column), such as slides of the locations of training and of
    others, each kind of score has rows of each group behind those of all slides: "<method>, <group>". Records without a group
    count among all only.

    Args:
        folder: to write to.
        records: of whole slides; with masks to score pixels, without to score slides' labels only.
        mapper: makes the maps; its threshold decides precision, recall and polygons.
        tissue: where the slides' tissue is found.
        alpha: a slide's score is the mean of the top alpha share of its tissue's map pixels.
        method: name in the table.
        num_examples: slides of the figure; 0 for none.
        tracking: MLflow runs to log to.
        truth: ``"mask"``: pixels are scored if every tumour slide has a mask; ``"masks_where_given"``: pixels of the slides
            with a mask or with label 0 are scored, if any slide has a mask, and the labels of all; None: only the labels.
        split: name of the split in ``metrics.json``.

    Raises:
        ValueError: before anything is mapped, naming row and file of a mask that cannot be read or does not fit its slide.

    Reference:
        Lerousseau et al., MICCAI 2020, section 4, table 1 and figure 2.
    """

    def __init__(
        self,
        folder: str | Path,
        records: Sequence[Record],
        mapper: SlideMapper,
        tissue: TissueCache,
        alpha: float,
        method: str,
        num_examples: int = 4,
        tracking: Tracking | None = None,
        truth: str | None = "mask",
        split: str = "test",
    ) -> None:
        if truth not in (*MASK_TRUTHS, None):
            raise ValueError(f"truth must be one of {', '.join(MASK_TRUTHS)} or None, got {truth!r}")
        self.folder, self.mapper, self.tissue = Path(folder), mapper, tissue
        # Without its mask a record of a tumour slide has no truth.
        self.records: list[Record] = [record if truth else {**record, "mask": None} for record in records]
        if truth == "masks_where_given":
            self.is_scored = any(record.get("mask") is not None for record in self.records)
        else:
            self.is_scored = truth is not None and all(_has_truth(record) for record in self.records)
        if mapper.tissue.only and mapper.tissue.found_by != tissue.method:
            raise ValueError(
                f"the maps are made where {mapper.tissue.found_by!r} finds tissue, and would be scored where {tissue.method!r} "
                "does: give both the same tissue_method"
            )
        groups = sorted({group for record in self.records if (group := record.get("group")) is not None})
        self.groups = groups if len(groups) > 1 else []
        self.alpha, self.method, self.split, self.num_examples, self.tracking = alpha, method, split, num_examples, tracking

    def run(self) -> dict[str, Any]:
        """Evaluate, write the files, print the table; return what ``metrics.json`` holds."""
        share = self.records[rank() :: num_processes()]
        for record in share:
            _check_mask(record)
        maps = self._map(share)
        rows = gather_in_order([self._row(record, maps) for record in tqdm(share, "scoring maps", unit="slide", disable=None)])
        histograms = {name: [row.pop(name) for row in rows] for name in ("tissue", "all")}
        metrics = self._metrics(rows, histograms)
        barrier()
        if rank() == 0:
            title, table = f"{self.method}: slides of the split", score_table(metrics, self.folder)
            write_report(self.folder, metrics, _table(rows), self._examples(), title, table, self.tracking)
        barrier()
        return metrics

    def tissue_histograms(self) -> list[Tensor]:
        """Map the slides; of each, in their order, how many tissue pixels of its map have each value: int64 ``(256,)``."""
        share = self.records[rank() :: num_processes()]
        maps = self._map(share)
        return gather_in_order([self._histograms(record, maps)["tissue"].sum(0) for record in share])

    def _map(self, records: Sequence[Record]) -> Path:
        """Map these slides; the folder of this process's maps."""
        maps = self.folder / "maps"
        if num_processes() > 1:
            maps = maps / f"share_{rank()}_of_{num_processes()}"
        if records:
            write_manifest(records, maps / "slides_to_map.csv")
            self.mapper.run(maps / "slides_to_map.csv", maps)
        return maps

    def _row(self, record: Record, maps: Path) -> dict[str, Any]:
        """What one slide scores, with its histograms ``(2, 256)`` of tissue and of all pixels."""
        histograms = self._histograms(record, maps)
        tissue, everywhere = histograms["tissue"], histograms["all"]
        threshold = math.ceil(255 * self.mapper.threshold - 1e-9)
        row: dict[str, Any] = {
            "slide": Path(record["image"]).stem,
            "label": record["label"],
            "score": round(float(top_share_mean_of_histogram(tissue.sum(0), self.alpha)), 6),
            "tissue_share": round(float(tissue.sum() / everywhere.sum()), 6),
        }
        if self.groups:
            row["group"] = record.get("group")
        if self.is_scored and _has_truth(record):
            counts = counts_at(tissue, threshold)
            row |= {"tissue_auc": number(roc_auc_of_histograms(tissue)), "auc": number(roc_auc_of_histograms(everywhere))}
            row |= dict(zip(COUNTS, counts.tolist(), strict=True))
        return row | histograms

    def _histograms(self, record: Record, maps: Path) -> dict[str, Tensor]:
        name = slide_name(record)
        probability = read_map(maps / f"{name}.ome.tif")
        # The table says how large a map pixel is; the file's own resolution is rounded.
        row = read_rows(maps / "slides.csv")[name]
        pixel_px = float(row["map_mpp"]) / float(row["mpp"])
        tissue = self.tissue.get(record["image"], record.get("mpp"))
        columns = nearest_pixels(0, probability.shape[1], pixel_px / tissue.pixel_px, tissue.mask.shape[1])
        total = {part: torch.zeros(2, 256, dtype=torch.int64) for part in ("tissue", "all")}
        strip = max(1, _STRIP_AREA_PX // probability.shape[1])
        for top in range(0, probability.shape[0], strip):
            scores = probability[top : top + strip]
            rows = nearest_pixels(top, len(scores), pixel_px / tissue.pixel_px, tissue.mask.shape[0])
            is_tissue = torch.from_numpy(tissue.mask[np.ix_(rows, columns)])
            truth = torch.from_numpy(_truth(record, (int(row["width_px"]), int(row["height_px"])), pixel_px, top, scores.shape))
            values = torch.from_numpy(scores)
            total["tissue"] += score_histograms(values[is_tissue], truth[is_tissue])
            total["all"] += score_histograms(values.masked_fill(~is_tissue, 0), truth)
        return total

    def _metrics(self, rows: Sequence[dict[str, Any]], histograms: dict[str, list[Tensor]]) -> dict[str, Any]:
        metrics: dict[str, Any] = {"split": self.split, "num_slides": len(rows), "threshold": self.mapper.threshold}
        scored = [index for index, record in enumerate(self.records) if self.is_scored and _has_truth(record)]
        if scored and len(scored) < len(rows):
            metrics["num_slides_scored_by_pixel"] = len(scored)
        metrics["slides"] = {}
        for group in (None, *self.groups):
            chosen = [index for index, record in enumerate(self.records) if group is None or record.get("group") == group]
            behind = "" if group is None else f", {group}"
            scores = torch.tensor([rows[index]["score"] for index in chosen])
            labels = torch.tensor([int(rows[index]["label"] > 0) for index in chosen])
            metrics["slides"][self.method + behind] = {"auc": number(roc_auc(scores, labels))}
            with_truth = sorted(set(scored) & set(chosen))
            if with_truth:
                has_tumour = [rows[index]["label"] > 0 for index in with_truth]
                for part, title in (("tissue", "pixels_tissue"), ("all", "pixels_all")):
                    found = self._pixel_scores([histograms[part][index] for index in with_truth], has_tumour)
                    metrics.setdefault(title, {}).update({name + behind: scores for name, scores in found.items()})
        return metrics

    def _pixel_scores(self, histograms: Sequence[Tensor], has_tumour: Sequence[bool]) -> dict[str, dict[str, float | None]]:
        """Of the method and of "everything is tumour", on the pixels that histograms ``(2, 256)`` of slides count."""
        threshold = math.ceil(255 * self.mapper.threshold - 1e-9)
        pooled = torch.stack(list(histograms)).sum(0)
        per_slide = [roc_auc_of_histograms(one) for one, tumour in zip(histograms, has_tumour, strict=True) if tumour]
        everything = {name: number(score) for name, score in binary_scores(counts_at(pooled, 0)).items()}
        return {
            self.method: {
                "auc": number(roc_auc_of_histograms(pooled)),
                "mean_slide_auc": number(torch.stack(per_slide).nanmean()) if per_slide else None,
                **{name: number(score) for name, score in binary_scores(counts_at(pooled, threshold)).items()},
            },
            "Everything is tumour": {"auc": 0.5, "mean_slide_auc": 0.5, **everything},
        }

    def _examples(self) -> list[ExampleRow]:
        rows = []
        for index in example_indices([label_of(record) for record in self.records], self.num_examples):
            record = self.records[index]
            maps = self.folder / "maps"
            if num_processes() > 1:
                maps = maps / f"share_{index % num_processes()}_of_{num_processes()}"
            with Slide(record["image"], mpp=record.get("mpp")) as slide:
                picture = slide.thumbnail(_EXAMPLE_PX)
                pixel_px = max(slide.size_px) / max(picture.shape[:2])
                probability = read_map(maps / f"{slide_name(record)}.ome.tif")
                at = np.ix_(*(nearest_pixels(0, n, m / n, m) for n, m in zip(picture.shape[:2], probability.shape, strict=True)))
                is_known = self.is_scored and _has_truth(record)
                truth = _truth(record, slide.size_px, pixel_px, 0, picture.shape[:2]) if is_known else None
            rows.append(ExampleRow(example_title(record), picture, {"truth": truth, "tumour map": probability[at] / 255}))
        return rows


def read_map(path: Path) -> np.ndarray:
    """A map that `SlideMapper` has written: uint8 ``(H, W)``, 255 being probability 1."""
    return np.asarray(tifffile.imread(path, series=0, level=0))


def top_share_mean_of_histogram(histogram: Tensor, share: float) -> float:
    """`shared.metrics.bag_ranking.top_share_mean` of the values 0 to 1 that a histogram ``(num_scores,)`` counts; 0 of none.

    >>> top_share_mean_of_histogram(torch.tensor([2, 0, 1, 1]), share=0.5)
    0.8333333333333334
    """
    top = top_share_of_histogram(histogram, share)
    values = torch.linspace(0, 1, len(histogram), dtype=torch.float64)
    return float((top * values).sum() / top.sum().clamp(min=1))


def _table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The rows of slides; counts stay whole numbers where some slides have none."""
    frame = pd.DataFrame(rows)
    return frame.astype({name: "Int64" for name in COUNTS if name in frame})


def _has_truth(record: Record) -> bool:
    return record.get("mask") is not None or record["label"] == 0


def _check_mask(record: Record) -> None:
    if record.get("mask") is None:
        return
    try:
        with Slide(record["image"], mpp=record.get("mpp")) as slide:
            read_record_mask(record, (0, 0), 1, slide.size_px)
    except (ValueError, OSError) as error:
        raise record_error(record, error) from error


def _truth(record: Record, size_px: tuple[int, int], pixel_px: float, top: int, shape: Sequence[int]) -> np.ndarray:
    """Tumour ``(H, W)`` uint8 at the pixels of a map's strip that begins with row `top`."""
    if record.get("mask") is None:
        return np.zeros(tuple(shape), dtype=np.uint8)
    corner = (0, round(top * pixel_px))
    return read_record_mask(record, corner, (shape[1], shape[0]), size_px, pixel_px)
