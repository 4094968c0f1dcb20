"""The command that repeats a training, from the configuration that it recorded."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from shared.engines.run_record import FILES, VOLATILE

# Where things lie on a machine.
_PLACES = frozenset({*VOLATILE, FILES, "dataset_dir", "manifest", "features_dir"})


def training_command(bundle: Path, overlays: Sequence[str], config: Mapping[str, Any], data: str | None = None) -> str:
    """``python -m monai.bundle run ...`` with the overlays, and with every key that was given in addition to them.

    Args:
        bundle: its folder.
        overlays: names in its ``configs``, in the order in which the training had them.
        config: that the training recorded.
        data: the folder of the data, as the command is to name it; None where an overlay names it.

    Raises:
        ValueError: for an overlay that is not there, and if the training had definitions that none of them has.
    """
    files = [bundle / "configs" / f"{name}.json" for name in ("train", *overlays)]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise ValueError(f"{', '.join(missing)} does not exist: give the overlays of the training by their names")
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    # As the training recorded it.
    parser.resolve_macro_and_relative_ids()
    given = _changes(parser.get(), config)
    names = [f"bundles/{bundle.name}/configs/{file.name}" for file in files]
    listed = f'"{str(names).replace(" ", "")}"' if len(names) > 1 else names[0]
    given |= {} if data is None else {"dataset_dir": data}
    words = [f"python -m monai.bundle run --config_file {listed}", *(f"--{key} {_word(value)}" for key, value in given.items())]
    return " ".join(words)


def _changes(known: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    then, now = dict(_leaves(known)), dict(_leaves(config))
    changed = {key: value for key, value in now.items() if then.get(key, ...) != value}
    unknown = [key for key in changed if key not in then]
    gone = [key for key in then if key not in now]
    if unknown or gone:
        raise ValueError(
            f"the training differs from its overlays in {', '.join((unknown + gone)[:5])}: give --overlay as the training had "
            "it, in the same order, and ship with the code that it was trained with"
        )
    return changed


def _leaves(config: Mapping[str, Any], group: str = "") -> list[tuple[str, Any]]:
    """Values by the names of their groups and their own; notes and places are left out."""
    found: list[tuple[str, Any]] = []
    for name, value in config.items():
        if name.startswith(("_desc", "_meta_")) or (not group and name in _PLACES):
            continue
        if isinstance(value, Mapping) and value:
            found += _leaves(value, f"{group}{name}::")
        else:
            found.append((f"{group}{name}", value))
    return found


def _word(value: Any) -> str:
    if value is None:
        return "'$None'"
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))
