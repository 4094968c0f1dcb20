"""The configuration that MONAI is executing, for the record that a run keeps of itself."""

from __future__ import annotations

import copy
from typing import Any

from ..front_door.given import executing_parser


def executed_config() -> dict[str, Any]:
    """A copy of the configuration - files, overlays and command line merged - whose item is being evaluated by the caller.

    Raises:
        RuntimeError: outside the evaluation of a configuration item.
    """
    return copy.deepcopy(executing_parser().get())


def scalars(config: dict[str, Any]) -> dict[str, str | int | float | bool]:
    """The top-level numbers and words of a configuration, which are its hyper-parameters: no references, no expressions."""
    return {
        name: value
        for name, value in config.items()
        if not name.startswith("_")
        and (isinstance(value, (int, float)) or (isinstance(value, str) and not value.startswith(("$", "@", "%"))))
    }
