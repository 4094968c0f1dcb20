"""The results of every evaluation: numbers, a row per image, a figure, the same in MLflow, and a printed table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..engines.distributed import barrier, rank
from ..handlers.tracking import Tracking
from ..metrics.binary import binary_scores
from ..writers.atomic import atomic_path
from ..writers.figures.examples import ExampleRow, write_examples

COUNTS = ("tp", "fp", "fn", "tn")
REGION = ("image", "x", "y", "width_px", "height_px", "label")


def write_report(
    folder: Path,
    metrics: Mapping[str, Any],
    rows: pd.DataFrame,
    draw: Callable[[], Sequence[ExampleRow]],
    title: str,
    table: str,
    tracking: Tracking | None = None,
    headline: tuple[str, str] | None = None,
) -> None:
    """Write ``metrics.json``, ``images.csv`` (or ``slides.csv``) and ``examples.png``, log them to MLflow and print the table.

    Of a distributed run the first process does this, and the others wait for it.

    Args:
        folder: to write to.
        metrics: kind -> name in the table -> score -> number or None; other entries are written, not logged. With
            ``num_slides`` the table is of slides.
        rows: a row per image (see `image_table`) or a slide.
        draw: gives the rows of the figure; none for no figure.
        title: of the figure.
        table: for a person, printed whatever the logging is set to: it is the result.
        tracking: MLflow runs; the stage is called ``evaluation``.
        headline: split and name in the table whose scores the training's own run gets too, as ``test.pixels.iou``; None for
            none.
    """
    if rank() == 0:
        examples = draw()
        folder.mkdir(parents=True, exist_ok=True)
        rows_file = "slides.csv" if "num_slides" in metrics else "images.csv"
        with atomic_path(folder / rows_file) as temporary:
            rows.to_csv(temporary, index=False)
        if examples:
            write_examples(examples, folder / "examples.png", title=title)
        # The last: where it is, the evaluation is whole.
        with atomic_path(folder / "metrics.json") as temporary:
            temporary.write_text(json.dumps(metrics, indent=2) + "\n")
        if tracking is not None:
            flat = {
                f"{kind}.{slug(name)}.{score}": value
                for kind, named in metrics.items()
                if isinstance(named, Mapping)
                for name, scores in named.items()
                for score, value in scores.items()
                if value is not None
            }
            files = [folder / name for name in ("metrics.json", rows_file, *(["examples.png"] if examples else []))]
            tracking.log_stage("evaluation", flat, files)
            tracking.finish_stage("evaluation")
            tracking.log_headline({} if headline is None else headline_scores(metrics, *headline))
        print(table, flush=True)
    barrier()


def headline_scores(metrics: Mapping[str, Any], split: str, method: str) -> dict[str, float | None]:
    """The scores of one row of the tables, under names that are the same for all methods.

    >>> headline_scores({"pixels": {"CAMEL": {"iou": 0.7}, "Everything is tumour": {"iou": 0.4}}}, "test", "CAMEL")
    {'test.pixels.iou': 0.7}
    """
    return {
        f"{split}.{kind}.{score}": value
        for kind, named in metrics.items()
        if isinstance(named, Mapping) and isinstance(named.get(method), Mapping)
        for score, value in named[method].items()
        if value is None or isinstance(value, (int, float))
    }


def image_columns(record: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that begin a row of ``images.csv``: which image or region a record is, and its label."""
    return {name: record.get(name) for name in REGION}


def image_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows of images as a table, with shares and Dice where pixels were counted (`COUNTS`)."""
    frame = pd.DataFrame(rows)
    for name in ("x", "y", "width_px", "height_px"):
        frame[name] = frame[name].astype("Int64")
    frame["max_probability"] = frame["max_probability"].round(6)
    if "tp" not in frame:
        return frame
    pixels = frame[list(COUNTS)].sum(axis=1)
    frame["true_share"] = ((frame["tp"] + frame["fn"]) / pixels).round(6)
    frame["predicted_share"] = ((frame["tp"] + frame["fp"]) / pixels).round(6)
    frame["dice"] = (2 * frame["tp"] / (2 * frame["tp"] + frame["fp"] + frame["fn"])).round(6)
    return frame


def everything_is_tumour(counts: Tensor) -> Tensor:
    """Counts ``(..., 4)`` of the rule "everything is tumour" on the pixels that `counts` counts."""
    tp, fp, fn, tn = counts.unbind(-1)
    zero = torch.zeros_like(tp)
    return torch.stack([tp + fn, fp + tn, zero, zero], dim=-1)


def pooled_scores(counts: Tensor) -> dict[str, float | None]:
    """The scores of `shared.metrics.binary_scores` of counts ``(4,)``; None where there is none."""
    return {name: number(score) for name, score in binary_scores(counts).items()}


def pixel_scores(counts: Tensor) -> dict[str, float | None]:
    """Pooled scores of pixels, and two that look at single images.

    Args:
        counts: tp, fp, fn, tn of each image, ``(num_images, 4)``.

    Returns:
        `pooled_scores`; ``dice_positive``, the mean Dice of images with tumour; and ``false_positive_share``, the mean share of
        pixels predicted tumour in images without.
    """
    tp, fp, fn, tn = counts.double().unbind(-1)
    positive = (tp + fn) > 0
    dice = 2 * tp / (2 * tp + fp + fn)
    return {
        **pooled_scores(counts.sum(0)),
        "dice_positive": number(dice[positive].mean()),
        "false_positive_share": number((fp / (fp + tn))[~positive].mean()),
    }


def number(score: Tensor) -> float | None:
    """A score for JSON, which knows no NaN."""
    return None if score.isnan() else float(score)


def example_indices(labels: list[int], num_examples: int) -> list[int]:
    """Images to draw: two of three with tumour if there are as many, evenly spaced through the data set, the same each time.

    >>> example_indices([0, 1, 0, 1, 1], num_examples=3)
    [1, 4, 2]
    """
    positive = [index for index, label in enumerate(labels) if label > 0]
    negative = [index for index, label in enumerate(labels) if label == 0]
    num_negative = min(len(negative), max(num_examples // 3, num_examples - len(positive)))
    num_positive = min(len(positive), num_examples - num_negative)
    return [*_spread(positive, num_positive), *_spread(negative, num_negative)]


def example_title(record: Mapping[str, Any]) -> str:
    """The text next to an image of the figure."""
    return f"{Path(record['image']).stem}\nlabel {record['label']}"


def slug(name: str) -> str:
    """A name as MLflow's metrics may carry it.

    >>> slug("Enriched labels (train)")
    'enriched_labels_train'
    """
    return "_".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())


def _spread(indices: list[int], count: int) -> list[int]:
    return [indices[(2 * step + 1) * len(indices) // (2 * count)] for step in range(count)]
