"""What a packed bundle holds: the bundle, `shared` itself instead of a link to it, and the trained network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from scripts.declarations.network_items import NETWORK, network_items
from shared import BUILD_FILE
from shared.engines.run_record import VOLATILE

from .encoders import KEY, terms_of

WEIGHTS = "model.pt"
TORCHSCRIPT = "model.ts"
TRAINING = "config.json"
TRACKING = "mlflow.json"
NOTE = "TRAINED_ON_GENERATED_DATA.txt"
ENCODER = "encoder.json"
# What the network of a training on features is read from, and its tiles.
NETWORK_CONFIGS = ("inference", "evaluate")
TILES = ("margin_px", "tile_size_px")
# Of the bundle's own folders those that runs write.
WRITTEN_BY_RUNS = frozenset({"models", "output", "mlruns"})
LEFT_OUT_SUFFIXES = (".pyc", ".part", ".log", ".db")
LARGE_FILES = ("large_files.yml", "large_files.yaml", "large_files.json")


def stage(bundle: Path, target: Path) -> None:
    """Copy a bundle without its weights, its `shared` and metadata stamped with the digest of the code.

    Two bundles in one process have one `shared`: with the digest in ``shared_version`` and in the copy itself, a bundle finds
    out that the code that is loaded is not the code that it was packed with.

    Args:
        bundle: a folder of ``bundles``; its ``shared`` may be a link.
        target: does not exist yet.

    Raises:
        ValueError: if a file is a link, other than ``shared``.
    """
    for file in files_of(bundle):
        _copy(bundle / file, target / file)
    digest = code_digest(target / "shared")
    (target / "shared" / BUILD_FILE).write_text(digest + "\n")
    path = target / "configs" / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    metadata["shared_version"] = f"{metadata['shared_version']}+{digest}"
    path.write_text(json.dumps(metadata, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def files_of(bundle: Path) -> list[Path]:
    """The files of a bundle that are packed, relative to it and sorted; of weights those of shipped heads alone."""
    files = list(_walk(bundle))
    for head in shipped_heads(bundle):
        files += [head.relative_to(bundle) / file for file in _walk(head)]
    links = [file for file in files if (bundle / file).is_symlink()]
    if links:
        raise ValueError(f"{bundle / links[0]} is a link: only the entry shared of a bundle may be one")
    return sorted(files)


def shipped_heads(bundle: Path) -> list[Path]:
    """The folders of `scripts/ship.py` in a bundle's ``models``: small heads, each with a configuration and a model card."""
    return sorted(path.parent for path in bundle.glob("models/*/inference.json") if path.with_name("README.md").is_file())


def code_digest(shared: Path) -> str:
    """Twelve hexadecimal digits of every file of a `shared`, names and bytes."""
    digest = hashlib.sha256()
    for file in sorted(_walk(shared)):
        digest.update(file.as_posix().encode() + b"\0" + hashlib.sha256((shared / file).read_bytes()).digest())
    return digest.hexdigest()[:12]


def stage_weights(training: Path, target: Path, settings: list[str]) -> None:
    """Copy the trained network and what belongs to it, such as its threshold, and a note on what it was trained on.

    Args:
        training: output folder of a training.
        target: the packed bundle's ``models``.
        settings: lines that say where the training's settings differ from the bundle's ``train.json``.
    """
    target.mkdir(exist_ok=True)
    _copy(training / WEIGHTS, target / WEIGHTS)
    for file in sorted(training.glob("*.json")):
        if file.name not in (TRAINING, TRACKING):
            _copy(file, target / file.name)
    kept = {name: value for name, value in read_training(training).items() if name not in VOLATILE and name != "_meta_"}
    (target / TRAINING).write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    digest = hashlib.sha256((target / WEIGHTS).read_bytes()).hexdigest()
    (target / NOTE).write_text(_note(kept["dataset_dir"], settings, digest), encoding="utf-8")


def stage_encoder(folder: Path, training: Path) -> None:
    """For a head on features, record the encoder that it needs and make it the network of the packed configurations.

    Args:
        folder: of the staged bundle, with its weights.
        training: output folder of the training.
    """
    state = torch.load(folder / "models" / WEIGHTS, map_location="cpu", weights_only=True)
    if KEY not in state:
        return
    config = read_training(training)
    entry = terms_of(config).entry(bytes(state[KEY].tolist()).hex())
    (folder / "models" / ENCODER).write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
    for name in NETWORK_CONFIGS:
        _make_network(folder / "configs" / f"{name}.json", config)


def _make_network(path: Path, config: dict[str, Any]) -> None:
    known = json.loads(path.read_text(encoding="utf-8"))
    items = network_items(known, config)
    if len(items) > 1 or _without_notes(items[NETWORK]) != _without_notes(known[NETWORK]):
        tiles = {key: config[key] for key in TILES if key in config and key in known}
        path.write_text(json.dumps(known | items | tiles, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def _without_notes(network: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in network.items() if key == "_target_" or not key.startswith("_")}


def is_exported(models: Path) -> bool:
    """Whether an entry has a TorchScript file: it would hold the encoder's weights, which are not always given on."""
    path = models / ENCODER
    return not path.is_file() or bool(json.loads(path.read_text(encoding="utf-8"))["is_packed"])


def read_training(training: Path) -> dict[str, Any]:
    """The configuration that a training recorded."""
    config: dict[str, Any] = json.loads((training / TRAINING).read_text(encoding="utf-8"))
    return config


def _note(data: str, settings: list[str], digest: str) -> str:
    differences = "\n".join(f"  {line}" for line in settings) or "  none"
    return (
        f"{WEIGHTS} and {TORCHSCRIPT} were trained on images that shared/synthetic generated ({data}), not on tissue.\n"
        "They show that the bundle runs. They are not a clinical model, and how they perform on real slides is unknown.\n\n"
        f"Settings that differ from configs/train.json:\n{differences}\n\n"
        f"SHA-256 of {WEIGHTS}: {digest}\n"
    )


def _walk(top: Path) -> Iterator[Path]:
    """Files below a folder, through links to folders, relative to it."""
    for folder, folders, files in os.walk(top, followlinks=True):
        left_out = WRITTEN_BY_RUNS if Path(folder) == top else ()
        folders[:] = [name for name in folders if name not in left_out and name != "__pycache__" and not name.startswith(".")]
        for name in files:
            if not (name.startswith(".") or name.endswith(LEFT_OUT_SUFFIXES) or name in LARGE_FILES or name == BUILD_FILE):
                yield (Path(folder) / name).relative_to(top)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
