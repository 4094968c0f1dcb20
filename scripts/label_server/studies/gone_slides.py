"""The labels of slides whose files have disappeared from the studies folder, for the time when they return."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from shared.data.tissue_cache import slide_content_key
from shared.writers.atomic import atomic_path

# Entries of every slide; whatever else is known of one is worth keeping.
OF_EVERY_SLIDE = frozenset({"ts", "name", "path"})
# The content of the file that was labelled, and of the one that was put in its place, if the label has not been stated again.
CONTENT, CONTENT_NOW = "content_key", "content_key_now"
# Entries that the server itself adds to slides without a label.
OF_THE_SERVER = frozenset({CONTENT, CONTENT_NOW, "strategy"})


class GoneSlides:
    """Keeps the labels of slides that are gone for a while, as when a disk is not mounted or a folder is renamed.

    A slide is known by its id, the name of its file and its content, as slides of several patients may have the same name one
    after another. Whoever calls holds the lock of the studies folder.

    Args:
        path: path of the file, created when the first slide disappears. Drawings are set aside in the folder of the same name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def kept(self) -> dict[str, list[dict[str, Any]]]:
        """Id -> information on each slide that had this id, the last one to disappear at the end."""
        found = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}
        # Until 0.10.0 one slide was kept for each id, and its content was not known.
        return {image_id: [infos] if isinstance(infos, dict) else infos for image_id, infos in found.items()}

    def keep(self, infos: Mapping[str, Mapping[str, Any]]) -> None:
        """Store the information on slides that have disappeared, replacing that of their earlier disappearances.

        Args:
            infos: id -> information on the slide.
        """
        before = self.kept()
        now = {**before}
        for image_id, info in infos.items():
            others = _of_others(before.get(image_id, []), str(info.get("name")), info.get(CONTENT))
            now[image_id] = [*others, *([dict(info)] if set(info) - OF_EVERY_SLIDE else [])]
        self._write(now, before)

    def forget(self, image_id: str, path: str, info: Mapping[str, Any]) -> None:
        """Remove what is kept of a slide and of the file in its place.

        Args:
            image_id: id of the slide.
            path: path of its file in the studies folder.
            info: information on it.
        """
        before = self.kept()
        kept = before.get(image_id, [])
        for name in (CONTENT, CONTENT_NOW):
            kept = _of_others(kept, path, info.get(name))
        self._write({**before, image_id: kept}, before)

    def _write(self, kept: Mapping[str, list[dict[str, Any]]], before: Mapping[str, list[dict[str, Any]]]) -> None:
        now = {image_id: infos for image_id, infos in kept.items() if infos}
        if now != before:
            with atomic_path(self.path) as temporary:
                temporary.write_text(json.dumps(now, indent=2, default=str) + "\n", encoding="utf-8")

    def info_of(self, image_id: str, path: str, content: str | None) -> dict[str, Any] | None:
        """The information on a slide that returns with the same id, file name and content; None for any other slide.

        A file that was put in the place of a labelled one returns with its label, unless it has one of its own. What was kept
        without the content, by 0.10.0 or earlier, is that of any slide of the same id and file name.

        Args:
            image_id: id of the slide.
            path: path of its file in the studies folder.
            content: `content_of` its file.
        """
        # Of several the last.
        named = [kept for kept in reversed(self.kept().get(image_id, [])) if _is_named(kept, path)]
        best = max(named, key=lambda kept: _fit(kept, content), default={CONTENT: ""})
        return best if _fit(best, content) else None

    def drawings(self, info: Mapping[str, Any]) -> Path:
        """The folder for the drawings of a slide whose id another slide has taken."""
        unknown = hashlib.sha256(str(info.get("name")).encode()).hexdigest()
        # Below a folder, as MONAI Label takes what lies directly in one of ``labels/`` for labels.
        return self.path.with_suffix("") / str(info.get(CONTENT) or unknown)[:24]


def content_of(path: Path) -> str | None:
    """What tells the file of a slide from others, see `slide_content_key`; None if it cannot be read."""
    try:
        return slide_content_key(path)
    except OSError:
        return None


def _of_others(kept: list[dict[str, Any]], path: str, content: str | None) -> list[dict[str, Any]]:
    """What is kept of other slides than the one of this file name and content, and no longer counts for its file."""
    others = [one for one in kept if not (_is_named(one, path) and one.get(CONTENT) in (None, content))]
    return [{name: value for name, value in one.items() if (name, value) != (CONTENT_NOW, content)} for one in others]


def _is_named(kept: Mapping[str, Any], path: str) -> bool:
    return PurePosixPath(str(kept.get("name"))).name == PurePosixPath(path).name


def _fit(kept: Mapping[str, Any], content: str | None) -> int:
    """How surely something was kept of the file with this content; 0 if it was not."""
    if CONTENT not in kept:
        return 1
    if content is None:
        return 0
    return 3 if kept[CONTENT] == content else 2 if kept.get(CONTENT_NOW) == content else 0
