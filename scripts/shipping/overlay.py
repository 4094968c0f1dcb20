"""The one configuration, given after a bundle's ``inference.json``, that maps with a shipped head."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.declarations.network_items import whole_network
from shared.encoders.encoder import USUAL_MARGIN_PX, USUAL_TILE_PX, Encoder


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
        **_tile_sizes(encoder, "slide_features" in config),
    }
    # What the bundle's own file says too is stated here as well, so that the head does not depend on its defaults.
    overlay |= {key: value for key, value in whole_network(inference, config).items() if key not in overlay}
    if "feature_stride_px" in overlay:
        # What null stands for may differ in a later version.
        overlay["feature_stride_px"] = encoder.stride_px
    if "smoothing" in config:
        # Nor on what it follows from.
        overlay["smoothing"] = encoder.smoothing
    if overlay.get("encoder_file") is not None:
        # Of that machine: the head's key of the encoder says whether another file is the same.
        overlay["encoder_file"] = None
    return overlay


def _tile_sizes(encoder: Encoder, is_of_slides: bool) -> dict[str, int]:
    """Tile and margin with which the training's slides were embedded; after a training on images, about 512 px with a margin of
    64 px.
    """
    if is_of_slides:
        return {"tile_size_px": encoder.slide_tile_px, "margin_px": encoder.slide_margin_px}
    return {"tile_size_px": encoder.whole_px(USUAL_TILE_PX), "margin_px": encoder.whole_px(USUAL_MARGIN_PX)}
