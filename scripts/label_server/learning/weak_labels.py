"""The weak label of a slide, from the three sources in which people state it, in order of precedence.

1. The given label: ``PUT /datastore/image/info`` with ``{"weak_label": {"tumor": 1, "fraction": 0.08}}``.
2. The submitted annotations: an area of class Tumor means 1; otherwise an area of class Normal, Benign or Negative means 0.
3. The metadata of its item in the Digital Slide Archive: ``meta.weak_label``, of the same form as 1.

The first source with a label decides. The rough fraction of tumour in the tissue comes from the first source that states one
together with the same label; if there is none, the drawn area counts. Sources that contradict the label are ignored with a
warning.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from shared.data.labels.class_annotations import class_areas
from shared.wsi.annotations.annotation import Annotation
from shared.wsi.annotations.annotation_classes import is_neutral
from shared.wsi.annotations.drawing_order import visible_areas
from shared.wsi.annotations.frames import QUPATH
from shared.wsi.annotations.reading import plain_name, read_annotations

from ..refusal import Refusal

logger = logging.getLogger(__name__)

SAID, DRAWN, METADATA = "info", "annotations", "item metadata"
TUMOUR_CLASSES = frozenset({"tumor", "tumour", "cancer", "carcinoma", "metastasis", "malignant", "invasive", "_0", "_1"})
NORMAL_CLASSES = frozenset({"normal", "benign", "negative", "no tumor", "no tumour", "healthy"})
_OTHER, _NORMAL, _TUMOUR = 0, 1, 2
_NAMES, _FRACTIONS = ("tumor", "tumour"), ("fraction", "area")


@dataclass(frozen=True)
class StatedLabel:
    """A slide's label, 0 or 1, and the rough fraction of its tissue that is tumour, if it is known."""

    label: int
    fraction: float | None = None


@dataclass(frozen=True)
class DrawnAreas:
    """Areas of tumour and of normal tissue in level-0 pixels; both may be empty."""

    tumour: BaseGeometry = field(default_factory=shapely.Polygon)
    normal: BaseGeometry = field(default_factory=shapely.Polygon)

    @property
    def label(self) -> int | None:
        """1 if tumour is drawn, 0 if only normal tissue is, None if neither is."""
        return 1 if not self.tumour.is_empty else 0 if not self.normal.is_empty else None


@dataclass(frozen=True)
class WeakLabel:
    """The label of one slide.

    Args:
        label: 0 or 1.
        fraction: stated fraction of the tissue that is tumour; 0 for a normal slide, None if it was not stated.
        source: the source that decided the label.
        drawn: drawn areas that agree with the label.
    """

    label: int
    fraction: float | None
    source: str
    drawn: DrawnAreas = field(default_factory=DrawnAreas)

    def summary(self) -> dict[str, Any]:
        return {"tumor": self.label, "fraction": self.fraction, "source": self.source, "is_drawn": self.drawn.label is not None}


def weak_label(
    info: Mapping[str, Any],
    annotation_file: Path | None,
    name: str = "",
    frame: str = QUPATH,
    qupath_origin_px: tuple[int, int] = (0, 0),
    read: Callable[[Path, str, tuple[int, int]], DrawnAreas] | None = None,
) -> WeakLabel | None:
    """The weak label of a slide; None if no source states one.

    Args:
        info: information on the slide in the datastore, or its item in the Digital Slide Archive.
        annotation_file: annotations that were submitted for it.
        name: name of the slide, for the log.
        frame: coordinate frame of the annotations if the file does not name it, see `read_annotations`.
        qupath_origin_px: `Slide.qupath_origin_px` of the slide.
        read: function that reads the areas of a file; None for `drawn_areas`.

    Raises:
        Refusal: if a label is malformed.
    """
    metadata = info.get("meta")
    drawn = DrawnAreas()
    if annotation_file is not None:
        drawn = (read or drawn_areas)(annotation_file, frame, qupath_origin_px)
    stated = {
        SAID: stated_label(info),
        DRAWN: None if drawn.label is None else StatedLabel(drawn.label),
        METADATA: stated_label(metadata) if isinstance(metadata, Mapping) else None,
    }
    known = {source: label for source, label in stated.items() if label is not None}
    if not known:
        return None
    source, first = next(iter(known.items()))
    agreeing = [label for label in known.values() if label.label == first.label]
    for other, label in known.items():
        if label.label != first.label:
            logger.warning(
                "%s: the label is %d by its %s but %d by its %s; %s takes precedence",
                *(name, first.label, source, label.label, other, source),
            )
    fraction = next((label.fraction for label in agreeing if label.fraction is not None), None)
    agrees = drawn.label == first.label
    return WeakLabel(first.label, 0.0 if first.label == 0 else fraction, source, drawn if agrees else DrawnAreas())


