"""The one configuration behind a bundle's ``inference.json`` that maps with a shipped head."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.declarations.network_items import NETWORK, is_plain, needed_items, network_items
from shared.encoders import Encoder

# A map pixel of a slide is the mean of as many along each side.
_MAP_DOWNSAMPLE = 4
_LEAST_MARGIN_PX, _LEAST_TILE_PX = 64, 512


def shipped_overlay(bundle: Path, name: str, config: Mapping[str, Any], encoder: Encoder, mpp: float) -> dict[str, Any]:
    """The settings of a training that inference needs: the network, the place of its weights, and its input.

    Args:
        bundle: its folder.
        name: of the folder in the bundle's ``models``.
        config: that the training recorded.
        encoder: of the network.
        mpp: micrometres per pixel at which slides are read.

    Returns:
        keys and values; every other key is that of ``inference.json``.
    """
    inference = json.loads((bundle / "configs" / "inference.json").read_text(encoding="utf-8"))
    checkpoint = f"$@bundle_root + '/models/{name}/model.pt'"
    overlay: dict[str, Any] = {
        "_desc_": [
            "Give this file after the bundle's inference.json: it makes maps with the head next to this file, see README.md.",
        ],
        **({"checkpoint": checkpoint} if "checkpoint" in inference else {"checkpoints": [checkpoint]}),
        "mpp": mpp,
        **({"tile_mpp": None} if "tile_mpp" in inference else {}),
        **tile_sizes(encoder),
    }
    items = network_items(inference, config)
    # What the bundle's own file says too is stated here as well, so that the head does not depend on its defaults.
    pinned = {key: config[key] for key in needed_items(items[NETWORK], config) if key in inference and is_plain(config[key])}
    overlay |= {key: value for key, value in (pinned | items).items() if key not in overlay}
    if "feature_stride_px" in overlay:
        # What null stands for may differ in a later version.
        overlay["feature_stride_px"] = encoder.stride_px
    if overlay.get("encoder_file") is not None:
        # Of that machine: the head's key of the encoder says whether another file is the same.
        overlay["encoder_file"] = None
    return overlay


def tile_sizes(encoder: Encoder) -> dict[str, int]:
    """Tiles of whole features and whole map pixels, of the encoder's own size where it has one.

    >>> class Encoder: stride_px, input_size_px = 14, None
    >>> tile_sizes(Encoder)
    {'tile_size_px': 532, 'margin_px': 84}
    """
    unit_px = math.lcm(encoder.stride_px, _MAP_DOWNSAMPLE)
    margin_px = -(-_LEAST_MARGIN_PX // unit_px) * unit_px
    return {"tile_size_px": -(-_LEAST_TILE_PX // unit_px) * unit_px, "margin_px": margin_px}
