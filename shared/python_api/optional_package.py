"""Packages that only some of what there is to do needs."""

from __future__ import annotations

import importlib.util


def optional_package(name: str, purpose: str) -> None:
    """Raises ImportError with what to install, unless a package is there."""
    if importlib.util.find_spec(name) is None:
        raise ImportError(f"{purpose} need the package {name}: pip install {name}, or all of requirements-spatial.txt")
