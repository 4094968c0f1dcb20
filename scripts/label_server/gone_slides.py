"""What was said of slides whose files have gone from the studies folder: it counts again when they are back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from shared.writers.atomic import atomic_path

# What the datastore says of every slide itself.
_OWN = frozenset({"ts", "name", "path"})


class GoneSlides:
    """A disk that is not mounted, a folder that gets another name: the slides are gone for a while, and their labels are not.

    Args:
        path: of the file, made when the first slide goes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, infos: Mapping[str, Mapping[str, Any]]) -> None:
        """Remember what was said of slides that have gone, in place of what was said when they went before.

        Args:
            infos: id -> info of the slide.
        """
        before = self._read()
        said = {image_id: dict(info) for image_id, info in infos.items() if set(info) - _OWN}
        now = {**{image_id: info for image_id, info in before.items() if image_id not in infos}, **said}
        if now != before:
            with atomic_path(self._path) as temporary:
                temporary.write_text(json.dumps(now, indent=2, default=str) + "\n")

    def said_of(self, image_id: str, path: str) -> dict[str, Any]:
        """What was said of a slide that comes: of this id, and its file of the same name; empty for another.

        Args:
            image_id: of the slide.
            path: of its file in the studies folder.
        """
        info = self._read().get(image_id, {})
        is_same = PurePosixPath(str(info.get("name"))).name == PurePosixPath(path).name
        return {name: value for name, value in info.items() if name not in _OWN} if is_same else {}

    def _read(self) -> dict[str, Any]:
        return dict(json.loads(self._path.read_text())) if self._path.is_file() else {}
