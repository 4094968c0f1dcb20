"""Which labels a bundle learns from, as the entry ``supervision`` of its ``metadata.json`` says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGES, SLIDES = "images", "slides"
UNITS = (IMAGES, SLIDES)
COLUMNS = ("label", "area", "mask")
# For bundles that do not say it.
LEAST_IMAGE_PX = 96
_LEAST = "least_image_px"
_LISTS = ("learns_from", "of_some", "chooses_by")


@dataclass(frozen=True)
class Supervision:
    """The default supervision of a bundle; its overlays and settings may change it, see `learned_columns` of its train.json.

    Attributes:
        you_have: the labels that its user has, in the words of the READMEs' tables.
        unit: what a row of its manifest is: ``"images"``, which may be regions of slides, or ``"slides"``.
        learns_from: columns of the manifest that the training learns from, of `COLUMNS`.
        of_some: those of them that only some of the training rows need.
        chooses_by: columns of the validation rows that choose its epoch or threshold; none where the last epoch is kept.
        least_image_px: side below which an image has lost what the method could see in it: if no pixel size is given,
            smaller ones are read finer.
    """

    you_have: str
    unit: str
    learns_from: tuple[str, ...]
    of_some: tuple[str, ...] = ()
    chooses_by: tuple[str, ...] = ()
    least_image_px: int = LEAST_IMAGE_PX


def read_supervision(bundle: Path) -> Supervision:
    """The supervision that a bundle declares.

    Args:
        bundle: its folder.

    Raises:
        ValueError: naming the file, if the entry is not there or is wrong.
    """
    path = bundle / "configs" / "metadata.json"
    try:
        return _checked(json.loads(path.read_text(encoding="utf-8")).get("supervision"))
    except ValueError as error:
        raise ValueError(f"{path}, 'supervision': {error}") from error


def _checked(entry: Any) -> Supervision:
    names = ("you_have", "unit", *_LISTS)
    if not isinstance(entry, Mapping) or set(entry) - {_LEAST} != set(names):
        found = ", ".join(entry) if isinstance(entry, Mapping) else repr(entry)
        raise ValueError(f"expected an object with the entries {', '.join(names)}; found {found}")
    if not isinstance(entry["you_have"], str) or not entry["you_have"]:
        raise ValueError(f"expected in you_have the labels of its user in words, found {entry['you_have']!r}")
    if entry["unit"] not in UNITS:
        raise ValueError(f"expected as unit one of {', '.join(UNITS)}, found {entry['unit']!r}")
    for name in _LISTS:
        if not isinstance(entry[name], list) or not set(entry[name]) <= set(COLUMNS):
            raise ValueError(f"expected as {name} a list of columns of {', '.join(COLUMNS)}, found {entry[name]!r}")
    if not set(entry["of_some"]) <= set(entry["learns_from"]):
        raise ValueError(f"expected in of_some columns of learns_from, {entry['learns_from']}, found {entry['of_some']}")
    least = entry.get(_LEAST, LEAST_IMAGE_PX)
    if isinstance(least, bool) or not isinstance(least, int) or least < 1:
        raise ValueError(f"expected as {_LEAST} a number of pixels, found {least!r}")
    learns_from, of_some, chooses_by = (tuple(entry[name]) for name in _LISTS)
    return Supervision(entry["you_have"], entry["unit"], learns_from, of_some, chooses_by, least)
