"""Annotation files of any format as annotations."""

from __future__ import annotations

import json
import logging
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path

from .annotation import Annotation, Drawing, LeftOut, area_of
from .asap import read_asap
from .imagescope import read_imagescope
from .qupath import read_qupath

logger = logging.getLogger(__name__)

ANNOTATION_SUFFIXES = (".xml", ".json", ".geojson")
# CAMELYON16's group of areas without tumour inside tumour; the plain word; QuPath's class of what is to be passed over.
EXCLUSION_NAMES = ("_2", "exclusion", "ignore*")
_XML_READERS = {"Annotations": read_imagescope, "ASAP_Annotations": read_asap}
_MAX_NAMED = 3


def read_annotations(path: str | Path, exclusion_names: Sequence[str] = EXCLUSION_NAMES) -> list[Annotation]:
    """Read the annotations of one slide, in the order of the file.

    The format is known by what the file holds: Aperio ImageScope XML (`read_imagescope`), ASAP XML (`read_asap`), QuPath's
    GeoJSON and older JSON (`read_qupath`). Outlines that cross themselves are made valid, see `area_of`. What has no area - a
    click, a line, an arrow, a ruler - is left out, and a warning says so.

    Args:
        path: ``.xml``, ``.json`` or ``.geojson``.
        exclusion_names: classes (groups in ASAP) whose areas are taken away; case does not count. A NegativeROA of ImageScope
            is one without being named.

    Returns:
        Annotations; none for a file in which nothing is drawn.

    Raises:
        ValueError: naming the file and the annotation, if the file is missing, damaged, of another format, or has an annotation
            without coordinates.
    """
    path = Path(path)
    excluded = {plain_name(name) for name in exclusion_names}
    annotations: list[Annotation] = []
    left_out: list[LeftOut] = []
    try:
        for drawing in _drawings(path):
            polygon = None if isinstance(drawing, LeftOut) else area_of(drawing.polygons)
            if isinstance(drawing, LeftOut):
                left_out.append(drawing)
            elif polygon is None:
                left_out.append(LeftOut(drawing.place, "no area"))
            else:
                name = drawing.class_name.strip()
                by_name = plain_name(name) in excluded
                layer = None if by_name else drawing.layer
                is_exclusion = by_name or drawing.is_negative
                annotations.append(Annotation(polygon, name, is_exclusion, drawing.group, drawing.place, layer))
    except OSError as error:
        raise ValueError(f"the annotations {path} cannot be read ({error})") from error
    except (ET.ParseError, json.JSONDecodeError, UnicodeError, LookupError, RecursionError) as error:
        raise ValueError(f"the annotations {path} are damaged ({error}); is the file complete?") from error
    except ValueError as error:
        raise ValueError(f"the annotations {path}: {error}") from error
    if left_out:
        named = ", ".join(f"{part.place} ({part.what})" for part in left_out[:_MAX_NAMED])
        more = f" and {len(left_out) - _MAX_NAMED} more" if len(left_out) > _MAX_NAMED else ""
        logger.warning("%s: left out what encloses no area: %s%s", path, named, more)
    return annotations


def plain_name(name: str) -> str:
    """A class name without regard to case and blanks."""
    return " ".join(name.split()).casefold()


def _drawings(path: Path) -> Iterator[Drawing | LeftOut]:
    suffix = path.suffix.lower()
    if suffix not in ANNOTATION_SUFFIXES:
        raise ValueError(
            f"annotations are read from {', '.join(ANNOTATION_SUFFIXES)}, not from {suffix or 'files without ending'}"
        )
    if suffix != ".xml":
        # Finds out UTF-8, -16 and -32, with and without a byte-order mark.
        yield from read_qupath(json.loads(path.read_bytes()))
        return
    with path.open("rb") as file:
        events = ET.iterparse(file, events=("start", "end"))
        _, root = next(events)
        if root.tag not in _XML_READERS:
            raise ValueError(
                f"the outermost element is <{root.tag}>, wanted <{'> or <'.join(_XML_READERS)}> (ImageScope or ASAP)"
            )
        yield from _XML_READERS[root.tag](events)
