"""How a folder of features was made, and the options that make more of the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import orjson

from ...features.encoder_options import ENCODER_OPTIONS, options_of
from ...features.slide_features import FEATURES_SUFFIX
from .finished import NOT_DECISIVE, UNNAMED_TISSUE_MPP

# Settings that follow from others.
_DERIVED = ("encoder_key", "cell_px")
# Options of scripts/embed.py. Bundles have keys of the same names, but for ``feature_stride_px`` and these.
_OF_EMBED_ALONE = ("strides_px", "slide_mpp", "tile_mpp")
_OPTIONS = (
    "encoder",
    *ENCODER_OPTIONS,
    *("mpp", "slide_mpp", "tile_mpp", "tile_size_px", "margin_px", "tissue_method", "tissue_mpp"),
)


def unlike(folder: Path, known: Mapping[str, Any], settings: Mapping[str, Any]) -> str | None:
    """How the features in a folder differ from those of other settings, and the remedy; None where they are the same.

    Args:
        folder: which has features.
        known: its settings.
        settings: of the features that are wanted.
    """
    # As they come back from JSON.
    wanted = orjson.loads(orjson.dumps(settings))
    found = {"tissue_mpp": UNNAMED_TISSUE_MPP} | {name: value for name, value in known.items() if value is not None}
    names = [name for name in {**found, **wanted} if name not in NOT_DECISIVE and found.get(name) != wanted.get(name)]
    if not names:
        return None
    options = {"wanted": wanted.pop("encoder_options", {}), "found": known.get("encoder_options") or _stored_options(folder)}
    if "encoder_key" in names and all(options.values()):
        names += [name for name in ENCODER_OPTIONS if options["found"].get(name) != options["wanted"].get(name)]
        wanted, found = wanted | options["wanted"], found | options["found"]
    explained = [name for name in names if name not in _DERIVED] or names
    if "encoder_key" in names and not {"encoder", *ENCODER_OPTIONS} & set(explained):
        # Other weights of an encoder of the same name.
        explained = ["encoder_key", *(name for name in explained if name != "encoder_key")]
    shown = "; ".join(f"{name}: expected {wanted.get(name)}, found {found.get(name)}" for name in explained)
    return f"({shown}). {_remedy(explained, found)}"


def _remedy(names: list[str], found: Mapping[str, Any]) -> str:
    other = "give another folder, or delete this one"
    if not all(name in _OPTIONS for name in names):
        return other.capitalize()
    given = " ".join(_option(name, found.get(name)) for name in names)
    of_bundles = " (stride_px is feature_stride_px in bundles)" if "stride_px" in names else ""
    if own := [name for name in names if name in _OF_EMBED_ALONE]:
        of_bundles += (
            f" (bundles have no {' or '.join(own)}: there --run_embed '$None' reads features as they are, and slides have their "
            "pixel sizes in the manifest's column mpp)"
        )
    return f"To use these features give the settings with which they were made: {given}{of_bundles}. Otherwise {other}"


def _option(name: str, value: Any) -> str:
    if value is None:
        return f"no --{name}"
    return f"--{name} {' '.join(map(str, value)) if isinstance(value, list) else value}"


def _stored_options(folder: Path) -> dict[str, Any]:
    """Options of the encoder as the first file of a folder describes it; none where that cannot be read."""
    path = min(folder.glob(f"*{FEATURES_SUFFIX}"), default=None)
    if path is None:
        return {}
    try:
        with h5py.File(path, "r", locking=False) as file:
            return options_of(json.loads(file.attrs["encoder"]))
    except (OSError, ValueError, KeyError):
        return {}
