"""The record of a training in its folder, so that it is resumed, evaluated and used with the same configuration."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver

from ..front_door.given import executing_parser, given_now
from ..handlers.runs.files import sha256
from ..handlers.runs.parameters import effective_parameters
from ..handlers.tracking import Tracking
from ..writers.atomic import atomic_path
from .distributed import barrier, rank
from .folder_lock import FolderLock

logger = logging.getLogger(__name__)

CONFIG = "config.json"
FILES = "_files_"
# As configurations name it.
RUN_FOLDER = "shared.engines.RunFolder"
MISSING = object()

# What may differ between the run that began and the one that resumes it: where and how it is computed, not what.
VOLATILE = (
    "bundle_root",
    "output_dir",
    "device",
    "num_workers",
    "pixels_dir",
    "pixels_files",
    "pixels_gb",
    "amp_dtype",
    "tracking",
    "tracking_uri",
    "run_name",
    "check_configuration",
    "check_version",
    "roots",
    "initialize",
    "finalize",
    "run",
    "imports",
)
# Items below others of which the same is true: what is reported of the run, and what is kept of files that were read.
VOLATILE_BELOW = ("tracking", "cache")


class RunFolder:
    """Opens, records and guards the output folder of a training.

    While it is open the folder is this run's own, see `FolderLock`: another run gets an error that names the process.

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
            config[FILES] = {file.name: sha256(file) for file in self.files}
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
                self._start(self.tracking, file)
        barrier()
        logger.info(f"output folder: {self.path.resolve()}")

    def _start(self, tracking: Tracking, config_file: Path) -> None:
        parser = executing_parser()
        overlaid = [(key, value) for _, key, value in given_now(parser).entries()]
        parameters = effective_parameters(parser.get(), parser.get_parsed_content, overlaid)
        metadata = parser.get("_meta_") or {}
        tags = {
            "bundle": tracking.experiment,
            **{f"bundle_{name}": str(metadata[name]) for name in ("version",) if name in metadata},
        }
        tracking.start(parameters, config_file, tags, self.files)

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
                f"{self.path} contains a run with another configuration ({shown}). Give another --output_dir, or delete the "
                "folder to start again; nothing was changed."
            )


def executed_config() -> dict[str, Any]:
    """A copy of the configuration - files, overlays and command line merged - whose item is being evaluated by the caller.

    Raises:
        RuntimeError: outside the evaluation of a configuration item.
    """
    return copy.deepcopy(executing_parser().get())


def check_training(config: str | Path | Sequence[str | Path], keys: Sequence[str], unless_null: Sequence[str] = ()) -> None:
    """Compare the configuration that is being executed with that of a training.

    Args:
        config: the ``config.json`` of the training's folder, or of several trainings; where there is none, nothing is compared.
        keys: what decides what the network is or sees, with ``::`` between the names of nested items. Items that one of the two
            configurations does not have are passed over.
        unless_null: more keys, which are passed over also where they were null in training.

    Raises:
        ValueError: naming the items that differ, if any do.
    """
    for file in map(Path, [config] if isinstance(config, str | Path) else config):
        if file.is_file():
            _check(file, keys, unless_null)


def changed_files(folder: str | Path) -> list[Path]:
    """The files of a training, such as its manifest, that have another content than it recorded.

    Those that are gone are passed over: nothing can be trained on them.

    Args:
        folder: of the training, as `RunFolder` has recorded it; in others no file is known.
    """
    file = Path(folder) / CONFIG
    config = json.loads(file.read_text()) if file.is_file() else {}
    hashes = config.get(FILES, {})
    recorders = [name for name, item in config.items() if isinstance(item, dict) and item.get("_target_") == RUN_FOLDER]
    if not hashes or not recorders:
        return []
    named = ConfigParser(config).get_parsed_content(f"{recorders[0]}::files")
    return [path for path in map(Path, named) if path.is_file() and hashes.get(path.name, sha256(path)) != sha256(path)]


