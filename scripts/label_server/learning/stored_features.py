"""The settings with which a folder of features was stored, as keys of a bundle's training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from shared.encoders.encoder import GIVEN_FACTS
from shared.encoders.factory import FILES, TIMM_SOURCES
from shared.features.slide_features import FEATURES_SUFFIX
from shared.inference.cohort.folder_settings import SETTINGS_NAME

# Settings of the folder that trainings have under the same names.
_SETTINGS = ("mpp", "tile_size_px", "margin_px", "tissue_method", "tissue_mpp")


def keys_of_features(folder: Path) -> dict[str, Any]:
    """Encoder, its options, pixel size, tiles and tissue with which features were stored; empty for those of another program.

    Args:
        folder: folder of features, as `SlideEmbedder` writes it.

    Raises:
        ValueError: if the folder contains no features.
    """
    path = min(folder.glob(f"*{FEATURES_SUFFIX}"), default=None)
    if path is None:
        raise ValueError(f"{folder} contains no features (*{FEATURES_SUFFIX}): create them with scripts/embed.py")
    try:
        settings = json.loads((folder / SETTINGS_NAME).read_text(encoding="utf-8"))
        with h5py.File(path) as file:
            encoder = _encoder_keys(json.loads(file.attrs["encoder"]))
    except (OSError, ValueError, KeyError):
        return {}
    keys = {name: settings[name] for name in _SETTINGS if settings.get(name) is not None}
    return keys | encoder | _tissue_keys(settings)


def _encoder_keys(encoder: Mapping[str, Any]) -> dict[str, Any]:
    stride = encoder["stride_px"] if encoder["stride_px"] != encoder["native_stride_px"] else None
    named = {"encoder": encoder["name"], "smoothing": encoder["smoothing"], "tokens": encoder["tokens"]}
    return {**named, "feature_stride_px": stride, **_given_facts(encoder)}


def _given_facts(encoder: Mapping[str, Any]) -> dict[str, Any]:
    """What an encoder's source does not state, and must be told again where it is loaded.

    A TorchScript or torch.export file states none of it. No model of timm states a pixel size; where weights of one's own were in
    it, the training is refused anyway, because their file is not known here.
    """
    name = str(encoder["name"])
    given = GIVEN_FACTS if name.endswith(FILES) else ("mpp",) if name.startswith(TIMM_SOURCES) else ()
    return {"encoder_facts": {fact: encoder[fact] if fact in given else None for fact in GIVEN_FACTS}} if given else {}


def _tissue_keys(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The folder of the tissue that was found then, so that it need not be found again."""
    folder = settings.get("tissue_dir")
    return {"tissue_dir": folder} if folder is not None and Path(folder).is_dir() else {}
