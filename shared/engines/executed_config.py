"""The configuration that MONAI is executing, for the record that a run keeps of itself."""

from __future__ import annotations

import copy
import inspect
from typing import Any

from monai.bundle import ConfigParser


def executed_config() -> dict[str, Any]:
    """A copy of the configuration - files, overlays and command line merged - whose item is being evaluated by the caller.

    MONAI hands its parser to no expression or component, so it is looked up on the call stack: the outermost `ConfigParser` is
    the one that runs the workflow.

    Raises:
        RuntimeError: outside the evaluation of a configuration item.
    """
    found: ConfigParser | None = None
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, ConfigParser):
            found = owner
        frame = frame.f_back
    if found is None:
        raise RuntimeError("executed_config() is for configuration items that MONAI's ConfigParser evaluates")
    return copy.deepcopy(found.get())


def scalars(config: dict[str, Any]) -> dict[str, str | int | float | bool]:
    """The top-level numbers and words of a configuration, which are its hyper-parameters: no references, no expressions."""
    return {
        name: value
        for name, value in config.items()
        if not name.startswith("_")
        and (isinstance(value, (int, float)) or (isinstance(value, str) and not value.startswith(("$", "@", "%"))))
    }