def trained_with(folder: str | Path, key: str) -> Any:
    """The value of a key in a training's ``config.json``; None if the key or the file is missing."""
    file = Path(folder) / CONFIG
    if not file.is_file():
        return None
    found = _item(json.loads(file.read_text()), key)
    return None if found is MISSING else found


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Where two configuration items differ, a line each: ``name::of::item: this before, that now``.

    Descriptions (``_desc_``) and `VOLATILE_BELOW` are ignored.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted({*before, *now})
            if not key.startswith("_desc_") and key not in VOLATILE_BELOW
            for line in differences(before.get(key), now.get(key), f"{name}::{key}" if name else key)
        ]
    return [] if before == now else [f"{name}: {before!r} before, {now!r} now"]


def _check(file: Path, keys: Sequence[str], unless_null: Sequence[str]) -> None:
    before, now = json.loads(file.read_text()), json.loads(json.dumps(executed_config(), default=str))
    recorded = ConfigParser(copy.deepcopy(before))
    found: list[str] = []
    lists: dict[str, None] = {}  # that name what differs, in order
    for name, checked in (*(("keys", key) for key in keys), *(("unless_null", key) for key in unless_null)):
        key = _referent(before, now, checked)
        then, given = (_item(items, key) for items in (before, now))
        if then is not MISSING and given is not MISSING and not (name == "unless_null" and then is None):
            differing = [line for line in _differing(recorded, now, key) if line not in found]
            found += differing
            lists |= dict.fromkeys([name] if differing else [])
    if found:
        raise ValueError(
            f"the network of {file.parent} was trained with other settings ({'; '.join(found)}). Append the overlays and keys of "
            f"its training (they are in {file}), for instance --{found[0].partition(':')[0]} ...; to continue anyway: "
            + " ".join(f"--check_training::{name} '[]'" for name in lists)
        )


def _differing(recorded: ConfigParser, now: Mapping[str, Any], key: str) -> list[str]:
    """Where an item that both sides have differs, by its value where at least one of them is an expression."""
    before = recorded.get()
    then, given = (_item(items, key) for items in (before, now))
    are_expressions = [isinstance(item, str) and item.startswith(("$", "@")) for item in (then, given)]
    if not any(are_expressions) or (then == given and _refers_alike(before, now, then)):
        return differences(then, given, key)
    try:
        values = _value(recorded, key, then), _value(executing_parser(), key, given)
    except Exception:  # whatever an expression raises: what cannot be computed is compared as it is written
        return differences(then, given, key)
    if values[0] == values[1]:
        return []
    # Two expressions that are written alike say nothing.
    return differences(*(values if then == given else (then, given)), key)


def _referent(before: Mapping[str, Any], now: Mapping[str, Any], key: str) -> str:
    """The key that decides the item: ``encoded_mpp`` where both sides have ``@encoded_mpp``."""
    then, given = (_item(items, key) for items in (before, now))
    if then != given or not isinstance(then, str) or not then.startswith("@"):
        return key
    named = then[1:]
    return key if MISSING in (_item(before, named), _item(now, named)) else _referent(before, now, named)


def _refers_alike(before: Mapping[str, Any], now: Mapping[str, Any], item: str) -> bool:
    """Whether all that an expression refers to is written alike on both sides. Components are not looked into: they cost
    seconds to make, and weights that an encoder does not fit are refused where they are loaded."""
    for key in ReferenceResolver.match_refs_pattern(item):
        then, given = (_item(items, key) for items in (before, now))
        if isinstance(then, Mapping) or isinstance(given, Mapping):
            continue
        if then != given or (isinstance(then, str) and not _refers_alike(before, now, then)):
            return False
    return True


def _value(parser: ConfigParser, key: str, item: Any) -> Any:
    return parser.get_parsed_content(key) if isinstance(item, str) else item


def _item(items: Any, key: str) -> Any:
    for name in key.split("::"):
        if not isinstance(items, dict) or name not in items:
            return MISSING
        items = items[name]
    return None if items == "$None" else items  # null as the command line has to say it
