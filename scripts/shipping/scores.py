"""What a head scores on the test images of its training, with intervals over their cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from scripts.comparison.scores.intervals import LEVEL, NUM_DRAWS, Interval, intervals
from scripts.comparison.scores.scoring import Scores
from shared.data.record import Record
from shared.evaluation.report import COUNTS, everything_is_tumour
from shared.metrics import BOUNDARY_THRESHOLDS

from .finished_run import IMAGES, SLIDES, FinishedRun

SCORES = ("iou", "f1", "sensitivity", "specificity", "accuracy")
# Of one training; their intervals would take more than counts.
WITHOUT_INTERVAL = {IMAGES: ("dice_positive", "false_positive_share"), SLIDES: ("auc",)}
# Where the scores of the labels of whole images and slides stand.
OF_LABELS = {IMAGES: "images", SLIDES: "slide_labels"}
EVERYTHING = "Everything is tumour"
_SAME = 1e-6


def scores_of_test_images(run: FinishedRun) -> dict[str, Any]:
    """Scores of pixels pooled over the test images, each with its interval, and what they are compared with.

    Raises:
        ValueError: if the images' counts are not those of the scores.
    """
    counts = torch.from_numpy(run.images[list(COUNTS)].to_numpy(np.int64))
    pixels = {run.method: _of(counts, run.records), EVERYTHING: _of(everything_is_tumour(counts), run.records)}
    known, found = run.metrics["pixels"][run.method]["iou"], pixels[run.method]["iou"]["mean"]
    if abs(known - found) > _SAME:
        raise ValueError(
            f"{run.folder / 'evaluation'}: {run.unit}.csv gives an IoU of {found:.6f}, metrics.json {known:.6f}: "
            "score the run again"
        )
    whole_images = {name: run.metrics["pixels"].get(name, {}) for name in pixels}
    for name, scores in pixels.items():
        scores |= {key: whole_images[name][key] for key in WITHOUT_INTERVAL[run.unit] if key in whole_images[name]}
    numbers = {f"num_{run.unit}": len(run.records), "num_cases": len(set(_cases(run.records)))}
    resampled = "cases"
    if run.unit == SLIDES and numbers["num_cases"] == len(run.records):
        # Every slide is its own case: nothing is known of patients.
        resampled = run.unit
        del numbers["num_cases"]
    return {
        **numbers,
        "threshold": run.threshold,
        "interval": {"level": LEVEL, "draws": NUM_DRAWS, "resampled": resampled},
        "pixels": pixels,
        OF_LABELS[run.unit]: {run.method: run.metrics["images"][run.method]},
    }


def image_scores(run: FinishedRun) -> pd.DataFrame:
    """A row per test image, by the name of its file alone."""
    names = ("image", "x", "y", "label", "max_probability", "score", "tissue_auc", *COUNTS)
    table = run.images[[name for name in names if name in run.images]].copy()
    table["image"] = [record["image"].rpartition("/")[2] for record in run.records]
    return table.dropna(axis="columns", how="all")


def _of(counts: torch.Tensor, records: Sequence[Record]) -> dict[str, Any]:
    found = intervals([_scores(counts, records)])
    return {name: _plain(found[name]) for name in SCORES}


def _plain(interval: Interval) -> Mapping[str, float | None]:
    values = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {name: None if np.isnan(value) else value for name, value in values.items()}


def _scores(counts: torch.Tensor, records: Sequence[Record]) -> Scores:
    """Counts as the comparison has them, without what its other scores are made of."""
    number = len(counts)
    values = np.zeros((number, 2, 256), np.int64)
    return Scores(
        counts=counts.numpy(),
        tissue=values,
        everywhere=values,
        region_f=np.zeros(number),
        boundary=np.zeros((number, len(BOUNDARY_THRESHOLDS), 4), np.int64),
        confusion=np.zeros((number, 2, 2), np.int64),
        cases=np.array(_cases(records), dtype=np.str_),
    )


def _cases(records: Sequence[Record]) -> list[str]:
    return [str(record.get("case_id") or record["image"]) for record in records]
