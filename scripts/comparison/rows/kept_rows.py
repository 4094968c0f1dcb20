"""Rows of earlier calls into the same folder: who compares fewer methods there keeps the others."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import shared
from shared.engines.run_record import CONFIG
from shared.synthetic import demo_manifest
from shared.writers import atomic_path

from ..data import MASKS_WHERE_GIVEN
from ..json_file import read_object
from ..planning.methods import plain_items
from ..trainings.origin import Origin
from .method_row import DONE, MethodRow

logger = logging.getLogger(__name__)

# Options that decide, in addition to the manifest and the classes, what methods learn from, choose by and are scored on.
DATA_OPTIONS = ("region_size_px", "region_mpp", "tile_mpp", "mpp", "tumour_classes", "annotation_frame", "select", "truth")
# Of options that older notes do not name: what was done then.
_BEFORE = {"truth": MASKS_WHERE_GIVEN}
_NOTE = "comparison.json"
# What is made again from the scores of each training.
_DERIVED = {"scores", "draws", "of_groups", "reliability", "maps", "confusion", "refused"}
_MADE_ANEW = "Delete the file: the same command writes it again, and repeats no training that is finished"


def check_folder(out: Path, manifest: Path, class_names: Sequence[str], options: Mapping[str, Any]) -> None:
    """Check that a folder holds no comparison of other data, nor one that was made of them with other options.

    Args:
        out: folder of the comparison.
        manifest: of the data.
        class_names: of the labels.
        options: values of `DATA_OPTIONS`.

    Raises:
        ValueError: naming what it holds and what is to be compared, or the file that says it and cannot be read.
    """
    note = out / _NOTE
    if not note.is_file():
        return
    remedy = (
        "Give another --out. If the folder holds a comparison of this manifest with these options, you may delete the file: the "
        "same command writes it again, and repeats no training that is finished"
    )
    before, now = read_object(note, remedy, ("manifest", "sha256", "class_names")), _identity(manifest, class_names, options)
    if any(before.get(name) != now[name] for name in ("sha256", "class_names")):
        raise ValueError(
            f"{out} holds a comparison on {before['manifest']} (sha256 {before['sha256'][:12]}, classes "
            f"{', '.join(before['class_names'])}); found {manifest} (sha256 {now['sha256'][:12]}, classes "
            f"{', '.join(class_names)}). Give another --out, or delete the folder; nothing was changed"
        )
    then = before.get("options")
    if then is None:
        logger.warning("%s does not record the options with which its rows were made: assuming those of this call", note)
        return
    then = _BEFORE | then
    differ = [name for name in DATA_OPTIONS if then.get(name) != now["options"][name]]
    if differ:
        expected, found = (", ".join(_option(name, values.get(name)) for name in differ) for values in (then, now["options"]))
        raise ValueError(
            f"{out} holds a comparison of the same data with other options: expected {expected}; found {found}. Give the same "
            "options again, or another --out, or delete the folder; nothing was changed"
        )


def note_folder(out: Path, manifest: Path, class_names: Sequence[str], options: Mapping[str, Any]) -> None:
    """Note what a folder holds a comparison of, for `check_folder`."""
    with atomic_path(out / _NOTE) as temporary:
        temporary.write_text(json.dumps(_identity(manifest, class_names, options), indent=2) + "\n")


def _identity(manifest: Path, class_names: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    content = Path(demo_manifest(manifest))
    digest = hashlib.sha256(content.read_bytes()).hexdigest() if content.is_file() else ""
    kept = {name: options[name] for name in DATA_OPTIONS}
    return {"manifest": str(manifest), "sha256": digest, "class_names": list(class_names), "options": kept}


def _option(name: str, value: Any) -> str:
    """The option as on the command line.

    >>> _option("tumour_classes", ["tumour", "in situ"]), _option("tile_mpp", None)
    ("--tumour_classes tumour 'in situ'", 'no --tile_mpp')
    """
    words = value if isinstance(value, list) else [value]
    return f"no --{name}" if value is None else f"--{name} {shlex.join(map(str, words))}"


def keep_row(row: MethodRow, out: Path) -> None:
    """Write the part of a row that cannot be recomputed from a method's scores."""
    values = {field.name: getattr(row, field.name) for field in dataclasses.fields(row) if field.name not in _DERIVED}
    values["origins"] = [[None if one is None else dataclasses.asdict(one) for one in calls] for calls in row.origins]
    with atomic_path(out / "rows" / f"{row.key}.json") as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


def kept_rows(out: Path, others: Collection[str] = ()) -> list[MethodRow]:
    """The rows, without scores, of methods that have a result from an earlier call, but those that are compared now.

    Args:
        out: folder of the comparison.
        others: methods that are compared now.

    Raises:
        ValueError: naming the file of a row that cannot be read.
    """
    rows = [_read_row(path) for path in sorted((out / "rows").glob("*.json"))]
    return [_with_config(row, out) for row in rows if row.key not in others and row.status == DONE]


def kept_row(out: Path, key: str) -> MethodRow | None:
    """The row, without scores, that an earlier call has finished of a method; None where there is none.

    Raises:
        ValueError: naming the file of the row, if it cannot be read.
    """
    path = out / "rows" / f"{key}.json"
    row = _read_row(path) if path.is_file() else None
    return None if row is None or row.status != DONE else _with_config(row, out)


def _with_config(row: MethodRow, out: Path) -> MethodRow:
    # Version 0.7.0 kept neither lists nor nulls, on which it depends which published numbers are those of the method.
    row.config |= plain_items(_recorded(row, out) | row.settings)
    return row


def _read_row(path: Path) -> MethodRow:
    values = read_object(path, _MADE_ANEW, ("key", "title"))
    known = {field.name for field in dataclasses.fields(MethodRow)} - _DERIVED
    unknown = sorted(values.keys() - known)
    if unknown:
        raise ValueError(
            f"{path}: expected a row of version {shared.__version__}; found {', '.join(unknown)}, which it does not know. A "
            "newer version may have written it: continue with that one, or give another --out"
        )
    origins = values.get("origins", [])
    if not isinstance(origins, list) or not all(isinstance(calls, list) for calls in origins):
        raise ValueError(f"{path}: expected as origins a list for each seed; found {json.dumps(origins)[:80]}. {_MADE_ANEW}")
    if len(origins) not in (0, len(values.get("seeds", []))):
        raise ValueError(
            f"{path}: expected origins of each of the {len(values.get('seeds', []))} seeds; found {len(origins)}. {_MADE_ANEW}"
        )
    values["origins"] = [[Origin.read(one) for one in calls] for calls in origins]
    return MethodRow(**values)


def _recorded(row: MethodRow, out: Path) -> dict[str, Any]:
    """The configuration of the row's training, as its first run recorded it; empty for a baseline."""
    files = [out / "runs" / row.key / f"seed={seed}" / CONFIG for seed in row.seeds]
    found = next((file for file in files if file.is_file()), None)
    remedy = "The training is damaged: delete its folder, and give its method again"
    return {} if found is None else read_object(found, remedy)
