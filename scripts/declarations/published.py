"""What papers report of the methods, each number with its data set, as every bundle's ``docs/published.json`` says.

Shares of 1. Only numbers that stand in the papers' text and tables as such; where a paper's table is of another protocol the
``note`` says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = Path("docs", "published.json")


@dataclass(frozen=True)
class PublishedData:
    """Papers' results on one data set.

    Attributes:
        title: of the data set.
        citation: of the papers.
        scores: method, as on the command line -> score -> value.
        note: on how they were measured.
        overlay: of the bundles, that is these data's numbers.
        settings: method -> keys of its training and the values with which these are its numbers; none where any will do.
    """

    title: str
    citation: str
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    note: str = ""
    overlay: str = ""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def of(self, key: str, config: Mapping[str, Any] | None = None) -> dict[str, float]:
        """The scores of a method, as on the command line, with the data set's own overlay or without; none where none are, or
        where the method was trained in another way.

        Args:
            key: of the method.
            config: keys of its training and their values; None does not look at them.
        """
        bundle, *overlays = key.split("+")
        method = "+".join([bundle, *(name for name in overlays if name != self.overlay)])
        wanted = self.settings.get(method, {}) if config is not None else {}
        is_same = all((config or {}).get(name) == value for name, value in wanted.items())
        return self.scores.get(method, {}) if is_same else {}


def bundle_of(config_files: Sequence[str | Path]) -> Path:
    """The bundle that the first of some configurations belongs to: the folder above its ``configs``."""
    return Path(config_files[0]).resolve().parents[1]


def read_published(bundle: Path) -> dict[str, dict[str, Any]]:
    """Overlay of a data set -> published results of a bundle's method on it; empty if the bundle lists none.

    Each has ``title``, ``citation`` and ``scores`` (overlays of the method, joined by a plus, -> score -> value), and may have
    a ``note``, ``settings`` (overlays -> keys of the training and the values that the scores are of) and further numbers for a
    benchmark of the method.

    Raises:
        ValueError: naming the file, for one that is no JSON, and for a data set that lacks one of these.
    """
    path = bundle / FILE
    if not path.is_file():
        return {}
    try:
        found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    for name, data in found.items():
        missing = [entry for entry in ("title", "citation", "scores") if entry not in data]
        if missing:
            raise ValueError(f"{path}, {name!r}: expected the entries title, citation and scores; found no {', '.join(missing)}")
    return found


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
            own = {"+".join(filter(None, [bundle.name, overlays])): row for overlays, row in data["scores"].items()}
            settings = {"+".join(filter(None, [bundle.name, key])): one for key, one in data.get("settings", {}).items()}
            found[overlay] = PublishedData(
                before.title,
                _joined(before.citation, data["citation"], "; "),
                before.scores | own,
                _joined(before.note, data.get("note", ""), " "),
                overlay,
                before.settings | settings,
            )
    return found


def _joined(before: str, new: str, separator: str) -> str:
    return before if new in before else separator.join(filter(None, [before, new]))
