"""The annotations of BACH's slides, their classes named in one way."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from ...wsi.annotations.annotation import Annotation
from ...wsi.annotations.drawing_order import visible_areas
from ...wsi.annotations.reading import read_annotations
from ..labels.class_annotations import class_areas, write_class_annotations

BACH_CLASSES = ("normal", "benign", "in situ", "invasive")


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


def write_bach_annotations(source: str | Path, target: str | Path, qupath_origin_px: tuple[int, int] = (0, 0)) -> list[int]:
    """Write the annotations of a slide again, as GeoJSON with the names of `BACH_CLASSES`.

    The annotators name one class in several ways, and a mask needs one name for each. Where areas of two classes overlap the
    smaller one is kept, see `drawn_areas`; areas that are taken away are cut out of the others.

    Args:
        source: the XML of ImageScope.
        target: ``.geojson`` to write.
        qupath_origin_px: of the slide, `Slide.qupath_origin_px`.

    Returns:
        The class indices that occur, ascending.

    Raises:
        ValueError: naming the file, and the annotation of an unknown class; for a file in which no area is annotated.
    """
    annotations = read_annotations(source)
    indices = [None if annotation.is_exclusion else _class_of(annotation, source) for annotation in annotations]
    classes = {index for index in indices if index is not None}
    if not classes:
        raise ValueError(f"the annotations {source} contain no area of {', '.join(BACH_CLASSES)}")
    areas = visible_areas(class_areas(annotations, indices))
    write_class_annotations(target, areas, BACH_CLASSES, qupath_origin_px)
    return sorted(classes)


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
