"""A map's annotations in the formats of the viewers: ASAP XML, DSA JSON, MONAI Label's own JSON, GeoJSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import quoteattr

import orjson

from shared.wsi.annotations.frames import FRAME_MEMBER

from ..maps.contours import Feature, class_colours, contours_by_class

_INDENT = "  "


@dataclass(frozen=True)
class Answer:
    """The answer to a request for a map.

    Args:
        model: name of the bundle.
        version: version of its weights.
        description: description of the bundle.
        location: (x, y) of the region in level-0 pixels from the frame's origin, (0, 0) for a whole slide.
        size: (width, height) of the region in level-0 pixels, (0, 0) for a whole slide.
        features: annotations as GeoJSON features, in level-0 pixels from the frame's origin.
        labels: colour of each class of the model, whether it occurs or not.
        min_poly_area: least area of a polygon in square pixels; GeoJSON contains smaller ones, too.
        facts: further facts for clients, such as the seconds taken and whether the map was cached.
        annotation_frame: coordinate frame that GeoJSON names, one of `ANNOTATION_FRAMES`; None omits it.
    """

    model: str
    version: str
    description: str
    location: tuple[int, int]
    size: tuple[int, int]
    features: list[Feature]
    labels: Mapping[str, tuple[int, int, int]]
    min_poly_area: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    annotation_frame: str | None = None

    @property
    def colours(self) -> dict[str, tuple[int, int, int]]:
        return dict(self.labels) | class_colours(self.features)


def asap_xml(answer: Answer) -> bytes:
    """ASAP's XML, as the QuPath extension reads it: one ``Annotation`` per polygon, with the name and colour of its class."""
    x, y, width, height = *answer.location, *answer.size
    head = {
        "Name": answer.model,
        "Description": answer.description,
        "Model": answer.model,
        "X": x,
        "Y": y,
        "W": width,
        "H": height,
    }
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', "<ASAP_Annotations>", f"{_INDENT}<Annotations{_attributes(head)}>"]
    colours = {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in answer.colours.items()}
    found = contours_by_class(answer.features, answer.min_poly_area)
    for name, outlines in found.items():
        kind = _attributes({"Name": name, "Type": "Polygon", "PartOfGroup": name, "Color": colours[name]})
        for outline in outlines:
            lines += [f"{2 * _INDENT}<Annotation{kind}>", f"{3 * _INDENT}<Coordinates>"]
            lines += [f'{4 * _INDENT}<Coordinate Order="{i}" X="{px}" Y="{py}" />' for i, (px, py) in enumerate(outline)]
            lines += [f"{3 * _INDENT}</Coordinates>", f"{2 * _INDENT}</Annotation>"]
    lines += [f"{_INDENT}</Annotations>", f"{_INDENT}<AnnotationGroups>"]
    for name in found:
        group = _attributes({"Name": name, "PartOfGroup": "None", "Color": colours[name]})
        lines += [f"{2 * _INDENT}<Group{group}>", f"{3 * _INDENT}<Attributes />", f"{2 * _INDENT}</Group>"]
    lines += [f"{_INDENT}</AnnotationGroups>", "</ASAP_Annotations>", ""]
    return "\n".join(lines).encode()


def dsa_json(answer: Answer) -> bytes:
    """The Digital Slide Archive's annotation, whose description must be on the second-last line."""
    colours = {name: "rgb({}, {}, {})".format(*colour) for name, colour in answer.colours.items()}
    elements = [
        orjson.dumps(
            {
                "group": name,
                "type": "polyline",
                "lineColor": colours[name],
                "lineWidth": 2.0,
                "closed": True,
                "points": [[x, y, 0] for x, y in outline],
                "label": {"value": name},
            }
        )
        for name, outlines in contours_by_class(answer.features, answer.min_poly_area).items()
        for outline in outlines
    ]
    description = {
        "model": answer.model,
        "version": answer.version,
        "desc": answer.description,
        "location": answer.location,
        "size": answer.size,
        "count": len(elements),
        **answer.facts,
    }
    head = b'{\n "name": ' + orjson.dumps(answer.model) + b',\n "elements": [\n  '
    tail = b' ],\n "description": ' + orjson.dumps(orjson.dumps(description).decode()) + b"\n}"
    return head + b",\n  ".join(elements) + tail


def plain_json(answer: Answer) -> bytes:
    """MONAI Label's own JSON, which the CVAT detector reads."""
    colours = answer.colours
    elements = [
        {"label": name, "contours": outlines}
        for name, outlines in contours_by_class(answer.features, answer.min_poly_area).items()
        if outlines
    ]
    annotation = {"location": answer.location, "size": answer.size, "labels": colours, "elements": elements}
    return orjson.dumps(
        {
            "name": answer.model,
            "description": answer.description,
            "model": answer.model,
            "version": answer.version,
            "location": answer.location,
            "size": answer.size,
            "label_names": {name: index for index, name in enumerate(colours, start=1)},
            "annotations": [{"annotation": annotation}],
            **answer.facts,
        }
    )


def geojson(answer: Answer) -> bytes:
    """QuPath's GeoJSON, with holes and measurements; `Answer.min_poly_area` is not applied."""
    stated = {} if answer.annotation_frame is None else {FRAME_MEMBER: answer.annotation_frame}
    collection = {"type": "FeatureCollection", **stated, "features": answer.features}
    return orjson.dumps(collection, option=orjson.OPT_SERIALIZE_NUMPY)


# Format -> function that writes it, its media type and its file suffix.
FORMATS: Mapping[str, tuple[Callable[[Answer], bytes], str, str]] = {
    "asap": (asap_xml, "application/xml", "xml"),
    "dsa": (dsa_json, "application/json", "json"),
    "json": (plain_json, "application/json", "json"),
    "geojson": (geojson, "application/geo+json", "geojson"),
}


def _attributes(values: Mapping[str, object]) -> str:
    return "".join(f" {name}={quoteattr(str(value))}" for name, value in values.items())
