"""Which images an earlier run has finished."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from ...data.tissue_cache import edited_mask_key, slide_content_key
from ...features.slide_features import FEATURES_SUFFIX
from ...features.slide_files import features_file
from ...writers.optional_formats import GEOPARQUET_SUFFIX, OME_ZARR_SUFFIX
from ...writers.volume import VOLUME_SUFFIXES
from ..inputs import ImageInput
from ..outputs.own_files import is_own_features, is_own_map, is_own_outlines
from ..outputs.slide_results import REPLACED_SUFFIXES, RESULT_SUFFIXES, TILE_TABLE_SUFFIX

OK, NO_TISSUE, FAILED, UNFINISHED = "ok", "no tissue", "failed", "unfinished"
# It cannot be used, and is left out: no failure of the run, see `SlideMapper`.
SKIPPED = "skipped"
FINISHED = (OK, NO_TISSUE)
# What `settings` call a result that is features and no map.
FEATURES = "features"
MAP_SUFFIX, OUTLINES_SUFFIX = RESULT_SUFFIXES[:2]
# Settings that say where something lies or explain another one, and decide nothing.
NOT_DECISIVE = ("tissue_dir", "encoder_options", "foreign_features")
# At which tissue was found where the settings of features, up to version 0.7.0, name no ``tissue_mpp``.
UNNAMED_TISSUE_MPP = 8.0


def fingerprint(settings: Mapping[str, Any], image: ImageInput) -> str:
    """A hash of everything that one image's result depends on, in 16 letters, the same in a copy: settings, the file's content,
    given mpp, the tissue masks of it that were edited in the settings' ``tissue_dir``, and its file in their
    ``foreign_features``, wherever these folders are."""
    edited = None if settings.get("tissue_dir") is None else edited_mask_key(settings["tissue_dir"], image.path)
    theirs = settings.get("foreign_features")
    features = None if theirs is None else _content_key(features_file(theirs, image.path, image.name))
    decisive = {name: value for name, value in settings.items() if name not in NOT_DECISIVE}
    parts = [decisive, _content_key(image.path), image.mpp, *(key for key in (edited, features) if key)]
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def file_problem(row: Mapping[str, Any]) -> str | None:
    """What is wrong with the file of an image that failed or was skipped: a ValueError. None where anything else went wrong."""
    reason, mark = str(row["reason"]), f"{ValueError.__name__}: "
    return reason.removeprefix(mark) if reason.startswith(mark) else None


def _content_key(path: str | Path) -> str | None:
    """The content of a slide or of its features; None where it cannot be read, which fails where it is mapped."""
    with suppress(OSError):
        return slide_content_key(path)
    return None


def accepted_fingerprints(settings: Mapping[str, Any], image: ImageInput, masks: str | None = None) -> set[str]:
    """Fingerprints of results that are those of these settings.

    Args:
        settings: of the results that are wanted.
        image: what they are of.
        masks: folder of the tissue masks with which features in the output folder were made. Where `settings` name no such
            folder, features of masks that were edited there are taken as they are.
    """
    accepted = [settings]
    if settings.get("result") == FEATURES:
        if masks is not None and settings.get("tissue_dir") is None:
            accepted.append({**settings, "tissue_dir": masks})
        if settings.get("tissue_mpp") == UNNAMED_TISSUE_MPP:
            accepted.append({**settings, "tissue_mpp": None})
    return {fingerprint(one, image) for one in accepted}


def result_suffixes(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Endings of the files that a mapper with these settings writes for every image."""
    if settings.get("result") == FEATURES:
        return (FEATURES_SUFFIX,)
    tables = (TILE_TABLE_SUFFIX,) if settings.get("tile_table") else ()
    volumes = (VOLUME_SUFFIXES[settings["volume"]],) if settings.get("volume") else ()
    spatial = (
        *((OME_ZARR_SUFFIX,) if settings.get("ome_zarr") else ()),
        *((GEOPARQUET_SUFFIX,) if settings.get("geoparquet") else ()),
    )
    return (*RESULT_SUFFIXES, *tables, *volumes, *spatial)


def is_finished(output_dir: Path, row: Mapping[str, Any], accepted: Collection[str], suffixes: Sequence[str]) -> bool:
    """Whether an image's `row` is finished with one of these fingerprints and its files with all these endings exist, features
    with the size that the row states."""
    files = [output_dir / f"{row['slide']}{suffix}" for suffix in suffixes]
    return (
        row.get("status") in FINISHED
        and row.get("fingerprint") in accepted
        and all(file.exists() for file in files)
        and (tuple(suffixes) != (FEATURES_SUFFIX,) or row.get("file_mb") in (None, megabytes(files[0])))
    )


def megabytes(file: Path) -> float:
    """The size of a file of features, as its row states it."""
    return round(file.stat().st_size / 1e6, 3)


def discard(output_dir: Path, name: str, settings: Mapping[str, Any]) -> None:
    """Remove the files of an earlier result of the kind that a mapper with these settings writes.

    Its row must no longer call them finished: a run that is killed from here on would leave new files next to an old row.
    """
    for path in _replaced(output_dir, name, settings):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def foreign_file(output_dir: Path, name: str, settings: Mapping[str, Any], row: Mapping[str, Any] | None) -> Path | None:
    """A file in place of an image's results that no run has written, as far as its `row` and it itself say: it is not to be
    replaced.

    An attempt that failed has left none. Only one whose process died may have, whose row, written by another, has no fingerprint.
    Maps of version 0.10.0's `map_slide` have no row, nor have those whose row was removed so that they are made again: what lies
    beside a map belongs to it.
    """
    if row is not None and (row.get("status") not in (FAILED, SKIPPED) or "fingerprint" not in row):
        return None
    there = [path for path in _replaced(output_dir, name, settings) if path.exists() or path.is_symlink()]
    if settings.get("result") == FEATURES:
        return next((path for path in there if not is_own_features(path, settings["encoder_key"])), None)
    has_map = bool(there) and is_own_map(output_dir / f"{name}{MAP_SUFFIX}")
    # QuPath exports what somebody has drawn or changed under the name of the outlines.
    return next((path for path in there if not (is_own_outlines(path) if path.suffix == OUTLINES_SUFFIX else has_map)), None)


def foreign_reason(file: Path, name: str, row: Mapping[str, Any] | None) -> str:
    """Why a `foreign_file` makes its image fail, with the remedy."""
    known = "does not exist" if row is None else f"says {row.get('status')}, which leaves no files"
    return (
        f"ValueError: {file} exists and was not written by these runs: move it away, or give another output folder. "
        f"rows/{name}.json {known}, and nothing else says that this project has written it"
    )


def _replaced(output_dir: Path, name: str, settings: Mapping[str, Any]) -> list[Path]:
    """The files that `discard` removes, whether or not they are there."""
    suffixes = (FEATURES_SUFFIX,) if settings.get("result") == FEATURES else REPLACED_SUFFIXES
    return [output_dir / f"{name}{suffix}" for suffix in suffixes]
