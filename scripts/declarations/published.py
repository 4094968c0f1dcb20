"""What papers report of the methods, each number with its data set, as every bundle's ``docs/published.json`` says.

Shares of 1. Only numbers that stand in the papers' text and tables as such; where a paper's table is of another protocol the
``note`` says so.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .supervision import UNITS

FILE = Path("docs", "published.json")
# Of a row of all test images or slides.
WHOLE = ""
_ENTRIES = ("title", "citation", "rows")


@dataclass(frozen=True)
class PublishedRow:
    """A row of a paper's table.

    Attributes:
        methods: with these numbers, as on the command line, without the overlay of the data set.
        scores: score -> value.
        settings: keys of the training and the values with which these are its numbers; None stands for null or no such key. A
            comparison adds facts that no key says: the ``training_cases`` and whether it ``trains_on_regions`` of slides.
        group: the test images or slides that the scores are of, as the manifest's column calls them; `WHOLE` for all.
        unit: what the scores are of where they say nothing of the other, ``"images"`` or ``"slides"``; None for either.
    """

    methods: tuple[str, ...]
    scores: Mapping[str, float]
    settings: Mapping[str, Any] = field(default_factory=dict)
    group: str = WHOLE
    unit: str | None = None

    def is_of(self, config: Mapping[str, Any]) -> bool:
        """Whether a training with these keys and values is the one whose numbers these are."""
        return all(config.get(name) == value for name, value in self.settings.items())


@dataclass(frozen=True)
class PublishedData:
    """Papers' results on one data set.

    Attributes:
        title: of the data set.
        citation: of the papers.
        rows: of the papers' tables.
        note: on how they were measured.
        overlay: of the bundles, that is these data's numbers.
    """

    title: str
    citation: str
    rows: tuple[PublishedRow, ...] = ()
    note: str = ""
    overlay: str = ""

    @property
    def score_names(self) -> set[str]:
        """The scores that any row has."""
        return {name for row in self.rows for name in row.scores}

    def of_groups(self, groups: Collection[str]) -> PublishedData:
        """The same with the rows of some groups only, `WHOLE` among them or not."""
        return replace(self, rows=tuple(row for row in self.rows if row.group in groups))

    def of_unit(self, unit: str) -> PublishedData:
        """The same with the rows alone that hold for test data of this unit, ``"images"`` or ``"slides"``."""
        return replace(self, rows=tuple(row for row in self.rows if row.unit in (None, unit)))

    def of(self, key: str, config: Mapping[str, Any]) -> dict[str, float]:
        """The scores of a method, as on the command line, with the data set's own overlay or without; none where none are, or
        where the method was trained in another way.

        Args:
            key: of the method.
            config: keys of its training and their values.
        """
        bundle, *overlays = key.split("+")
        method = "+".join([bundle, *(name for name in overlays if name != self.overlay)])
        found: dict[str, float] = {}
        for row in self.rows:
            if method in row.methods and row.is_of(config):
                found |= row.scores
        return found


def bundle_of(config_files: Sequence[str | Path]) -> Path:
    """The bundle that the first of some configurations belongs to: the folder above its ``configs``."""
    return Path(config_files[0]).resolve().parents[1]


def read_published(bundle: Path) -> dict[str, dict[str, Any]]:
    """Overlay of a data set -> published results of a bundle's method on it; empty if the bundle lists none.

    Each has ``title``, ``citation`` and ``rows``, and may have a ``note``, ``settings`` (keys of the training and the values
    that all rows are of), a ``unit`` (``"images"`` or ``"slides"``, where the scores are of these and say nothing of the other)
    and further numbers for a benchmark of the method. A row has ``scores`` (score -> value), and may have
    ``methods`` (overlays joined by a plus, several where they are the same method; the bundle alone where it names none),
    ``settings`` of its own and a ``group``.

    Raises:
        ValueError: naming the file, for one that is not JSON, and for a data set or a row that lacks one of these, or a
            data set of another unit.
    """
    path = bundle / FILE
    if not path.is_file():
        return {}
    try:
        found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    for name, data in found.items():
        missing = [entry for entry in _ENTRIES if entry not in data]
        if missing:
            raise ValueError(f"{path}, {name!r}: expected the entries {', '.join(_ENTRIES)}; found no {', '.join(missing)}")
        if data.get("unit") not in (None, *UNITS):
            raise ValueError(f"{path}, {name!r}: expected the unit {' or '.join(UNITS)}; found {data['unit']!r}")
        for number, row in enumerate(data["rows"], start=1):
            if not row.get("scores"):
                raise ValueError(f"{path}, {name!r}, row {number}: expected the entry scores; found {', '.join(row) or 'none'}")
    return found


def published_rows(data: Mapping[str, Any], bundle: str) -> tuple[PublishedRow, ...]:
    """The rows of one data set of `read_published`.

    Args:
        data: the data set.
        bundle: name of the bundle.
    """
    return tuple(
        PublishedRow(
            tuple("+".join(filter(None, [bundle, overlays])) for overlays in row.get("methods", [""])),
            row["scores"],
            data.get("settings", {}) | row.get("settings", {}),
            row.get("group", WHOLE),
            data.get("unit"),
        )
        for row in data["rows"]
    )


def published_data(bundles: Path) -> dict[str, PublishedData]:
    """Overlay of a data set -> results published on it according to the bundles of a folder.

    Raises:
        ValueError: naming the file, for one that cannot be read.
    """
    found: dict[str, PublishedData] = {}
    for path in sorted(bundles.glob(f"*/{FILE}")):
        bundle = path.parents[1]
        for overlay, data in read_published(bundle).items():
            before = found.get(overlay, PublishedData(data["title"], ""))
            found[overlay] = PublishedData(
                before.title,
                _joined(before.citation, data["citation"], "; "),
                before.rows + published_rows(data, bundle.name),
                _joined(before.note, data.get("note", ""), " "),
                overlay,
            )
    return found


def _joined(before: str, new: str, separator: str) -> str:
    return before if new in before else separator.join(filter(None, [before, new]))
