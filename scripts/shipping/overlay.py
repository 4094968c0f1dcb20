"""The one configuration behind a bundle's ``inference.json`` that maps with a shipped head."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.declarations.network_items import whole_network
from shared.encoders import Encoder

_TILE_PX, _MARGIN_PX = 512, 64


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
        "tile_size_px": encoder.whole_px(_TILE_PX),
        "margin_px": encoder.whole_px(_MARGIN_PX),
    }
    # What the bundle's own file says too is stated here as well, so that the head does not depend on its defaults.
    overlay |= {key: value for key, value in whole_network(inference, config).items() if key not in overlay}
    if "feature_stride_px" in overlay:
        # What null stands for may differ in a later version.
        overlay["feature_stride_px"] = encoder.stride_px
    if overlay.get("encoder_file") is not None:
        # Of that machine: the head's key of the encoder says whether another file is the same.
        overlay["encoder_file"] = None
    return overlay
