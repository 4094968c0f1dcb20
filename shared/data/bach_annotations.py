"""The annotations of BACH's slides, their classes named in one way."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import shapely
from shapely.geometry.base import BaseGeometry

from ..writers import annotation_feature, class_colour, write_geojson
from ..wsi import Annotation, read_annotations

BACH_CLASSES = ("normal", "benign", "in situ", "invasive")
_NORMAL_COLOUR = (128, 128, 128)
_NOT_PAINTED = -1


def bach_class(name: str) -> int:
    """The index in `BACH_CLASSES` of a class as the annotators wrote it.

    Raises:
        ValueError: if the name holds none of the classes, or several.

    >>> bach_class("Carcinoma in situ"), bach_class("In situ carcinoma"), bach_class("Carcinoma Invasive")
    (2, 2, 3)
    """
    words = " ".join(name.replace("-", " ").casefold().split())
    found = [index for index, known in enumerate(BACH_CLASSES) if known in words]
    if len(found) != 1:
        raise ValueError(f"the class {name!r} is not one of {', '.join(BACH_CLASSES)}")
    return found[0]


def write_bach_annotations(source: str | Path, target: str | Path) -> list[int]:
    """Write the annotations of a slide again, as GeoJSON with the names of `BACH_CLASSES`.

    The annotators name one class in several ways, and a mask needs one name for each. The order stays, which decides where areas
    overlap; areas that are taken away are cut out of the others.

    Args:
        source: the XML of ImageScope.
        target: ``.geojson`` to write.

    Returns:
        The class indices that occur, ascending.

    Raises:
        ValueError: naming the file, and the annotation of an unknown class; for a file in which no area is annotated.
    """
    annotations = read_annotations(source)
    indices = [_NOT_PAINTED if annotation.is_exclusion else _class_of(annotation, source) for annotation in annotations]
    if max(indices, default=_NOT_PAINTED) == _NOT_PAINTED:
        raise ValueError(f"the annotations {source} hold no area of {', '.join(BACH_CLASSES)}")
    features = (
        annotation_feature(polygon, BACH_CLASSES[index], class_colour(index) if index else _NORMAL_COLOUR, {})
        for annotation, index in zip(annotations, indices, strict=True)
        if index != _NOT_PAINTED
        for polygon in shapely.get_parts(_without_exclusions(annotation, annotations))
        if polygon.geom_type == "Polygon" and polygon.area > 0
    )
    write_geojson(target, features)
    return sorted(set(indices) - {_NOT_PAINTED})


def imagescope_mpp(path: str | Path) -> float | None:
    """Micrometres per pixel that an ImageScope file gives for its slide; None if it does not.

    Raises:
        ValueError: naming the file, if it is damaged.
    """
    try:
        with Path(path).open("rb") as file:
            _, root = next(ET.iterparse(file, events=("start",)))
        mpp = float(root.get("MicronsPerPixel") or 0)
    except (OSError, ET.ParseError, ValueError) as error:
        raise ValueError(f"the annotations {path} cannot be read ({error})") from error
    return mpp if 0 < mpp < float("inf") else None


def _class_of(annotation: Annotation, source: str | Path) -> int:
    try:
        return bach_class(annotation.class_name)
    except ValueError as error:
        raise ValueError(f"the annotations {source}: {annotation.place}: {error}") from error


def _without_exclusions(annotation: Annotation, annotations: Sequence[Annotation]) -> BaseGeometry:
    """The area of an annotation less what is taken away from its layer, or from the whole slide."""
    taken = [other.polygon for other in annotations if other.is_exclusion and other.layer in (None, annotation.layer)]
    return shapely.difference(annotation.polygon, shapely.union_all(taken)) if taken else annotation.polygon
