"""The first thing that a bundle's configuration runs: from here on `shared` is the code of that bundle.

Configurations run this file by its path, since `shared` may not be found before. It imports nothing of `shared` itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

NAME = "shared"


def require(version: str, folder: str | Path | None = None) -> None:
    """Make `shared` that of a bundle, whatever the working directory, and check that it is of the bundle's version.

    The bundle's folder comes first on ``sys.path``, unless the same code is found without it.

    Args:
        version: of `shared`, as in the bundle's ``metadata.json``.
        folder: that of the code; None for the folder of this file.

    Raises:
        RuntimeError: naming both folders, if this process has loaded another module of that name, or the code of another version.
    """
    # Not resolved: a bundle of a checkout has a link to the code.
    own = Path(folder or Path(__file__).parent).absolute()
    if NAME not in sys.modules and not _is_found_without(own):
        sys.path.insert(0, str(own.parent))
        importlib.invalidate_caches()
    loaded = importlib.import_module(NAME)
    if not hasattr(loaded, "require_version"):
        raise RuntimeError(
            f"the bundle {own.parent} contains its own package {NAME!r}, but this process has already loaded another package "
            f"of that name, from {_place(loaded)}: use the bundle in a separate process, or rename the other package"
        )
    _explain_errors()
    loaded.require_version(version)
    # Packed code has its digest in the version; that of a checkout may be any.
    if "+" not in version and not _is_same(loaded, own):
        raise RuntimeError(
            f"the bundle {own.parent} needs the code in {own}, but this process has already loaded that of another checkout, "
            f"from {_place(loaded)}: use bundles of different checkouts in separate processes"
        )


def _is_found_without(own: Path) -> bool:
    found = importlib.util.find_spec(NAME)
    return found is not None and found.origin is not None and Path(found.origin).parent.resolve() == own.resolve()


def _is_same(loaded: ModuleType, own: Path) -> bool:
    return loaded.__file__ is not None and Path(loaded.__file__).parent.resolve() == own.resolve()


def _place(loaded: ModuleType) -> str:
    return str(getattr(loaded, "__file__", None) or next(iter(getattr(loaded, "__path__", ())), "an unknown place"))


def _explain_errors() -> None:
    explained = importlib.import_module(f"{NAME}.front_door.explained")
    if explained.is_command_line():
        explained.explain_errors()
