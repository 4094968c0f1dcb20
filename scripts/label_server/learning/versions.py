"""The checkpoints of a served model: the bundle's own and those trained here, one of which is current."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from shared.inference.bundle_mapper import CHECKPOINT_NAME
from shared.writers.atomic import atomic_path

from ..refusal import Refusal

ORIGINAL = "original"
POINTER, RECORD = "current.json", "version.json"
_RUN_PREFIX = "training-"


@dataclass(frozen=True)
class Version:
    """A checkpoint, with the files of its training next to it, such as ``config.json`` and the threshold."""

    name: str
    checkpoint: Path


class ModelVersions:
    """The versions of one model, in a folder of the server. Nothing is ever written next to the bundle's checkpoint.

    ``current.json`` lists the versions in the order in which they became current, and is replaced atomically once a version is
    complete. If the server is killed before that, the previous version stays current.

    Args:
        folder: folder of this model's versions.
        original: the initial checkpoint.
    """

    def __init__(self, folder: str | Path, original: str | Path) -> None:
        self.folder, self.original = Path(folder), Path(original)

    @property
    def current(self) -> Version:
        """The current version."""
        return self.get(self._history()[-1])

    def get(self, name: str) -> Version:
        if name == ORIGINAL:
            return Version(ORIGINAL, self.original)
        return Version(name, self.folder / name / CHECKPOINT_NAME)

    def listed(self) -> list[dict[str, Any]]:
        """Every version with its record, the original first."""
        current = self.current.name
        rows: list[dict[str, Any]] = [{"version": ORIGINAL, "checkpoint": str(self.original), "is_current": current == ORIGINAL}]
        for path in sorted(self.folder.glob(f"[0-9]*/{RECORD}")):
            if path.with_name(CHECKPOINT_NAME).is_file():
                rows.append(
                    {**json.loads(path.read_text()), "version": path.parent.name, "is_current": current == path.parent.name}
                )
        return rows

    def new_run(self) -> Path:
        """Create a folder for a training, which is not a version yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # A stopped training may still be writing into its own folder.
        names = [path.name.removeprefix(_RUN_PREFIX) for path in self.folder.iterdir()]
        path = self.folder / f"{_RUN_PREFIX}{max((int(name) for name in names if name.isdigit()), default=0) + 1:04d}"
        path.mkdir()
        return path

    def publish(self, run: Path, record: dict[str, Any]) -> Version:
        """Make a finished training the current version."""
        time = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with atomic_path(run / RECORD) as temporary:
            temporary.write_text(json.dumps({"time": time, "trained_from": self.current.name, **record}, indent=2) + "\n")
        name = run.name.removeprefix(_RUN_PREFIX)
        run.rename(self.folder / name)
        self._write([*self._history(), name])
        return self.get(name)

    def roll_back(self) -> Version:
        """Make the version before the current one current again; the current one stays on disk.

        Raises:
            Refusal: if the original is current.
        """
        history = self._history()
        if len(history) == 1:
            raise Refusal(f"{self.folder.name} uses its original checkpoint: there is no earlier version", 409)
        self._write(history[:-1])
        return self.current

    def choose(self, name: str) -> Version:
        """Make any existing version current; the versions after it stay on disk.

        Args:
            name: name of the version, which may be `ORIGINAL`.

        Raises:
            Refusal: if there is no version of this name.
        """
        if name not in {row["version"] for row in self.listed()}:
            raise Refusal(f"{self.folder.name} has no version {name!r}", 404)
        history = self._history()
        self._write(history[: history.index(name) + 1] if name in history else [*history, name])
        return self.current

    def record(self) -> dict[str, Any]:
        """The record of the current version's training; empty for the original."""
        path = self.current.checkpoint.with_name(RECORD)
        return dict(json.loads(path.read_text())) if self.current.name != ORIGINAL and path.is_file() else {}

    def clear_unfinished(self) -> None:
        """Remove what trainings that were killed left behind."""
        for path in self.folder.glob(f"{_RUN_PREFIX}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _history(self) -> list[str]:
        path = self.folder / POINTER
        names = list(json.loads(path.read_text())["history"]) if path.is_file() else []
        # Versions that were removed by hand are skipped.
        return [ORIGINAL, *(name for name in names if name != ORIGINAL and self.get(name).checkpoint.is_file())]

    def _write(self, history: list[str]) -> None:
        with atomic_path(self.folder / POINTER) as temporary:
            temporary.write_text(json.dumps({"history": history}) + "\n")
