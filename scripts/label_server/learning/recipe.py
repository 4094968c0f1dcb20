"""How a bundle is trained on the labels of a viewer, as declared in its ``configs/from_viewer.json`` and its metadata."""

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
# Columns of a manifest that viewers provide: a label, and a fraction that was given or drawn.
KNOWN = frozenset({"label", "area"})
_NAMES = ("max_epochs", "initial_weights")


@dataclass(frozen=True)
class Recipe:
    """How a bundle is trained on the labels of a viewer.

    Args:
        supervision: supervision of the bundle: whether it learns from slides or regions, and which labels it needs.
        overlay: changes to its ``train.json``, such as no masks and no test split.
        max_epochs: key of the number of epochs; None if it cannot be chosen.
        initial_weights: key of the initial weights; None if a training always begins with new ones.
    """

    supervision: Supervision
    overlay: Mapping[str, Any]
    max_epochs: str | None
    initial_weights: str | None

    @property
    def needs_area(self) -> bool:
        return "area" in self.supervision.learns_from

    def region(self, config: Mapping[str, Any]) -> tuple[int, float] | None:
        """Side in pixels and micrometres per pixel of a region; None if the bundle trains on whole slides.

        Raises:
            Refusal: if the configuration reads images as they are stored, and so has no pixel size for regions of slides.
        """
        if self.supervision.unit == SLIDES:
            return None
        if config["mpp"] is None:
            raise Refusal(
                "the model was trained on images as they are stored (mpp null), but regions of slides need a pixel size: start "
                "the server with --train_set mpp NUMBER, in micrometres per pixel"
            )
        return int(config["image_size_px"]), float(config["mpp"])


def read_recipe(bundle: Path) -> Recipe | None:
    """The recipe of a bundle; None if it has no ``configs/from_viewer.json`` and so cannot be trained on a viewer's labels.

    Args:
        bundle: folder of the bundle.

    Raises:
        ValueError: naming the file, if its declaration is invalid or the bundle needs labels that no viewer provides.
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
            f"{path}: the bundle learns from {', '.join(sorted(unknown))}, but viewers only provide "
            f"{' and '.join(sorted(KNOWN))}: "
            "remove the file, or correct the supervision in metadata.json"
        )
    changes = {name: value for name, value in overlay.items() if not name.startswith("_")}
    return Recipe(supervision, changes, keys.get("max_epochs"), keys.get("initial_weights"))
