"""A bundle that no other file knows: a copy of one under another name, in a folder of bundles of its own."""

import json
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def add_newcomer(folder: Path, source: str, name: str, **settings: Any) -> Path:
    """Copy the bundle `source` of this repository to ``folder/bundles/name``: what it is called is changed within it alone.

    Args:
        folder: gets ``bundles``, and ``shared`` next to it.
        source: name of a bundle of this repository.
        name: of the new one.
        settings: keys of its ``train.json`` and ``inference.json``, in addition to those of its ``small.json``.

    Returns:
        the folder of bundles.
    """
    bundle = folder / "bundles" / name
    shutil.copytree(
        ROOT / "bundles" / source, bundle, symlinks=True, ignore=shutil.ignore_patterns("models", "output", "large_files.*")
    )
    if not (folder / "shared").exists():
        (folder / "shared").symlink_to(ROOT / "shared")
    for file in [*bundle.glob("configs/*.json"), bundle / "docs" / "README.md"]:
        file.write_text(file.read_text().replace(source, name))
    small = json.loads((bundle / "configs" / "small.json").read_text()) | settings
    for kind in ("train", "inference"):
        path = bundle / "configs" / f"{kind}.json"
        config = json.loads(path.read_text())
        config |= {key: value for key, value in small.items() if key in config and not key.startswith("_")}
        if kind == "inference":
            # Threads that read ahead: there is one at least.
            config["num_workers"] = 1
        path.write_text(json.dumps(config))
    return folder / "bundles"
