"""Entries that a tracking server has missed, kept in a file until it is available again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..writers.atomic import atomic_path

Entry = dict[str, Any]

BACKLOG = "mlflow_missed.jsonl"


class Backlog:
    """Entries in the order in which they came, a line of JSON for each; there is no file where there are none.

    An entry is on disk when `append` returns, and stays there until it has been sent: a killed run loses none, and may send the
    last ones twice.

    Args:
        folder: that the file is in.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / BACKLOG

    def __bool__(self) -> bool:
        return self.file.is_file()

    def entries(self) -> list[Entry]:
        """The entries in the file; a last line that a killed run has not finished does not count."""
        if not self.file.is_file():
            return []
        entries = []
        for line in self.file.read_text(encoding="utf-8").splitlines():
            try:
                entries.append(dict(json.loads(line)))
            except ValueError:
                continue
        return entries

    def append(self, entry: Entry) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as file:
            # After what a killed run has not finished.
            file.write(f"\n{json.dumps(entry)}\n" if file.tell() else f"{json.dumps(entry)}\n")
            file.flush()
            os.fsync(file.fileno())

    def send(self, apply: Callable[[Entry], None]) -> int:
        """Hand the entries over one by one, and forget those for which `apply` returns; their number.

        Raises:
            Exception: what `apply` raises; its entry and those after it are kept.
        """
        entries = self.entries()
        sent = 0
        try:
            for entry in entries:
                apply(entry)
                sent += 1
        finally:
            self._keep(entries[sent:], sent)
        return sent

    def _keep(self, entries: Sequence[Entry], num_sent: int) -> None:
        if not entries:
            self.file.unlink(missing_ok=True)
        elif num_sent:
            with atomic_path(self.file) as temporary:
                temporary.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries), encoding="utf-8")
