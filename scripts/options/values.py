"""Values of a configuration's keys, as they are typed."""

from __future__ import annotations

import json
from typing import Any


def json_values(values: list[list[str]]) -> dict[str, Any]:
    """Keys and their values; words that are not JSON are taken as they are."""
    found: dict[str, Any] = {}
    for key, text in values:
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found
