"""How a bundle is trained from the labels of a viewer, as it declares it in ``configs/from_viewer.json`` and its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.declarations.supervision import SLIDES, Supervision, read_supervision

from ..refusal import Refusal

OVERLAY = "from_viewer"
KEYS = "_keys_"
# Of a manifest: what is known of a slide on which somebody has drawn, or of which a label and a fraction are said.
KNOWN = frozenset({"label", "area"})
_NAMES = ("max_epochs", "initial_weights")


@dataclass(frozen=True)
class Recipe:
    """How a bundle is trained from the labels of a viewer.

    Args:
        supervision: of the bundle: whether it learns from slides or regions, and whether those with tumour need their area.
        overlay: what differs from its ``train.json``: no masks, no test split.
        max_epochs: key of the number of epochs; None where it cannot be chosen.
        initial_weights: key of the weights to begin with; None where a training cannot begin with any.
    """

    supervision: Supervision
    overlay: Mapping[str, Any]
    max_epochs: str | None
    initial_weights: str | None

    @property
    def needs_area(self) -> bool:
        return "area" in self.supervision.learns_from

    def region(self, config: Mapping[str, Any]) -> tuple[int, float] | None:
        """Side in pixels and micrometres per pixel of a region; None where slides are trained on.

        Raises:
            Refusal: if the configuration reads images as they are stored, and so says no pixel size for regions of slides.
        """
        if self.supervision.unit == SLIDES:
            return None
        if config["mpp"] is None:
            raise Refusal(
                "the model was trained on images as they are stored (mpp null), and regions of slides need a pixel size: start "
                "the server with --train_set mpp NUMBER, micrometres per pixel"
            )
        return int(config["image_size_px"]), float(config["mpp"])


def read_recipe(bundle: Path) -> Recipe | None:
    """The recipe of a bundle; None for one that has no ``configs/from_viewer.json``: it cannot be trained from such labels.

    Args:
        bundle: its folder.

    Raises:
        ValueError: naming the file, if what it declares is wrong, or the bundle learns from what no viewer sends.
    """
    path = bundle / "configs" / f"{OVERLAY}.json"
    if not path.is_file():
        return None
    overlay = dict(json.loads(path.read_text(encoding="utf-8")))
    keys = overlay.get(KEYS, {})
    if not set(keys) <= set(_NAMES):
        raise ValueError(f"{path}, {KEYS!r}: expected entries of {', '.join(_NAMES)}; found {', '.join(keys)}")
    supervision = read_supervision(bundle)
    unknown = set(supervision.learns_from) - KNOWN
    if unknown:
        raise ValueError(
            f"{path}: the bundle learns from {', '.join(sorted(unknown))}, but viewers give {' and '.join(sorted(KNOWN))} alone: "
            "remove the file, or correct the supervision in metadata.json"
        )
    changes = {name: value for name, value in overlay.items() if not name.startswith("_")}
    return Recipe(supervision, changes, keys.get("max_epochs"), keys.get("initial_weights"))
