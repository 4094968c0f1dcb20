"""The settings by which the results of an output folder were made: ``settings.json``."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock

from ...features.slide_features import FEATURES_SUFFIX
from ...writers.atomic import contended_path
from ...writers.storage import storage_errors
from ...writers.table import check_table
from .feature_settings import unlike
from .finished import FEATURES, MAP_SUFFIX, NOT_DECISIVE, UNFINISHED
from .row_store import COLUMNS, ROWS_NAME, TABLE_NAME

SETTINGS_NAME = "settings.json"
# By which those of maps are known.
WEIGHTS = "weights_sha256"
# No slide's lock has this name: those end in .lock.
SETTINGS_LOCK_NAME = ".settings"

logger = logging.getLogger(__name__)


def claim_folder(output_dir: Path, settings: Mapping[str, Any]) -> str | None:
    """Write the settings into a folder that is to hold their results.

    Maps of other settings are replaced one by one, and a warning says that those of other slides stay. Features, which take much
    longer, are not replaced: two encoders' features in one folder would be mixed in a training, and it takes but a wrong option
    to lose the first one's. That holds from the first slide that a process begins on. The folder of tissue masks with which
    features were made stays in the settings until another is named.

    Returns:
        the folder of tissue masks with which features in the folder were made, if any.

    Raises:
        ValueError: naming the folder and every setting that differs, if it holds features made with others, or slides of such
            features are unfinished; if it holds maps where features are to be written, or features where maps are; and if
            features are to be written where there are files of features without settings, which are not this project's to
            replace; and if ``settings.json`` or ``slides.csv`` is there and is not of such results.
        StorageError: if the folder cannot be written to.
    """
    # Before anything is written there, the lock too; and again, for what another process has written meanwhile.
    _check(output_dir, settings)
    with settings_lock(output_dir):
        known = _check(output_dir, settings)
        if known is not None and not _are_features(known) and _holds(output_dir, MAP_SUFFIX):
            _warn_of_differences(output_dir, known, settings)
        masks = known.get("tissue_dir") if settings.get("result") == FEATURES and known is not None else None
        if masks is not None and settings.get("tissue_dir") is None:
            settings = {**settings, "tissue_dir": masks}
        with contended_path(output_dir / SETTINGS_NAME) as temporary:
            temporary.write_bytes(orjson.dumps(settings, option=orjson.OPT_INDENT_2))
    return masks


@contextmanager
def begun_row(output_dir: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """The block writes the row of a slide that begins: other settings claim the folder before it, or not at all.

    Raises:
        ValueError: naming the folder and what differs, if features are to be written and other settings have claimed it, while
            it held none of these.
    """
    if settings.get("result") != FEATURES:
        yield
        return
    with settings_lock(output_dir):
        known = _read(output_dir / SETTINGS_NAME)
        if known is not None and (found := unlike(output_dir, known, settings)):
            raise ValueError(
                f"{output_dir} was claimed by another run with other settings before a slide of this one had begun, and features "
                f"of different settings are never mixed {found}"
            )
        yield


@contextmanager
def settings_lock(output_dir: Path) -> Iterator[None]:
    """One process at a time reads, checks and writes the settings of a folder, or begins a slide in it."""
    folder = output_dir / ROWS_NAME
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / SETTINGS_LOCK_NAME)
    with storage_errors(folder):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _check(output_dir: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings that are there, if they let these ones claim the folder; an error if not."""
    check_table(output_dir / TABLE_NAME, COLUMNS)
    known = _read(output_dir / SETTINGS_NAME)
    if settings.get("result") != FEATURES:
        if _are_features(known) and (_holds(output_dir, FEATURES_SUFFIX) or _unfinished(output_dir)):
            raise ValueError(f"{output_dir} contains features: give maps a separate folder")
    elif known is not None and _are_features(known):
        _check_same(output_dir, known, settings)
    elif known is not None and _holds(output_dir, MAP_SUFFIX):
        raise ValueError(f"{output_dir} contains maps: give features a separate folder")
    else:
        _check_free(output_dir)
    if (output_dir / SETTINGS_NAME).exists() and not (output_dir / ROWS_NAME).exists() and not _are_of_runs(known):
        # A run makes the folder of rows first; somebody may have removed it.
        raise ValueError(
            f"{output_dir / SETTINGS_NAME} was not written by these runs: it names no {WEIGHTS}, and there is no folder "
            f"{ROWS_NAME} beside it. Move it away, or give another output folder"
        )
    return known


def _are_of_runs(known: Mapping[str, Any] | None) -> bool:
    return known is not None and (WEIGHTS in known or _are_features(known))


def _are_features(known: Mapping[str, Any] | None) -> bool:
    return known is not None and known.get("result") == FEATURES


def _holds(output_dir: Path, suffix: str) -> bool:
    return any(output_dir.glob(f"*{suffix}"))


def _unfinished(output_dir: Path) -> list[str]:
    """Names of slides that a process is at work on, or was when it ended."""
    found = []
    for path in sorted((output_dir / ROWS_NAME).glob("*.json")):
        row = _read(path)
        if row is not None and row.get("status") == UNFINISHED:
            found.append(path.name.removesuffix(".json"))
    return found


def _check_free(output_dir: Path) -> None:
    found = sorted(path.name for path in output_dir.glob(f"*{FEATURES_SUFFIX}"))
    if found:
        names = ", ".join([*found[:3], "..."][: len(found)])
        raise ValueError(
            f"{output_dir} contains {len(found)} files of features ({names}) and no {SETTINGS_NAME} that describes how they were "
            "made: they may belong to another program, and would be replaced. Give another folder; to train on them as they "
            "are, append foreign_features.json to the configurations, or switch embedding off (--run_embed '$None')"
        )


def _check_same(output_dir: Path, known: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    found = unlike(output_dir, known, settings)
    if found is None:
        return
    if _holds(output_dir, FEATURES_SUFFIX):
        raise ValueError(f"{output_dir} contains features that were made with other settings, and these are never mixed {found}")
    if names := _unfinished(output_dir):
        raise ValueError(
            f"{output_dir} is a folder of features with other settings, and these are never mixed: {names[0]} is under way, or "
            f"was when its process ended {found}"
        )


def _warn_of_differences(output_dir: Path, known: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    # As they come back from JSON.
    wanted = orjson.loads(orjson.dumps(settings))
    names = [name for name in {**known, **wanted} if name not in NOT_DECISIVE and known.get(name) != wanted.get(name)]
    if names:
        logger.warning(
            "%s contains maps that were made with other settings (%s): this run replaces those of its own slides, and all others "
            "stay as they are",
            output_dir,
            "; ".join(f"{name}: expected {wanted.get(name)}, found {known.get(name)}" for name in names),
        )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        settings = orjson.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, orjson.JSONDecodeError):
        return None
    return settings if isinstance(settings, dict) else None
