"""The table of all slides."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bokeh.layouts import column, row
from bokeh.models import (
    BooleanFilter,
    CDSView,
    ColumnDataSource,
    DataTable,
    Div,
    HTMLTemplateFormatter,
    LayoutDOM,
    NumberFormatter,
    RangeSlider,
    Select,
    StringFormatter,
    TableColumn,
    TextInput,
)

from .cohort import Cohort
from .squares import Thumbnails, thumbnail_address

if TYPE_CHECKING:
    from .labelling.labels import Labels

ALL = "all"
_PICTURE = f'<img loading="lazy" height="{Thumbnails.HEIGHT_PX}" src="<%- value %>" alt="">'
# Column of slides.csv -> its title and its number format.
_NUMBERS = {
    "tumour_share": ("tumour share", "0.000"),
    "tumour_area_mm2": ("tumour, mm²", "0.000"),
    "tissue_area_mm2": ("tissue, mm²", "0.00"),
    "uncertainty": ("uncertainty", "0.000"),
}


class CohortTable:
    """All slides with the results of the first method. A click on a column sorts them, and the controls above filter them.

    Args:
        cohort: slides and methods.
        open_slide: called with the name of a slide that is clicked.
        labels: labels that are given on the page; None shows those of the manifest.

    Attributes:
        layout: for the page.
    """

    def __init__(self, cohort: Cohort, open_slide: Callable[[str], None], labels: Labels | None = None) -> None:
        self._cohort, self._open_slide, self._labels = cohort, open_slide, labels
        self._data = _columns(cohort, labels)
        self._source = ColumnDataSource(self._data)
        self._filter = BooleanFilter(booleans=None)
        table = DataTable(
            source=self._source,
            view=CDSView(filter=self._filter),
            columns=_shown(self._data),
            row_height=Thumbnails.HEIGHT_PX + 4,
            index_position=None,
            sizing_mode="stretch_both",
            selectable=True,
            editable=False,
            min_height=300,
            name="cohort",
        )
        self._source.selected.on_change("indices", self._picked)
        self._text = TextInput(placeholder="part of a name, a status or a reason", width=280, name="filter")
        self._status = Select(options=[ALL, *sorted(set(self._data["status"]))], value=ALL, width=140)
        self._share = RangeSlider(start=0, end=1, value=(0, 1), step=0.01, title="tumour share", width=220)
        self._count = Div(text=_count_text(len(self._data["slide"]), len(self._data["slide"])))
        for widget, event in ((self._text, "value_input"), (self._status, "value"), (self._share, "value_throttled")):
            widget.on_change(event, lambda _name, _old, _new: self._choose())
        bar = row(self._text, self._status, self._share, self._count, styles={"flex-wrap": "wrap", "gap": "8px"})
        self.layout: LayoutDOM = column(bar, table, sizing_mode="stretch_both")

    def refresh(self) -> None:
        """Show maps and labels that were added since."""
        found = _columns(self._cohort, self._labels)
        # Compared as text, because NaN differs from itself.
        if repr(found) != repr(self._data):
            self._data = found
            self._source.data = found
            self._choose()

    def _picked(self, _name: str, _old: Any, new: list[int]) -> None:
        if new:
            self._open_slide(self._data["slide"][new[0]])

    def _choose(self) -> None:
        words = self._text.value_input.lower().split()
        low, high = self._share.value
        texts = zip(self._data["slide"], self._data["status"], self._data["reason"], self._data["tumour_share"], strict=True)
        kept = [
            all(word in f"{slide} {status} {reason}".lower() for word in words)
            and self._status.value in (ALL, status)
            and (math.isnan(share) or low <= share <= high)
            and (not math.isnan(share) or (low, high) == (0, 1))
            for slide, status, reason, share in texts
        ]
        self._filter.booleans = kept
        self._count.text = _count_text(sum(kept), len(kept))


def _count_text(kept: int, everything: int) -> str:
    return f"{kept} of {everything} slides"


def _columns(cohort: Cohort, labels: Labels | None) -> dict[str, list[Any]]:
    """The columns: each slide's label and its row of the first method, or of the last method where the page trains them."""
    rows = cohort.methods[-1 if labels is not None else 0].rows if cohort.methods else {}
    names = list(cohort.slides)
    found: dict[str, list[Any]] = {
        "slide": names,
        "picture": [thumbnail_address(name, rows.get(name, {}).get("fingerprint", "")) for name in names],
        "status": [rows.get(name, {}).get("status", "not mapped") for name in names],
        "reason": [rows.get(name, {}).get("reason", "") for name in names],
        "label": [_label(cohort, name, labels) for name in names],
    }
    for column_name in _NUMBERS:
        found[column_name] = [_number(rows.get(name, {}), column_name) for name in names]
    return found


def _label(cohort: Cohort, name: str, labels: Labels | None) -> str:
    if labels is not None:
        known = labels.label(name)
        return "" if known is None else str(known.label)
    record = cohort.slides[name].record
    label = None if record is None else record.get("label")
    return "" if label is None else str(label)


def _number(row_of_slide: Mapping[str, str], name: str) -> float:
    """A number of a row; NaN if it is missing. Uncertainty, from 0 to 1, is how close the tissue's mean probability is to 0.5."""
    if name == "uncertainty":
        mean = _number(row_of_slide, "mean_probability")
        return 1 - abs(2 * mean - 1)
    try:
        return float(row_of_slide.get(name) or "nan")
    except ValueError:
        return math.nan


def _shown(data: Mapping[str, list[Any]]) -> list[TableColumn]:
    """The columns that are not empty."""
    columns = [
        TableColumn(field="picture", title="", formatter=HTMLTemplateFormatter(template=_PICTURE), width=110, sortable=False),
        TableColumn(field="slide", title="slide", formatter=StringFormatter(), width=240),
        TableColumn(field="status", title="status", width=90),
    ]
    for name, (title, text) in _NUMBERS.items():
        if not all(map(math.isnan, data[name])):
            columns.append(
                TableColumn(field=name, title=title, formatter=NumberFormatter(format=text, nan_format="-"), width=100)
            )
    for name in ("label", "reason"):
        if any(data[name]):
            columns.append(TableColumn(field=name, title=name, formatter=StringFormatter(), width=60 if name == "label" else 320))
    return columns
