"""The folder of one training: it remembers with which configuration it was made, and refuses to be continued with another."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..handlers.tracking import Tracking
from ..writers.atomic import atomic_path
from .configuration import executed_config, scalars
from .distributed import barrier, rank
from .folder_lock import FolderLock

logger = logging.getLogger(__name__)

CONFIG = "config.json"
FILES = "_files_"

# What may differ between the run that began and the one that goes on: where and how it is computed, not what.
VOLATILE = (
    "bundle_root",
    "output_dir",
    "device",
    "num_workers",
    "amp_dtype",
    "tracking",
    "tracking_uri",
    "run_name",
    "check_configuration",
    "initialize",
    "finalize",
    "run",
    "imports",
)


class RunFolder:
    """Opens, records and guards the output folder of a training.

    While it is open the folder is this run's own, see `FolderLock`: another run is told who has it.

    Args:
        path: the output folder.
        tracking: MLflow runs to log the configuration to; None for none.
        volatile: names of top-level configuration items that may change between interruption and resumption.
        files: whose content belongs to the run as its configuration does, such as the manifest; their names must differ.
    """

    def __init__(
        self,
        path: str | Path,
        tracking: Tracking | None = None,
        volatile: Sequence[str] = VOLATILE,
        files: Sequence[str | Path] = (),
    ) -> None:
        self.path, self.tracking, self.volatile = Path(path), tracking, tuple(volatile)
        self.files = tuple(Path(file) for file in files)
        self._lock = FolderLock(path)

    def open(self) -> None:
        """Record the executed configuration in ``config.json``, or check that it is the recorded one, and start tracking.

        Raises:
            ValueError: if another run has the folder open, naming its process; if the folder belongs to a run with another
                configuration, or with files of another content, naming what differs.
        """
        config = json.loads(json.dumps(executed_config(), default=str, sort_keys=True))
        if self.files:
            config[FILES] = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in self.files}
        self._lock.acquire()
        try:
            self._open(config)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, config: dict[str, Any]) -> None:
        file = self.path / CONFIG
        if file.is_file():
            self._check(json.loads(file.read_text()), config)
        if rank() == 0:
            with atomic_path(file) as temporary:
                temporary.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
            if self.tracking is not None:
                self.tracking.start(scalars(config), file)
        barrier()
        logger.info(f"output folder: {self.path.resolve()}")

    def close(self) -> None:
        """Mark the run as finished in MLflow, and let others have the folder."""
        try:
            if self.tracking is not None:
                self.tracking.finish()
        finally:
            self._lock.release()

    def _check(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        ignored = {*self.volatile, "_meta_", FILES}
        found = differences(
            {name: value for name, value in before.items() if name not in ignored},
            {name: value for name, value in now.items() if name not in ignored},
        )
        # A file that was not recorded, in the folder of an earlier version, may have any content.
        hashes = before.get(FILES, {})
        for file in self.files:
            if hashes.get(file.name, now[FILES][file.name]) != now[FILES][file.name]:
                found.append(f"the content of {file} has changed")
        if found:
            shown = "; ".join(found[:8]) + (f"; and {len(found) - 8} more" if len(found) > 8 else "")
            raise ValueError(
                f"{self.path} holds a run with another configuration ({shown}). Give another --output_dir, or delete the folder "
                "to begin anew; nothing was changed."
            )


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Where two configuration items differ, notes (``_desc_``) aside, a line each: ``name::of::item: this then, that now``."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted({*before, *now})
            if not key.startswith("_desc_")
            for line in differences(before.get(key), now.get(key), f"{name}::{key}" if name else key)
        ]
    return [] if before == now else [f"{name}: {before!r} then, {now!r} now"]
