"""Annotation files of any format as annotations."""

from __future__ import annotations

import json
import logging
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import shapely

from ..file_names import comparable
from .annotation import Annotation, Drawing, LeftOut, area_of
from .annotation_file import DAMAGE, BoundedFile, opened_annotations
from .asap import read_asap
from .frames import LEVEL0, QUPATH, frame_origin_px
from .imagescope import read_imagescope
from .qupath import read_qupath, stated_frame

logger = logging.getLogger(__name__)

# CAMELYON16's group of areas without tumour inside tumour; the plain word; QuPath's class of what is to be passed over.
EXCLUSION_NAMES = ("_2", "exclusion", "ignore*")
_XML_READERS = {"Annotations": read_imagescope, "ASAP_Annotations": read_asap}
_MAX_NAMED = 3
# Of elements within each other; ImageScope's files have six.
_MAX_XML_DEPTH = 32


class AnnotationsInFrame(NamedTuple):
    """The annotations of a file, in level-0 pixels, and the frame in which the file has them."""

    annotations: list[Annotation]
    frame: str


def read_annotations(
    path: str | Path,
    exclusion_names: Sequence[str] = EXCLUSION_NAMES,
    frame: str | None = None,
    qupath_origin_px: tuple[int, int] = (0, 0),
) -> list[Annotation]:
    """Read the annotations of one slide, in the order of the file.

    The format is known by what the file holds: Aperio ImageScope XML (`read_imagescope`), ASAP XML (`read_asap`), QuPath's
    GeoJSON and older JSON (`read_qupath`). Outlines that cross themselves are made valid, see `area_of`. What has no area - a
    click, a line, an arrow, a ruler - is left out, and a warning says so.

    Args:
        path: ``.xml``, ``.json`` or ``.geojson``, with ``.gz`` after it or alone in a ``.zip``.
        exclusion_names: classes (groups in ASAP) whose areas, and those of the classes below them, are taken away; case does
            not count. A NegativeROA of ImageScope is one without being named.
        frame: of the file's coordinates, one of `ANNOTATION_FRAMES`; None: ``qupath`` for GeoJSON and JSON, ``level0`` for XML.
            A file that names its own is read in that.
        qupath_origin_px: of the slide, `Slide.qupath_origin_px`: where the frame ``qupath`` begins in level 0.

    Returns:
        Annotations in level-0 pixels; none for a file in which nothing is drawn.

    Raises:
        ValueError: naming the file and the annotation, if the file is missing, damaged, of another format, too large, or has an
            annotation without coordinates.
    """
    return read_annotations_in_frame(path, exclusion_names, frame, qupath_origin_px).annotations


def read_annotations_in_frame(
    path: str | Path,
    exclusion_names: Sequence[str] = EXCLUSION_NAMES,
    frame: str | None = None,
    qupath_origin_px: tuple[int, int] = (0, 0),
) -> AnnotationsInFrame:
    """`read_annotations`, with the frame in which the file has them."""
    path = Path(path)
    excluded = {plain_name(name) for name in exclusion_names}
    annotations: list[Annotation] = []
    left_out: list[LeftOut] = []
    try:
        with opened_annotations(path) as (file, suffix):
            drawings, own_frame = _drawings(file, suffix, frame)
            origin = frame_origin_px(own_frame, qupath_origin_px)
            for drawing in drawings:
                found = drawing if isinstance(drawing, LeftOut) else _annotation(drawing, excluded, origin)
                if isinstance(found, Annotation):
                    annotations.append(found)
                else:
                    left_out.append(found)
    except (*DAMAGE, ET.ParseError, json.JSONDecodeError, UnicodeError, LookupError) as error:
        raise ValueError(f"the annotations {path} are damaged ({error}); is the file complete?") from error
    except shapely.errors.GEOSException as error:
        raise ValueError(f"the annotations {path} have an outline that does not enclose an area: {error}") from error
    except RecursionError as error:
        raise ValueError(f"the annotations {path} are damaged: their contents are nested too deeply") from error
    except OSError as error:
        raise ValueError(f"the annotations {path} cannot be read ({error})") from error
    except ValueError as error:
        raise ValueError(f"the annotations {path}: {error}") from error
    if left_out:
        named = ", ".join(f"{part.place} ({part.what})" for part in left_out[:_MAX_NAMED])
        more = f" and {len(left_out) - _MAX_NAMED} more" if len(left_out) > _MAX_NAMED else ""
        logger.warning("%s: left out outlines that enclose no area: %s%s", path, named, more)
    return AnnotationsInFrame(annotations, own_frame)


def _annotation(drawing: Drawing, excluded: set[str], origin: tuple[int, int]) -> Annotation | LeftOut:
    """A drawn outline as an area, moved by `origin`."""
    try:
        polygon = area_of(drawing.polygons)
    except ValueError as error:
        raise ValueError(f"{drawing.place}: {error}") from error
    if polygon is None:
        return LeftOut(drawing.place, "no area")
    if origin != (0, 0):
        polygon = shapely.transform(polygon, lambda points: points + origin)
    name, parents = drawing.class_name.strip(), tuple(parent.strip() for parent in drawing.parents)
    by_name = not excluded.isdisjoint(map(plain_name, (name, *parents)))
    layer = None if by_name else drawing.layer
    return Annotation(polygon, name, by_name or drawing.is_negative, drawing.group, drawing.place, layer, parents)


def plain_name(name: str) -> str:
    """A class name without regard to case, blanks, and how accents are written."""
    return comparable(" ".join(name.split())).casefold()


def _drawings(file: BoundedFile, suffix: str, frame: str | None) -> tuple[Iterator[Drawing | LeftOut], str]:
    """The drawings of a file, read lazily, and their frame: the file's own, else `frame`, else that of the format."""
    if suffix != ".xml":
        # Finds out UTF-8, -16 and -32, with and without a byte-order mark.
        content = json.loads(file.read())
        return read_qupath(content), stated_frame(content) or frame or QUPATH
    events = _shallow(ET.iterparse(file, events=("start", "end")))
    _, root = next(events)
    if root.tag not in _XML_READERS:
        raise ValueError(f"the outermost element is <{root.tag}>, expected <{'> or <'.join(_XML_READERS)}> (ImageScope or ASAP)")
    return _XML_READERS[root.tag](events), frame or LEVEL0


def _shallow(events: Iterator[tuple[str, ET.Element]]) -> Iterator[tuple[str, ET.Element]]:
    depth = 0
    for event, element in events:
        depth += 1 if event == "start" else -1
        if depth > _MAX_XML_DEPTH:
            raise ValueError(f"more than {_MAX_XML_DEPTH} elements are nested, the innermost <{element.tag[:40]}>")
        yield event, element
