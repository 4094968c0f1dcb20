"""One self-contained page that shows what a comparison found: it needs no other file and loads nothing from the network."""

from __future__ import annotations

import datetime
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from scripts.declarations.published import PublishedData
from shared.handlers import experiment_id
from shared.writers import atomic_path

from .data import ComparisonData
from .differences import FLOOR, difference_text, differences_to, reference_of, write_differences
from .gallery import examples, shown_size
from .intervals import Interval, score_names
from .plots import Point, reliability_plot, scatter
from .runs import DONE, MethodRow
from .table import caution, effort_minutes, effort_text, range_text, trainings_text, write_csv, write_markdown

_TEMPLATE = "report.html.jinja"
# What the plots show first and methods are told apart by, of those that there are.
_FIRST_SCORE = "iou"


@dataclass(frozen=True)
class Cell:
    """A cell of the table that can be sorted.

    Attributes:
        value: to sort by; None stands last.
        text: to read.
        range: the interval, to read.
        low: its lower end, in per cent of the scale.
        high: its upper end.
        published: of the paper, to read.
    """

    value: float | None
    text: str
    range: str = ""
    low: float | None = None
    high: float | None = None
    published: str = ""


class Report:
    """Writes ``table.csv``, ``differences.csv``, ``table.md`` and ``report.html``.

    Args:
        data: that were compared on.
        mpp: micrometres per pixel of the scores.
        seconds: an annotator's, for ``labels``, ``areas`` and ``masks``.
        published: what a paper reports on these data; None where they are no paper's.
        tracking_uri: of MLflow.
        mlflow_url: where its pages are, for the links.
        num_examples: images of the gallery.
        experiment: of the runs.
        reference: method or baseline that all others are compared with; None for the best one.
    """

    def __init__(
        self,
        data: ComparisonData,
        mpp: float,
        seconds: Mapping[str, float],
        published: PublishedData | None,
        tracking_uri: str,
        mlflow_url: str,
        num_examples: int,
        experiment: str,
        reference: str | None = None,
    ) -> None:
        self.rows: list[MethodRow] = []
        self._experiment_id = "0"
        self.data, self.mpp, self.seconds, self.published = data, mpp, seconds, published
        self.tracking_uri, self.num_examples, self.experiment = tracking_uri, num_examples, experiment
        self.reference = reference
        self.mlflow_url = shown_uri(tracking_uri) if tracking_uri.startswith(("http://", "https://")) else mlflow_url
        self.names = score_names(data.num_classes)
        self.unit = "slide" if data.is_slides else "image"

    def write(self, out: Path, rows: Sequence[MethodRow]) -> None:
        """Write the four files into `out`, of these rows of the comparison."""
        self.rows = list(rows)
        reference = reference_of(rows, self.reference, self.first_score)
        write_csv(self.rows, out / "table.csv", self.names, self.seconds, self.published)
        write_differences(self.rows, out / "differences.csv", self.names)
        write_markdown(
            self.rows, out / "table.md", self.names, self.published, self.unit, self._origin(), reference, self.first_score
        )
        with atomic_path(out / "report.html") as temporary:
            temporary.write_text(self.page(), encoding="utf-8")

    @property
    def first_score(self) -> str:
        """What the plots show first, and which difference stands beside the scores."""
        known = [name for name in self.names if any(_is_number(row.scores.get(name)) for row in self.rows)]
        return _FIRST_SCORE if _FIRST_SCORE in known else next(iter(known), _FIRST_SCORE)

    def page(self) -> str:
        """The page."""
        # Asked once: a server that is gone takes its time.
        self._experiment_id = experiment_id(self.tracking_uri, self.experiment) or "0"
        done = [row for row in self.rows if row.status == DONE]
        names = {name: title for name, title in self.names.items() if any(_is_number(row.scores.get(name)) for row in done)}
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return environment.get_template(_TEMPLATE).render(
            title=f"{self.data.manifest.parent.name}/{self.data.manifest.name}",
            made=_now(),
            machine=_machine(),
            data=self.data,
            unit=self.unit,
            mpp=self.mpp,
            seconds=self.seconds,
            columns=names,
            costs=self._cost_titles(),
            rows=[self._table_row(row, names) for row in done],
            others=[row for row in self.rows if row.status != DONE],
            notes=[row for row in done if row.reason],
            settings=[(row, sorted(row.settings.items())) for row in done if row.settings],
            published=self.published,
            plots=self._plots(done, names),
            curves=self._curves(done),
            first_score=self.first_score,
            against=self._against(done, names),
            caution=caution(done),
            examples=examples(self.rows, self.data, self.num_examples),
            shown_size=shown_size,
            tracking_uri=shown_uri(self.tracking_uri),
            experiment_url=self._experiment_url(),
        )

    def _origin(self) -> str:
        """What the table was made from and on, in a line."""
        title = f"{self.data.manifest.parent.name}/{self.data.manifest.name}"
        splits = ", ".join(
            f"{name} {counts['rows']} {self.unit}s of {counts['cases']} cases" for name, counts in self.data.counts.items()
        )
        return f"{title}: {splits}; scored at {self.mpp:g} um per pixel. {_machine()}; {_now()}."

    def _cost_titles(self) -> dict[str, str]:
        return {
            "annotation": "Annotation, min",
            "training": "Training, min",
            "seconds": f"Seconds a {self.unit}",
            "memory": "Peak memory, GiB",
        }

    def _table_row(self, row: MethodRow, names: Mapping[str, str]) -> dict[str, Any]:
        published = self.published.of(row.key) if self.published else {}
        minutes = effort_minutes(row.effort, self.seconds)
        memory = row.peak_bytes / 2**30 if row.peak_bytes else math.nan
        costs = [(minutes, 1), (row.training_minutes, 1), (row.seconds_per_image, 2), (memory, 1)]
        return {
            "row": row,
            "effort": effort_text(row.effort),
            "trainings": trainings_text(row),
            "scores": [_score_cell(row.scores.get(name), published.get(name)) for name in names],
            "costs": [
                Cell(None if math.isnan(cost) else cost, "–" if math.isnan(cost) else f"{cost:.{n}f}") for cost, n in costs
            ],
            "links": list(zip(row.seeds, (self._run_url(run_id) for run_id in row.mlflow_runs), strict=True)),
        }

    def _against(self, rows: Sequence[MethodRow], names: Mapping[str, str]) -> list[dict[str, Any]]:
        """Tables of paired differences: to the reference, and to what every method has to beat."""
        reference = reference_of(rows, self.reference, self.first_score)
        floors = [row for row in rows if row.key == FLOOR and row is not reference]
        tables = []
        for other in [reference, *floors]:
            found = differences_to(other, rows, list(names)) if other is not None else {}
            if other is not None and found:
                lines = [
                    {"title": row.title, "cells": [difference_text(found[row.key].get(name)) for name in names]}
                    for row in rows
                    if row.key in found
                ]
                tables.append({"title": other.title, "rows": lines})
        return tables

    def _plots(self, rows: Sequence[MethodRow], names: Mapping[str, str]) -> list[dict[str, Any]]:
        """Of each score two plots: against the labelling effort, and against the training."""
        plots = []
        for name, title in names.items():
            scored = [row for row in rows if name in row.scores]
            effort = [_point(row, effort_minutes(row.effort, self.seconds), name) for row in scored]
            cost = [_point(row, row.training_minutes, name) for row in scored]
            plots.append(
                {
                    "name": name,
                    "effort": Markup(scatter(effort, "minutes of annotation", f"{title}, %", f"{title} against annotation")),
                    "cost": Markup(scatter(cost, "minutes of training", f"{title}, %", f"{title} against training")),
                }
            )
        return plots

    def _curves(self, rows: Sequence[MethodRow]) -> list[dict[str, Any]]:
        """The reliability curve of each method."""
        return [
            {
                "title": row.title,
                "ece": f"{100 * row.reliability.ece:.1f}",
                "plot": Markup(reliability_plot(row.reliability, f"Reliability of {row.title}")),
            }
            for row in rows
            if row.reliability is not None
        ]

    def _experiment_url(self) -> str:
        return f"{self.mlflow_url.rstrip('/')}/#/experiments/{self._experiment_id}"

    def _run_url(self, run_id: str) -> str:
        return f"{self._experiment_url()}/runs/{run_id}"


def _point(row: MethodRow, x: float, name: str) -> Point:
    return Point(row.title, x, row.scores[name], row.is_baseline)


def _score_cell(score: Interval | None, published: float | None) -> Cell:
    paper = "" if published is None else f"{100 * published:.1f}"
    if not _is_number(score) or score is None:
        return Cell(None, "–", published=paper)
    mean, low, high = (100 * value for value in (score.mean, score.low, score.high))
    ends = range_text(score, "–")
    if not ends:
        return Cell(mean, f"{mean:.1f}", "–", published=paper)
    return Cell(mean, f"{mean:.1f}", ends, low, high, paper)


def _is_number(score: Interval | None) -> bool:
    return score is not None and not math.isnan(score.mean)


def shown_uri(uri: str) -> str:
    """An address that can be shown to others: without a user's name and password.

    >>> shown_uri("postgresql://me:secret@host:5432/mlflow"), shown_uri("sqlite:///out/mlruns.db")
    ('postgresql://host:5432/mlflow', 'sqlite:///out/mlruns.db')
    """
    scheme, separator, rest = uri.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"


def _now() -> str:
    return datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")


def _machine() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), {device}"
