"""The settings with which a folder of features was stored, as keys of a bundle's training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from shared.encoders.factory import FILES
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
    return {**named, "feature_stride_px": stride, **_facts_of_file(encoder)}


def _facts_of_file(encoder: Mapping[str, Any]) -> dict[str, Any]:
    """What a TorchScript or torch.export file does not say of itself, and must be told again where it is loaded."""
    if not str(encoder["name"]).endswith(FILES):
        return {}
    return {"encoder_facts": {name: encoder[name] for name in ("mean", "std", "mpp", "input_size_px", "licence")}}


def _tissue_keys(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The folder of the tissue that was found then, so that it need not be found again."""
    folder = settings.get("tissue_dir")
    return {"tissue_dir": folder} if folder is not None and Path(folder).is_dir() else {}
