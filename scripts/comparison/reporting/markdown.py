"""The table of a comparison for people, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.declarations.published import WHOLE, PublishedData
from shared.writers import atomic_path

from ..rows.differences import FLOOR, differences_to, remedy, verdict
from ..rows.method_row import DONE, MethodRow
from ..trainings.origin import Origin
from .cautions import Sampled, caution, over_text, pair_text, trainings_text
from .origins import NOT_RECORDED, made_by
from .table import citation_text, cited, confusion_shares, difference_text, labels_text, percent, reading_text, row_of

# Of the columns of labels and costs, those that stand before the scores.
_NUM_BEFORE = 3


def write_markdown(
    rows: Sequence[MethodRow],
    path: Path,
    names: Mapping[str, str],
    published: PublishedData | None,
    origin: str,
    sampled: Mapping[str, Sampled],
    reference: MethodRow | None = None,
    first_score: str = "iou",
    class_names: Sequence[str] = ("normal", "tumour"),
    groups: Mapping[str, PublishedData | None] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """The table for a README: scores in per cent with their intervals, what they are of, the differences to the reference, the
    same of each group, then what was skipped or failed.

    Args:
        rows: of the comparison.
        path: to write to.
        names: scores and their titles.
        published: of the papers, on all test images or slides.
        origin: of the numbers, a line.
        sampled: what intervals are over, of all test data, `WHOLE`, and of each group.
        reference: that the others are compared with.
        first_score: the one whose differences are shown next to the scores.
        class_names: of which confusion matrices are shown where there are three or more.
        groups: of the test data that are scored apart, and what papers report on each.
        notes: that readers of the scores must know.
    """
    done = [row for row in rows if row.status == DONE]
    columns = {name: title for name, title in names.items() if any(name in row.scores for row in done)}
    whole = sampled[WHOLE]
    costs = _costs(done, whole.unit)
    lines = _score_lines(done, columns, published, reference, first_score, costs, whole)
    lines += ["", f"Scores in per cent, in brackets the 95 % interval over {over_text(done, whole)}. {origin}"]
    lines += list(filter(None, [caution(done, whole, class_names, notes)]))
    lines += _citation_lines(published, done)
    lines += _difference_lines(done, reference, columns, whole)
    lines += _confusion_lines(done, class_names) if len(class_names) > 2 else []
    for group, its in (groups or {}).items():
        lines += _group_lines(group, done, columns, its, reference, first_score, sampled[group], class_names)
    lines += ["", *(f"- {row.title} {'as before' if row.refused else row.status}: {row.reason}" for row in rows if row.reason)]
    lines += ["", *(f"- Made by {_call(one)}: {what}" for one, what in made_by(done))]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines).rstrip() + "\n")


def _call(origin: Origin | None) -> str:
    return f"`{origin.command}` ({origin.text})" if origin is not None else NOT_RECORDED


def _group_lines(
    group: str,
    rows: Sequence[MethodRow],
    columns: Mapping[str, str],
    published: PublishedData | None,
    reference: MethodRow | None,
    first_score: str,
    sampled: Sampled,
    class_names: Sequence[str],
) -> list[str]:
    """The scores and differences of a group of the test data."""
    of_group = [row.of_group(group) for row in rows if group in row.of_groups]
    if not of_group:
        return []
    its_reference = row_of(reference, of_group)
    lines = ["", f"Test {sampled.unit}s of the group {group}:", ""]
    lines += _score_lines(of_group, columns, published, its_reference, first_score, {}, sampled)
    said = list(filter(None, [caution(of_group, sampled, class_names)]))
    said += _citation_lines(published, of_group)
    lines += ["", *said] if said else []
    return lines + _difference_lines(of_group, its_reference, columns, sampled)


def _citation_lines(published: PublishedData | None, rows: Sequence[MethodRow]) -> list[str]:
    shown = cited(published, rows)
    return [f"Published on {citation_text(shown)}"] if shown is not None else []


def _costs(rows: Sequence[MethodRow], unit: str) -> dict[str, list[str]]:
    """Headers of the columns of labels and costs, each with one text per row; labels stand before the scores."""
    costs = {
        "learned from": [labels_text(row, row.effort, "-") for row in rows],
        "labels to select": [labels_text(row, row.selection, "-") for row in rows],
        "um per pixel, overlays": [reading_text(row) for row in rows],
        "training, min": [_cell(row.training_minutes, 1) for row in rows],
        f"s per {unit}": [_cell(row.seconds_per_image, 2) for row in rows],
        "memory, GiB": [_gib(row.peak_bytes) for row in rows],
    }
    if any(row.gpu_bytes is not None for row in rows):
        costs["GPU, GiB"] = [_gib(row.gpu_bytes) for row in rows]
    return costs


def _score_lines(
    rows: Sequence[MethodRow],
    columns: Mapping[str, str],
    published: PublishedData | None,
    reference: MethodRow | None,
    first_score: str,
    costs: Mapping[str, list[str]],
    sampled: Sampled,
) -> list[str]:
    """The table of scores, and of what they cost where `costs` say it."""
    against = _against(rows, reference, columns, first_score)
    before, after = list(costs)[:_NUM_BEFORE], list(costs)[_NUM_BEFORE:]
    header = ["method", *before, *columns.values(), *against, *after]
    lines = [_line(header), "|" + "---|" * len(header)]
    for index, row in enumerate(rows):
        notes = [trainings_text(row, sampled), verdict(row, rows, first_score), remedy(row, rows, first_score)]
        cells = [_noted(row, notes), *(costs[name][index] for name in before)]
        cells += [percent(row.scores.get(name)) for name in columns]
        cells += [of_rows[row.key] for of_rows in against.values()]
        lines.append(_line([*cells, *(costs[name][index] for name in after)]))
        of_method = published.of(row.key, row.config) if published is not None else {}
        if of_method:
            shown = [f"{100 * of_method[name]:.1f}" if name in of_method else "" for name in columns]
            empty = [""] * (len(against) + len(after))
            lines.append(_line([f"{row.title}, published", *("" for _ in before), *shown, *empty]))
    return lines


def _confusion_lines(rows: Sequence[MethodRow], class_names: Sequence[str]) -> list[str]:
    lines = []
    for row in rows:
        if row.confusion is not None and row.key != FLOOR:
            lines += ["", f"{row.title}: of each true class, per cent given to each class", ""]
            lines += ["| true class | " + " | ".join(class_names) + " |", "|" + "---|" * (len(class_names) + 1)]
            lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in confusion_shares(row.confusion, class_names)]
    return lines


def _against(
    rows: Sequence[MethodRow], reference: MethodRow | None, columns: Mapping[str, str], name: str
) -> dict[str, dict[str, str]]:
    """Headers of the columns of differences in one score, each with one text per row: to the reference, and to the floor."""
    floors = [row for row in rows if row.key == FLOOR]
    found = {}
    for other in dict.fromkeys(row.key for row in [reference, *floors] if row is not None):
        row = next(row for row in rows if row.key == other)
        of_rows = differences_to(row, rows, [name])
        found[f"{columns.get(name, name)} against {row.title}"] = {
            one.key: "reference" if one.key == other else difference_text(of_rows.get(one.key, {}).get(name)) for one in rows
        }
    return found


def _difference_lines(
    rows: Sequence[MethodRow], reference: MethodRow | None, columns: Mapping[str, str], sampled: Sampled
) -> list[str]:
    """The table of differences in every score to the reference."""
    if reference is None or len(rows) < 2:
        return []
    of_rows = differences_to(reference, rows, list(columns))
    said = (
        f"Differences to {reference.title}, in points: paired, over the same draws of the same cases; in brackets the 95 % "
        f"interval over {over_text(rows, sampled)}, then in how many draws the method is ahead. Use these, not overlaps of "
        "intervals, to compare methods."
    )
    lines = ["", said]
    lines += ["", "| method | " + " | ".join(columns.values()) + " |", "|" + "---|" * (len(columns) + 1)]
    for row in rows:
        if row.key in of_rows:
            cells = [difference_text(of_rows[row.key].get(name)) for name in columns]
            lines.append(_line([_noted(row, [pair_text(row, reference, sampled)]), *cells]))
    return lines


def _noted(row: MethodRow, notes: Sequence[str]) -> str:
    """A row's title with its notes in brackets."""
    said = "; ".join(filter(None, notes))
    return row.title + (f" ({said})" if said else "")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _gib(size: int | None) -> str:
    return f"{size / 2**30:.1f}" if size else "-"


def _cell(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
