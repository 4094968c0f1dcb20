"""The labels of slides whose files have disappeared from the studies folder, for the time when they return."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from shared.writers.atomic import atomic_path

# Entries that the datastore itself adds to every slide.
_OWN = frozenset({"ts", "name", "path"})


class GoneSlides:
    """Keeps the labels of slides that are gone for a while, as when a disk is not mounted or a folder is renamed.

    Args:
        path: path of the file, created when the first slide disappears.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, infos: Mapping[str, Mapping[str, Any]]) -> None:
        """Store the information on slides that have disappeared, replacing that of earlier disappearances.

        Args:
            infos: id -> information on the slide.
        """
        before = self._read()
        said = {image_id: dict(info) for image_id, info in infos.items() if set(info) - _OWN}
        now = {**{image_id: info for image_id, info in before.items() if image_id not in infos}, **said}
        if now != before:
            with atomic_path(self._path) as temporary:
                temporary.write_text(json.dumps(now, indent=2, default=str) + "\n")

    def info_of(self, image_id: str, path: str) -> dict[str, Any]:
        """The information on a slide that returns with the same id and file name; empty for any other slide.

        Args:
            image_id: id of the slide.
            path: path of its file in the studies folder.
        """
        info = self._read().get(image_id, {})
        is_same = PurePosixPath(str(info.get("name"))).name == PurePosixPath(path).name
        return {name: value for name, value in info.items() if name not in _OWN} if is_same else {}

    def _read(self) -> dict[str, Any]:
        return dict(json.loads(self._path.read_text())) if self._path.is_file() else {}
