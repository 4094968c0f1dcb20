"""What was trained with some settings is evaluated and used with the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .configuration import executed_config
from .run_folder import CONFIG, differences

MISSING = object()


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


def trained_with(folder: str | Path, key: str) -> Any:
    """What a training's ``config.json`` says of a key; None where it says nothing, or there is none."""
    file = Path(folder) / CONFIG
    if not file.is_file():
        return None
    found = _item(json.loads(file.read_text()), key)
    return None if found is MISSING else found


def _check(file: Path, keys: Sequence[str], unless_null: Sequence[str]) -> None:
    before, now = json.loads(file.read_text()), json.loads(json.dumps(executed_config(), default=str))
    found: list[str] = []
    for key in (*keys, *unless_null):
        then, given = (_item(items, key) for items in (before, now))
        if then is not MISSING and given is not MISSING and not (key in unless_null and then is None):
            found += differences(then, given, key)
    if found:
        raise ValueError(
            f"the network of {file.parent} was trained with other settings ({'; '.join(found)}). Append the overlays and keys of "
            f"its training (they are in {file}), for instance --{found[0].partition(':')[0]} ...; to go on in spite of it: "
            "--check_training::keys '[]'"
        )


def _item(items: Any, key: str) -> Any:
    for name in key.split("::"):
        if not isinstance(items, dict) or name not in items:
            return MISSING
        items = items[name]
    return None if items == "$None" else items  # null as the command line has to say it
