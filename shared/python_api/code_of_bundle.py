"""The code that a bundle brings, loaded once a process."""

from __future__ import annotations

import importlib
import json
import runpy
from pathlib import Path
from typing import Any


def load_code(bundle: str | Path, module: str) -> Any:
    """A module of a bundle's own code.

    Args:
        bundle: its folder: of a checkout, downloaded or unpacked.
        module: its name, such as ``shared.inference``.

    Raises:
        ValueError: if this is no folder of a bundle, or its code is older than this package.
        RuntimeError: if the process has loaded the code of another version or checkout, or another package called `shared`.
    """
    bundle = Path(bundle)
    metadata, code = bundle / "configs" / "metadata.json", bundle / "shared"
    if not metadata.is_file():
        raise ValueError(f"{bundle.absolute()} is not a bundle: expected a folder with configs/metadata.json, found none")
    if not (code / "bundle_code.py").is_file():
        raise ValueError(
            f"{bundle.absolute()} contains no code that this package can run: there is no {code / 'bundle_code.py'}. Use a later "
            "version of the bundle; on Windows a checkout needs git config core.symlinks true"
        )
    version = json.loads(metadata.read_text(encoding="utf-8"))["shared_version"]
    runpy.run_path(str(code / "bundle_code.py"))["require"](str(version))
    return importlib.import_module(module)
