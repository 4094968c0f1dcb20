"""A miniature of what QuPath leaves of a project: its list of images, and the exported annotations."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Outline = Sequence[tuple[float, float]]


def square(left: float, top: float, side: float) -> list[tuple[float, float]]:
    return [(left, top), (left + side, top), (left + side, top + side), (left, top + side)]


def feature(outlines: Sequence[Outline], class_name: str | None = None, kind: str = "annotation") -> dict[str, Any]:
    """An object of an outline and its holes."""
    rings = [[list(point) for point in (*outline, outline[0])] for outline in outlines]
    classification = {} if class_name is None else {"classification": {"name": class_name, "color": [200, 0, 0]}}
    return {
        "type": "Feature",
        "id": "d3a2c4d0-0b1e-4b1a-8f43-0f5c1d7d2b11",
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {"objectType": kind, **classification},
    }


def collection(*features: dict[str, Any]) -> str:
    return json.dumps({"type": "FeatureCollection", "features": features})


def project(images: Iterable[tuple[str, str]]) -> str:
    """``project.qpproj`` of images: the URI of each file, and the image's name."""
    entries = [
        {
            "serverBuilder": {"builderType": "uri", "providerClassName": "OpenslideServerBuilder", "uri": uri, "args": []},
            "entryID": number,
            "imageName": name,
        }
        for number, (uri, name) in enumerate(images, start=1)
    ]
    return json.dumps({"version": "0.5.1", "createTimestamp": 1, "images": entries})


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
