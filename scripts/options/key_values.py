"""Keys with their values, as ``--set KEY VALUE`` gives them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def key_values(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The value of each key.

    Raises:
        ValueError: for a key that is given twice, of which the last would count without a word.

    >>> key_values([("lr", "0.1"), ("norm", "batch")])
    {'lr': 0.1, 'norm': 'batch'}
    """
    # Takes seconds to import, which --help need not wait for.
    from shared.sweeps.sweep import parse_value

    values: dict[str, Any] = {}
    for key, text in pairs:
        if key in values:
            raise ValueError(f"--set names the key {key!r} several times, and only the last would count: give it once")
        values[key] = parse_value(text)
    return values
