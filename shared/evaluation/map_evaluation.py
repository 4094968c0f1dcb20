"""Scores of whole-slide tumour maps against masks: what every method that maps slides is measured by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from ..data.record import Record, has_known_mask, label_of
from ..data.tissue_cache import TissueCache
from ..handlers.tracking import Tracking
from ..inference.slide_mapper import SlideMapper
from ..metrics.bag_ranking import top_share_of_histogram
from ..metrics.ranking import roc_auc
from ..writers.figures.examples import ExampleRow
from .maps.counts import PARTS, MapCounts, least_value, means_of_slides
from .maps.pictures import slide_picture
from .maps.split_maps import SplitMaps
from .report import COUNTS, example_indices, example_title, number, pooled_scores, write_report
from .slide_scores import SlideScores
from .table import score_table

MASK_TRUTHS = ("mask", "masks_where_given", "masks_only")
_EXAMPLE_PX = 640


class MapEvaluation:
    """Maps the slides of a split, and scores the maps pixel by pixel and slide by slide.

    Into `folder` go the maps (``maps/``, see `SplitMaps`), ``metrics.json``, ``slides.csv`` (a row per slide) and
    ``examples.png``. Pixels are those of the maps. They are scored twice: in tissue only, and with the background, which scores
    0 whatever the map says of it. AUCs are of pixels pooled over all slides, exact for the 256 values that a map can have.
    "Everything is tumour" is scored on the tissue too.

    Unless all records are of one ``group`` (a manifest's column), such as slides of the locations of training and of others, each
    kind of score has rows of each group after those of all slides: "<method>, <group>". Unless all are of one ``location``, such
    as organs, rows of each location follow: "<method>, location <location>". Records without a group or a location count among
    all only.

    Args:
        folder: to write to.
        records: of whole slides; with masks to score pixels, without to score slides' labels only.
        mapper: makes the maps; its threshold decides precision, recall and polygons.
        tissue: where the slides' tissue is found.
        alpha: a slide's score is the mean of the top alpha share of its tissue's map pixels, unless there are `slide_scores`.
        method: name in the table.
        num_examples: slides of the figure; 0 for none.
        tracking: MLflow runs to log to.
        truth: ``"mask"``: pixels are scored if every tumour slide has a mask; ``"masks_where_given"``: pixels of the slides
            with a mask or with label 0 are scored, if any slide has a mask, and the labels of all; ``"masks_only"``: the same
            without the slides of label 0 that have no mask file, for a paper that may not have had them; None: only the labels.
        split: name of the split in ``metrics.json``.
        slide_scores: of the same slides, for a network that says more of a slide than its map does; None: their maps score them.
        normal_is_zero: the pixels of slides with label 0 count as if their maps said 0 everywhere. A slide's own score stays that
            of its map.

    Raises:
        ValueError: before anything is mapped, naming row and file of a mask that cannot be read or does not fit its slide; if
            `slide_scores` are of other slides.

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
        slide_scores: SlideScores | None = None,
        normal_is_zero: bool = False,
    ) -> None:
        if slide_scores is not None and [one["image"] for one in slide_scores.dataset.data] != [one["image"] for one in records]:
            raise ValueError("slide_scores belong to other slides than the evaluated records, or are in another order")
        if truth not in (*MASK_TRUTHS, None):
            raise ValueError(f"truth must be one of {', '.join(MASK_TRUTHS)} or None, got {truth!r}")
        # Without its mask a record of a tumour slide has no truth.
        self.maps = SplitMaps(folder, records, mapper, tissue, truth=truth is not None)
        self.folder, self.records = Path(folder), self.maps.records
        self.truth = truth
        if truth in ("masks_where_given", "masks_only"):
            self.is_scored = any(record.get("mask") is not None for record in self.records)
        else:
            self.is_scored = truth is not None and all(has_known_mask(record) for record in self.records)
        self.groups, self.locations = _values_of(self.records, "group"), _values_of(self.records, "location")
        self.threshold, self.alpha, self.method, self.split = mapper.threshold, alpha, method, split
        self.num_examples, self.tracking, self.slide_scores = num_examples, tracking, slide_scores
        self.normal_is_zero = normal_is_zero

    def run(self) -> dict[str, Any]:
        """Evaluate, write the files, print the table; return what ``metrics.json`` holds."""
        counts = self.maps.counts()
        scores = [self._map_score(of_map) for of_map in counts] if self.slide_scores is None else self.slide_scores.run()
        if self.normal_is_zero:
            pairs = zip(self.records, counts, strict=True)
            counts = [of_map if label_of(record) > 0 else of_map.of_zero() for record, of_map in pairs]
        rows = [self._row(*of_slide) for of_slide in zip(self.records, counts, scores, strict=True)]
        metrics = self._metrics(rows, counts)
        title, table = f"{self.method}: slides of the split", score_table(metrics, self.folder, self.maps.finished.folder)
        headline = (self.split, self.method)
        write_report(self.folder, metrics, _table(rows), self._examples, title, table, self.tracking, headline)
        return metrics

    def _is_known(self, record: Record) -> bool:
        has_truth = record.get("mask") is not None if self.truth == "masks_only" else has_known_mask(record)
        return self.is_scored and has_truth

    def _map_score(self, counts: MapCounts) -> float:
        return float(top_share_mean_of_histogram(counts.histograms["tissue"].sum(0), self.alpha))

    def _row(self, record: Record, counts: MapCounts, score: float) -> dict[str, Any]:
        """The scores of one slide."""
        tissue, everywhere = (counts.histograms[part] for part in PARTS)
        row: dict[str, Any] = {
            "slide": Path(record["image"]).stem,
            "label": record["label"],
            "score": round(score, 6),
            "tissue_share": round(float(tissue.sum() / everywhere.sum()), 6),
        }
        if self.groups:
            row["group"] = record.get("group")
        if self.locations:
            row["location"] = record.get("location")
        if self._is_known(record):
            row |= {"tissue_auc": counts.auc("tissue"), "auc": counts.auc("all")}
            row |= dict(zip(COUNTS, counts.decided("tissue", least_value(self.threshold)).tolist(), strict=True))
        return row

    def _metrics(self, rows: Sequence[dict[str, Any]], counts: Sequence[MapCounts]) -> dict[str, Any]:
        metrics: dict[str, Any] = {"split": self.split, "num_slides": len(rows), "threshold": self.threshold}
        scored = [index for index, record in enumerate(self.records) if self._is_known(record)]
        if scored and len(scored) < len(rows):
            metrics["num_slides_scored_by_pixel"] = len(scored)
        metrics["slides"] = {}
        for suffix, chosen in self._parts():
            scores = torch.tensor([rows[index]["score"] for index in chosen])
            labels = torch.tensor([int(rows[index]["label"] > 0) for index in chosen])
            metrics["slides"][self.method + suffix] = {"auc": number(roc_auc(scores, labels))}
            with_truth = sorted(set(scored) & set(chosen))
            if with_truth:
                for part in PARTS:
                    found = self._pixel_scores([counts[index] for index in with_truth], part)
                    of_part = metrics.setdefault(f"pixels_{part}", {})
                    of_part |= {name + suffix: scores for name, scores in found.items()}
        return metrics

    def _parts(self) -> Iterator[tuple[str, list[int]]]:
        """What follows the method in the rows of a part of the slides, and which slides these are: all of them first."""
        yield "", list(range(len(self.records)))
        for group in self.groups:
            yield f", {group}", [index for index, record in enumerate(self.records) if record.get("group") == group]
        for location in self.locations:
            chosen = [index for index, record in enumerate(self.records) if record.get("location") == location]
            yield f", location {location}", chosen

    def _pixel_scores(self, counts: Sequence[MapCounts], part: str) -> dict[str, dict[str, float | None]]:
        """Pixel scores of the method and of "everything is tumour" on slides, pooled and as means of slides."""
        pooled, least = MapCounts.pooled(counts), least_value(self.threshold)
        of_slides, of_everything = means_of_slides(counts, part, least), means_of_slides(counts, part, 0)
        return {
            self.method: {"auc": pooled.auc(part), **of_slides, **pooled_scores(pooled.decided(part, least))},
            "Everything is tumour": {
                "auc": 0.5,
                **of_everything,
                "mean_slide_auc": None if of_slides["mean_slide_auc"] is None else 0.5,
                **pooled_scores(pooled.decided(part, 0)),
            },
        }

    def _examples(self) -> list[ExampleRow]:
        rows = []
        for index in example_indices([label_of(record) for record in self.records], self.num_examples):
            record = self.records[index]
            seen = slide_picture(record, self.maps.finished, _EXAMPLE_PX, self._is_known(record))
            rows.append(ExampleRow(example_title(record), seen.image, {"truth": seen.truth, "tumour map": seen.probability}))
        return rows


def top_share_mean_of_histogram(histogram: Tensor, share: float) -> float:
    """`shared.metrics.bag_ranking.top_share_mean` of the values 0 to 1 that a histogram ``(num_scores,)`` counts; 0 of none.

    >>> top_share_mean_of_histogram(torch.tensor([2, 0, 1, 1]), share=0.5)
    0.8333333333333334
    """
    top = top_share_of_histogram(histogram, share)
    values = torch.linspace(0, 1, len(histogram), dtype=torch.float64)
    return float((top * values).sum() / top.sum().clamp(min=1))


def _values_of(records: Sequence[Record], column: Literal["group", "location"]) -> list[str]:
    """The values of a column, sorted; none where all records have the same, which would be scored like the whole."""
    values = {record.get(column) for record in records}
    return sorted(value for value in values if value is not None) if len(values) > 1 else []


def _table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The rows of slides; counts stay whole numbers where some slides have none."""
    frame = pd.DataFrame(rows)
    return frame.astype({name: "Int64" for name in COUNTS if name in frame})