def stated_label(info: Mapping[str, Any]) -> StatedLabel | None:
    """The ``weak_label`` of a slide's info or metadata; None if it has none.

    Raises:
        Refusal: if it is malformed, stating the expected form and the value received.

    >>> stated_label({"weak_label": {"tumor": 1, "fraction": 0.08}})
    StatedLabel(label=1, fraction=0.08)
    """
    stated = info.get("weak_label")
    if stated is None:
        return None
    if not isinstance(stated, Mapping) or not {*stated} <= {*_NAMES, *_FRACTIONS} or not any(name in stated for name in _NAMES):
        raise Refusal(f'weak_label must be of the form {{"tumor": 0 or 1, "fraction": 0 to 1}}, got {repr(stated)[:80]}')
    for names in (_NAMES, _FRACTIONS):
        values = [stated[name] for name in names if stated.get(name) is not None]
        if any(value != values[0] for value in values):
            raise Refusal(f"weak_label: {' and '.join(names)} contradict each other, got {repr(stated)[:80]}")
    label = next(stated[name] for name in _NAMES if name in stated)
    if not isinstance(label, int) or label not in (0, 1):
        raise Refusal(f"weak_label: tumor must be 0 or 1, got {repr(label)[:80]}")
    fraction = next((stated[name] for name in _FRACTIONS if stated.get(name) is not None), None)
    if fraction is None:
        return StatedLabel(int(label))
    if (
        isinstance(fraction, bool)
        or not isinstance(fraction, int | float)
        or not math.isfinite(fraction)
        or not 0 <= fraction <= 1
    ):
        raise Refusal(f"weak_label: fraction is a share between 0 and 1, got {repr(fraction)[:80]}")
    if (fraction > 0) != bool(label):
        raise Refusal(f"weak_label: tumor {int(label)} and fraction {fraction:g} contradict each other")
    return StatedLabel(int(label), float(fraction))


def check_info(info: dict[str, Any]) -> dict[str, Any]:
    """Validate the information on a slide that a client wants to store, and return it.

    Raises:
        Refusal: naming the part that is malformed or reserved for the server.
    """
    stated_label(info)
    metadata = info.get("meta")
    if isinstance(metadata, Mapping):
        stated_label(metadata)
    if "strategy" in info and (not isinstance(info["strategy"], Mapping) or len(proposals(info)) != len(info["strategy"])):
        raise Refusal(f'strategy must be of the form {{NAME: {{"ts": SECONDS}}}}, got {repr(info["strategy"])[:80]}')
    kept = sorted({"path", "name", "ts", "content_key", "content_key_now"} & set(info))
    if kept:
        raise Refusal(f"{', '.join(kept)} of a slide cannot be set: the server provides them")
    return info


def proposals(info: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Strategy -> when it last proposed the slide, from the slide's info; malformed entries are ignored.

    >>> proposals({"strategy": {"unlabelled": {"ts": 5}, "other": 7}}), proposals({"strategy": 5})
    ({'unlabelled': {'ts': 5}}, {})
    """
    found = info.get("strategy")
    kept = found.items() if isinstance(found, Mapping) else ()
    return {str(name): dict(value) for name, value in kept if isinstance(value, Mapping) and isinstance(value.get("ts"), int)}


def drawn_areas(path: Path, frame: str = QUPATH, qupath_origin_px: tuple[int, int] = (0, 0)) -> DrawnAreas:
    """The areas of an annotation file whose classes denote tumour or normal tissue; ``Tumor: Positive`` counts as ``Tumor``.

    Of nested areas the inner one counts, see `shared.wsi.annotations.drawing_order`: normal tissue, or an area of an unknown
    class, is not part of the tumour around it. Of an area's own class and those above it (its layer, the groups of its group) the
    nearest that is known counts: an area Normal in a layer Tumor is normal. Areas without a class and QuPath's ``Region*`` are
    ignored.

    Args:
        path: path of the file.
        frame: coordinate frame if the file does not name it, see `read_annotations`.
        qupath_origin_px: `Slide.qupath_origin_px` of the slide.

    Raises:
        ValueError: if the file cannot be read.
    """
    annotations = read_annotations(path, frame=frame, qupath_origin_px=qupath_origin_px)
    areas = visible_areas(class_areas(annotations, [_kind(annotation) for annotation in annotations]))
    tumour, normal = (shapely.union_all([area for area, kind in areas if kind == wanted]) for wanted in (_TUMOUR, _NORMAL))
    return DrawnAreas(tumour, normal)


def _kind(annotation: Annotation) -> int | None:
    """Tumour, normal tissue, or another class; None for an area without a class of its own."""
    for name in map(plain_name, (annotation.class_name, annotation.base_class, *annotation.parents)):
        if name in TUMOUR_CLASSES | NORMAL_CLASSES:
            return _TUMOUR if name in TUMOUR_CLASSES else _NORMAL
    return None if is_neutral(annotation) else _OTHER
