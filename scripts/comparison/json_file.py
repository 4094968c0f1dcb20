"""JSON files that an earlier call, another version or a user has written: whatever is wrong with one is said with its name."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any


def read_object(path: Path, remedy: str, entries: Collection[str] = ()) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: the file.
        remedy: what to do about a file that is not as expected, in a sentence.
        entries: that it must have.

    Raises:
        ValueError: naming the file that does not exist, or what was expected in it and what was found, and the remedy.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist. {remedy}")
    wanted = "a JSON object" + (f" with the entries {', '.join(entries)}" if entries else "")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected {wanted}; found text that is not JSON ({error}). {remedy}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected {wanted}; found {json.dumps(found)[:80]}. {remedy}")
    missing = [name for name in entries if name not in found]
    if missing:
        raise ValueError(f"{path}: expected {wanted}; found no {', '.join(missing)}. {remedy}")
    return found
