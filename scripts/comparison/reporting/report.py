"""One self-contained page that shows what a comparison found: it needs no other file and loads nothing from the network."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from scripts.declarations.published import WHOLE, PublishedData
from scripts.declarations.supervision import IMAGES, SLIDES
from shared.handlers import experiment_id
from shared.writers import atomic_path
from shared.writers.palette import class_colour

from ..data import MASKS_ONLY, MASKS_WHERE_GIVEN, ComparisonData
from ..data_checks import unscored_classes
from ..rows.differences import FLOOR, differences_to, reference_note, reference_of, remedy, verdict, write_differences
from ..rows.method_row import DONE, MethodRow
from ..scores.ceilings import CEILINGS
from ..scores.intervals import score_names
from ..trainings.origin import Origin, is_server, is_shared, now_text, shown_uri, this_call
from .cautions import Sampled, caution, over_text, pair_text, split_text, trainings_text
from .cells import Cell, difference_cell, is_number, score_cells, seed_rows
from .gallery import examples, shown_size
from .markdown import write_markdown
from .origins import NOT_RECORDED, made_by
from .parts import case_values, worst_cases, write_cases, write_seeds
from .plots import Point, reliability_plot, scatter, strip
from .table import (
    annotation_minutes,
    citation_text,
    cited,
    confusion_shares,
    counted,
    labels_text,
    write_csv,
    write_groups_csv,
)

logger = logging.getLogger(__name__)

_TEMPLATE = "report.html.jinja"
# Cases that are named, and shown.
_NUM_WORST = 3
_TRUTHS = {MASKS_WHERE_GIVEN: "with a mask or label 0", MASKS_ONLY: "with a mask"}
# What the plots show first and methods are distinguished by, of those that there are.
_FIRST_SCORES = ("macro_f1", "iou")


class Report:
    """Writes ``table.csv``, ``differences.csv``, ``seeds.csv``, ``cases.csv``, ``table.md`` and ``report.html``, and
    ``groups.csv`` where test images or slides of several groups are scored apart.

    A published number stands beside scores of the group that it is of; beside those of all where it is of all, or all are of
    its group. One of whole slides stands beside no scores of images, nor the other way round.

    Args:
        data: that were compared on.
        mpp: micrometres per pixel of the scores.
        seconds: an annotator's, for ``labels``, ``areas`` and ``masks``.
        published: what a paper reports on these data; None where they are no paper's.
        tracking_uri: of MLflow.
        mlflow_url: where its pages are, for the links; None where who reads the report cannot open them.
        num_examples: images of the gallery.
        experiment: of the runs.
        reference: method or baseline that all others are compared with; None for the best one.
        origin: the call that makes the report; None for one that begins now.
        ordered: whether the classes are, see `score_names`.
    """

    def __init__(
        self,
        data: ComparisonData,
        mpp: float,
        seconds: Mapping[str, float],
        published: PublishedData | None,
        tracking_uri: str,
        mlflow_url: str | None,
        num_examples: int,
        experiment: str,
        reference: str | None = None,
        origin: Origin | None = None,
        ordered: bool = False,
    ) -> None:
        self.rows: list[MethodRow] = []
        self._experiment_id = "0"
        self.data, self.mpp, self.seconds = data, mpp, seconds
        published = published.of_unit(SLIDES if data.is_slides else IMAGES) if published is not None else None
        self.published = published.of_groups({WHOLE, data.only_group or WHOLE}) if published is not None else None
        self.groups = {group: published.of_groups({group}) if published is not None else None for group in data.groups}
        self.tracking_uri, self.num_examples, self.experiment = tracking_uri, num_examples, experiment
        self.reference, self.origin = reference, origin if origin is not None else this_call()
        self.mlflow_url = mlflow_url or (shown_uri(tracking_uri) if is_shared(tracking_uri) else None)
        self.names = score_names(data.class_names, ordered)
        self.unit = "slide" if data.is_slides else "image"
        self.sampled = {WHOLE: Sampled.of(data.records, self.unit)}
        self.sampled |= {
            group: Sampled.of([data.records[index] for index in data.of_group(group)], self.unit) for group in data.groups
        }
        self._warned = False

    def write(self, out: Path, rows: Sequence[MethodRow]) -> None:
        """Write the files into `out`, of these rows of the comparison."""
        self.rows = list(rows)
        reference = self._reference()
        self._warn(reference)
        write_csv(self.rows, out / "table.csv", self.names, self.seconds, self.published, self.first_score, reference)
        write_groups_csv(self.rows, out / "groups.csv", self.names, self.seconds, self.groups, self.first_score, reference)
        write_differences(self.rows, out / "differences.csv", self.names)
        write_seeds(self.rows, out / "seeds.csv", self.names)
        write_cases(self.rows, out / "cases.csv", self.names)
        write_markdown(
            self.rows,
            out / "table.md",
            self.names,
            self.published,
            self._origin(),
            self.sampled,
            reference,
            self.first_score,
            self.data.class_names,
            self.groups,
            self._notes(reference),
        )
        with atomic_path(out / "report.html") as temporary:
            temporary.write_text(self.page(), encoding="utf-8")

    def _reference(self) -> MethodRow | None:
        """The row that all others are compared with."""
        return reference_of(self.rows, self.reference, self.first_score)

    def _warn(self, reference: MethodRow | None) -> None:
        """Say once that another than the wanted reference is shown, where that cannot have a result any more."""
        is_lost = any(row.key == self.reference and row.status != DONE for row in self.rows)
        note = reference_note(self.rows, self.reference, reference)
        if is_lost and note and not self._warned:
            logger.warning(note)
            self._warned = True

    def _notes(self, reference: MethodRow | None) -> list[str]:
        """What readers must know of all scores and differences."""
        return list(filter(None, [reference_note(self.rows, self.reference, reference), unscored_classes(self.data)]))

    @property
    def first_score(self) -> str:
        """What the plots show first, and which difference is shown next to the scores."""
        known = [name for name in self.names if any(is_number(row.scores.get(name)) for row in self.rows)]
        return next((name for name in _FIRST_SCORES if name in known), next(iter(known), _FIRST_SCORES[-1]))

    def page(self) -> str:
        """The page."""
        # Asked once: a server that is gone takes its time.
        self._experiment_id = experiment_id(self.tracking_uri, self.experiment) or "0"
        done = [row for row in self.rows if row.status == DONE]
        names = {name: title for name, title in self.names.items() if any(is_number(row.scores.get(name)) for row in done)}
        reference = self._reference()
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return environment.get_template(_TEMPLATE).render(
            title=f"{self.data.manifest.parent.name}/{self.data.manifest.name}",
            made=now_text(),
            origin=self.origin,
            made_by=made_by(done),
            not_recorded=NOT_RECORDED,
            data=self.data,
            unit=self.unit,
            mpp=self.mpp,
            seconds=self.seconds,
            columns=names,
            costs=self._cost_titles(done),
            groups=self._groups(done, names),
            rows=[self._table_row(row, names, done, reference) for row in done],
            beside=f"{names.get(self.first_score, self.first_score)} against {reference.title}" if reference is not None else "",
            over=over_text(done, self.sampled[WHOLE]),
            drawn=self.sampled[WHOLE].over,
            split_text=split_text,
            counted=counted,
            seed_rows=seed_rows(done, names),
            strips=self._strips(done),
            others=[row for row in self.rows if row.status != DONE],
            notes=[row for row in done if row.reason],
            settings=[(row, sorted(row.settings.items())) for row in done if row.settings],
            scored=f"{self._num_scored}, those {_TRUTHS[self.data.truth]}",
            published=_citation(self.published, done),
            plots=self._plots(done, names),
            curves=self._curves(done),
            confusions=self._confusions(done),
            legend=[
                (name, "#{:02x}{:02x}{:02x}".format(*class_colour(index)))
                for index, name in enumerate(self.data.class_names)
                if index
            ],
            first_score=self.first_score,
            against=self._against(done, names, reference),
            caution=caution(done, self.sampled[WHOLE], self.data.class_names, self._notes(reference)),
            examples=examples(self.rows, self.data, self.num_examples, worst_cases(self.rows, self.data.num_classes, _NUM_WORST)),
            shown_size=shown_size,
            database="" if is_server(self.tracking_uri) else shown_uri(self.tracking_uri),
            experiment_url=self._experiment_url(),
        )

    def _origin(self) -> str:
        """The data of the table, and when and by which code it was written, in one line."""
        title = f"{self.data.manifest.parent.name}/{self.data.manifest.name}"
        splits = ", ".join(
            f"{name} {counted(counts['rows'], self.unit)} of {split_text(counts, self.unit)}"
            for name, counts in self.data.counts.items()
        )
        scored = f"{self._num_scored} {_TRUTHS[self.data.truth]} scored at {self.mpp:g} um per pixel"
        return f"{title}: {splits}; {scored}. Written {now_text()} by {self.origin.code}."

    @property
    def _num_scored(self) -> str:
        return counted(len(self.data.records), f"test {self.unit}")

    def _cost_titles(self, rows: Sequence[MethodRow]) -> dict[str, str]:
        titles = {
            "annotation": "Annotation, min",
            "training": "Training, min",
            "seconds": f"Seconds per {self.unit}",
            "memory": "Peak memory, GiB",
        }
        return titles | ({"gpu": "Peak GPU memory, GiB"} if any(row.gpu_bytes is not None for row in rows) else {})

    def _table_row(
        self, row: MethodRow, names: Mapping[str, str], rows: Sequence[MethodRow], reference: MethodRow | None
    ) -> dict[str, Any]:
        minutes = annotation_minutes(row, self.seconds)
        memory, gpu = (size / 2**30 if size is not None else math.nan for size in (row.peak_bytes, row.gpu_bytes))
        costs = [(minutes, 1), (row.training_minutes, 1), (row.seconds_per_image, 2), (memory, 1), (gpu, 1)]
        costs = costs[: len(self._cost_titles(rows))]
        return {
            "row": row,
            "labels": [self._labels_cell(row, effort) for effort in (row.effort, row.selection)],
            "trainings": trainings_text(row, self.sampled[WHOLE]),
            "reading": ", ".join([f"{row.mpp:g} µm per pixel", *row.overlays]) if row.mpp is not None else "",
            "verdict": verdict(row, rows, self.first_score),
            "remedy": remedy(row, rows, self.first_score),
            "scores": score_cells(row, names, self.published),
            "beside": self._beside(row, reference),
            "costs": [
                Cell(None if math.isnan(cost) else cost, "–" if math.isnan(cost) else f"{cost:.{n}f}") for cost, n in costs
            ],
            "links": [(seed, self._run_url(run_id)) for seed, run_id in zip(row.seeds, row.mlflow_runs, strict=True) if run_id]
            if self.mlflow_url
            else [],
        }

    def _labels_cell(self, row: MethodRow, effort: Mapping[str, int]) -> Cell:
        return Cell(None if row.key in CEILINGS else sum(effort.values()), labels_text(row, effort, "–"))

    def _beside(self, row: MethodRow, reference: MethodRow | None) -> Cell | None:
        """The difference to the reference in the first score, next to the scores; None without a reference."""
        if reference is None:
            return None
        found = differences_to(reference, [row], [self.first_score]).get(row.key, {})
        return difference_cell(found.get(self.first_score), row.key == reference.key)

    def _groups(self, rows: Sequence[MethodRow], names: Mapping[str, str]) -> list[dict[str, Any]]:
        """Tables of the scores of each group of the test data that is scored apart."""
        tables = []
        for group, published in self.groups.items():
            of_group = [row.of_group(group) for row in rows if group in row.of_groups]
            lines = [
                {
                    "title": row.title,
                    "trainings": trainings_text(row, self.sampled[group]),
                    "verdict": verdict(row, of_group, self.first_score),
                    "cells": score_cells(row, names, published),
                }
                for row in of_group
            ]
            if lines:
                num = len(self.data.of_group(group))
                said = {
                    "caution": caution(of_group, self.sampled[group], self.data.class_names),
                    "published": _citation(published, of_group),
                }
                tables.append({"title": group, "num": num, "rows": lines, **said})
        return tables

    def _against(self, rows: Sequence[MethodRow], names: Mapping[str, str], reference: MethodRow | None) -> list[dict[str, Any]]:
        """Tables of paired differences: to the reference, and to what every method has to beat."""
        floors = [row for row in rows if row.key == FLOOR and row is not reference]
        tables = []
        for other in [reference, *floors]:
            found = differences_to(other, rows, list(names)) if other is not None else {}
            if other is not None and found:
                lines = [
                    {
                        "title": row.title,
                        "trainings": pair_text(row, other, self.sampled[WHOLE]),
                        "cells": [difference_cell(found[row.key].get(name)) for name in names],
                    }
                    for row in rows
                    if row.key in found
                ]
                tables.append({"title": other.title, "rows": lines})
        return tables

    def _plots(self, rows: Sequence[MethodRow], names: Mapping[str, str]) -> list[dict[str, Any]]:
        """Two plots per score: against the labelling effort, and against the training."""
        plots = []
        for name, title in names.items():
            scored = [row for row in rows if name in row.scores]
            effort = [_point(row, annotation_minutes(row, self.seconds), name) for row in scored]
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

    def _confusions(self, rows: Sequence[MethodRow]) -> list[dict[str, Any]]:
        """Each method's confusion matrix for several classes: the shares of every true class assigned to each."""
        return [
            {"title": row.title, "lines": confusion_shares(row.confusion, self.data.class_names)}
            for row in rows
            if row.confusion is not None and self.data.num_classes > 2 and row.key != FLOOR
        ]

    def _strips(self, rows: Sequence[MethodRow]) -> list[dict[str, Any]]:
        """One strip per method with a dot per test case, and the names of the worst."""
        strips = []
        for row in rows:
            values = (
                case_values(row.draws, self.data.num_classes)
                if row.draws is not None and row.key not in (FLOOR, *CEILINGS)
                else []
            )
            if values:
                dots = [(one.case, one.value, one.has_tumour) for one in values]
                score = row.scores.get("class_accuracy" if self.data.num_classes > 2 else "iou")
                mean = score.mean if score is not None else math.nan
                worst = ", ".join(f"{_short(one.case)} {100 * one.value:.0f}" for one in values[:_NUM_WORST])
                strips.append({"title": row.title, "plot": Markup(strip(dots, mean, f"Cases of {row.title}")), "worst": worst})
        return strips

    def _experiment_url(self) -> str:
        if self.mlflow_url is None:
            return ""
        return f"{self.mlflow_url.rstrip('/')}/#/experiments/{self._experiment_id}"

    def _run_url(self, run_id: str) -> str:
        return f"{self._experiment_url()}/runs/{run_id}"


def _citation(published: PublishedData | None, rows: Sequence[MethodRow]) -> str:
    shown = cited(published, rows)
    return "" if shown is None else citation_text(shown)


def _short(case: str) -> str:
    """A case's name; of one that is the path of its image the file's."""
    return case.rpartition("/")[2]


def _point(row: MethodRow, x: float, name: str) -> Point:
    return Point(row.title, x, row.scores[name], row.is_baseline)
