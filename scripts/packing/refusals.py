"""Why a bundle cannot be packed: every reason at once, before anything is written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from scripts.declarations.published import read_published
from scripts.declarations.supervision import read_supervision
from shared import __version__
from shared.engines.run_record import FILES, VOLATILE, differences

from .contents import TRAINING, WEIGHTS, read_training, shipped_heads
from .encoders import KEY, WEIGHTS as ENCODER_WEIGHTS, terms_of

REQUIRED = (
    "LICENSE",
    "configs/metadata.json",
    "configs/train.json",
    "configs/inference.json",
    "configs/evaluate.json",
    "configs/small.json",
    "configs/logging.conf",
    "docs/README.md",
    "docs/data_license.txt",
    "shared/__init__.py",
)
# Decide which images a network has seen.
DATA = ("dataset_dir", "manifest")
# Said by these entries of metadata.json.
WARNING = "generated"
WARNED_IN = ("description", "intended_use")


def reasons(bundle: Path, training: Path) -> list[str]:
    """All reasons against packing a bundle with the weights of a training; empty if there are none.

    Args:
        bundle: a folder of ``bundles``.
        training: the output folder of a training.
    """
    missing = [name for name in REQUIRED if not (bundle / name).is_file()]
    if missing:
        return [f"{bundle} lacks {', '.join(missing)}"]
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    found = [*_of_metadata(bundle, metadata), *_of_heads(bundle), *_of_weights(bundle, training)]
    return found or _of_data(bundle, training)


def settings_changed(bundle: Path, training: Path) -> list[str]:
    """A line for every setting of a training that differs from the bundle's ``train.json``."""
    ignored = {*VOLATILE, "_meta_", FILES}
    before, now = ({k: v for k, v in config.items() if k not in ignored} for config in (_train(bundle), read_training(training)))
    return [
        line.replace(" before, ", " in train.json, ").removesuffix(" now") + " in training" for line in differences(before, now)
    ]


def _of_metadata(bundle: Path, metadata: Mapping[str, Any]) -> list[str]:
    found = []
    name, version, path = bundle.name, metadata.get("version"), bundle / "configs" / "metadata.json"
    if re.search(r"_v\d*.", name):
        found.append(f"{name}: MONAI takes what follows _v as the version, so a bundle's name must not contain _v")
    if not version:
        found.append(f"{path} has no version")
    elif version not in metadata.get("changelog", {}):
        found.append(f"{path}: the changelog lacks version {version}")
    if "schema" not in metadata:
        found.append(f"{path} names no schema")
    release = __version__.partition("+")[0]
    if metadata.get("shared_version") != release:
        found.append(f"{path}: shared_version is {metadata.get('shared_version')}, but shared is {release}")
    for read in (read_supervision, read_published):
        try:
            read(bundle)
        except ValueError as error:
            found.append(str(error))
    silent = [entry for entry in WARNED_IN if WARNING not in str(metadata.get(entry, ""))]
    if silent:
        found.append(
            f"{path}: {' and '.join(silent)} must state that the weights were trained on generated data, so that nobody takes "
            "them for a clinical model"
        )
    return found


def _of_heads(bundle: Path) -> list[str]:
    """Check that the bundle's documents name the real data on which the repository's heads were trained."""
    path = bundle / "docs" / "data_license.txt"
    text = path.read_text(encoding="utf-8")
    silent = [head.name for head in shipped_heads(bundle) if f"models/{head.name}" not in text]
    return [f"{path} does not state on which data models/{name} was trained: name the folder there" for name in silent]


def _of_weights(bundle: Path, training: Path) -> list[str]:
    path = training / WEIGHTS
    if not path.is_file():
        return [
            f"{bundle.name} has no weights: {path} does not exist. Train it (python -m monai.bundle run --config_file "
            f"{bundle}/configs/train.json), or give the training's folder as --weights"
        ]
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle has its own kinds for what is no checkpoint at all
        return [f"{path} does not load with weights_only=True: {error}"]
    if not isinstance(state, Mapping) or not state:
        return [f"{path} holds a {type(state).__name__}, expected a dictionary of tensors by name"]
    foreign = [str(key) for key, value in state.items() if not (isinstance(key, str) and isinstance(value, torch.Tensor))]
    if foreign:
        return [f"{path} is not a dictionary of tensors only: {', '.join(foreign[:3])}"]
    return _of_encoder(training, state) if any(name.startswith(ENCODER_WEIGHTS) for name in state) else []


def _of_encoder(training: Path, state: Mapping[str, Any]) -> list[str]:
    """A fine-tuned encoder is given on with the head."""
    if KEY not in state or not (training / TRAINING).is_file():
        return []
    terms = terms_of(read_training(training))
    if terms.is_given_on:
        return []
    return [
        f"{training / WEIGHTS} holds fine-tuned weights of the encoder {terms}, which must not be redistributed: pack a head "
        "on its features (features.json), which names the encoder"
    ]


def _of_data(bundle: Path, training: Path) -> list[str]:
    """Check on which data the weights were trained, by the configuration that their training saved next to them."""
    if not (training / TRAINING).is_file():
        return [
            f"{training / TRAINING} does not exist, so it is not known on what {WEIGHTS} was trained: give the folder of a "
            "training"
        ]
    before, now = _train(bundle), read_training(training)
    other = [f"{key} {now.get(key)}" for key in DATA if now.get(key) != before.get(key)]
    if not other:
        return []
    return [
        f"{training / WEIGHTS} was trained on {', '.join(other)}, not on the generated data of {bundle.name}'s train.json: it is "
        "packed, and described as trained on these data"
    ]


def _train(bundle: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((bundle / "configs" / "train.json").read_text(encoding="utf-8"))
    return config
