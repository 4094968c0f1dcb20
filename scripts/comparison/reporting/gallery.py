"""Pictures of a report: image, truth and maps, small, as data in the page itself."""

from __future__ import annotations

import base64
import io
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.data.record import Record, region_of
from shared.evaluation.maps.map_folder import MapFolder
from shared.evaluation.maps.scoring_grid import ScoringGrid
from shared.evaluation.report import example_indices
from shared.inference.inputs import image_name
from shared.writers.overlay import PROBABILITY_COLOURS
from shared.writers.palette import class_colour
from shared.wsi import open_slide

from ..data import ComparisonData
from ..rows.method_row import MethodRow
from ..scores.scoring import map_class_names

logger = logging.getLogger(__name__)

_SIDE_PX = 320
# Shades of a map: more would not be distinguished, and fewer make small files.
_NUM_SHADES = 32


@dataclass(frozen=True)
class Panel:
    """A layer over an image.

    Attributes:
        title: the method.
        uri: of the layer, which lets the image through.
    """

    title: str
    uri: str


@dataclass(frozen=True)
class Example:
    """An image of the gallery.

    Attributes:
        name: of its file.
        label: of the manifest.
        uri: of the image.
        width: of the picture in pixels.
        height: of the picture in pixels.
        panels: truth, then the methods.
    """

    name: str
    label: str
    uri: str
    width: int
    height: int
    panels: list[Panel]


def examples(rows: Sequence[MethodRow], data: ComparisonData, count: int, worst: Sequence[str] = ()) -> list[Example]:
    """Some test images, two of three with tumour, with the map of each method's first seed; one that is always the same is not
    shown. Behind them an image of each of the worst cases, of those that are named.

    Args:
        rows: of the comparison.
        data: that were compared on.
        count: of images.
        worst: names of cases.
    """
    mapped = [row for row in rows if row.maps and row.key != "everything_is_tumour"]
    if not mapped:
        return []
    labels = [1 if record["label"] is None else record["label"] for record in data.records]
    folders = [(row.title, MapFolder(row.maps[0], map_class_names(data))) for row in mapped]
    chosen = dict.fromkeys(example_indices(labels, min(count, len(labels))), "")
    for case in worst if count else ():
        of_case = [index for index, record in enumerate(data.records) if case in (record["case_id"], record["image"])]
        if of_case:
            # With tumour, if there is one.
            chosen[max(of_case, key=lambda index: (labels[index] > 0, -index))] = "among the worst cases"
    return [_example(data.records[index], folders, data, note) for index, note in chosen.items()]


def _example(record: Record, folders: Sequence[tuple[str, MapFolder]], data: ComparisonData, note: str) -> Example:
    slide = open_slide(record["image"], mpp=record["mpp"])
    size = region_of(record, slide.size_px)[2:]
    mpp = slide.mpp * max(size) / _SIDE_PX
    grids = [ScoringGrid.of_mpp(record, folder.row(record), mpp, folder.class_names) for _, folder in folders]
    height, width = grids[0].shape
    picture = slide.read_region(grids[0].origin, (width, height), mpp=mpp, exact=True)
    panels = [Panel("Truth", _layer(_one_hot(grids[0].truth(0, height), data.num_classes)))]
    for (title, folder), grid in zip(folders, grids, strict=True):
        try:
            with folder.open(record) as source:
                panels.append(Panel(title, _layer(_chances(grid.decisions(source, 0, height), data.num_classes))))
        except (ValueError, OSError) as error:  # its scores are known, and one picture is no reason to have no report
            logger.warning("%s has no picture in the report: %s", title, error)
    name = image_name(Path(record["image"])) + (f" at {record['x']}, {record['y']}" if record["x"] is not None else "")
    label = "unknown" if record["label"] is None else data.class_names[record["label"]]
    label = ", ".join(filter(None, [label, record["case_id"] and f"case {record['case_id']}", note]))
    return Example(name, label, _jpeg(picture), width, height, panels)


def _one_hot(truth: NDArray[np.uint8], num_classes: int) -> NDArray[np.float32]:
    return np.stack([truth == index for index in range(1, num_classes)]).astype(np.float32)


def _chances(seen: NDArray[np.uint8], num_classes: int) -> NDArray[np.float32]:
    """Probability of tumour ``(1, H, W)``, or, of several classes, that of not being background where each is the likeliest."""
    probability = seen[0].astype(np.float32) / np.float32(255)
    if num_classes == 2:
        return probability[None]
    return np.stack([np.where(seen[1] == index, probability, 0) for index in range(1, num_classes)]).astype(np.float32)


def _layer(chances: NDArray[np.float32]) -> str:
    """A PNG with a palette: the colours of the project's maps, the more opaque, the likelier.

    Args:
        chances: ``(C - 1, H, W)`` in [0, 1] of the classes but the background.
    """
    index = chances.argmax(axis=0)
    shade = np.minimum((chances.max(axis=0) * _NUM_SHADES).astype(np.uint8), _NUM_SHADES - 1)
    pixels = (index * _NUM_SHADES + shade).astype(np.uint8)
    image = Image.fromarray(pixels, mode="P")
    colours = [_shades(len(chances), index) for index in range(len(chances))]
    image.putpalette(np.concatenate(colours).astype(np.uint8).tobytes())
    alphas = bytes([round(255 * step / (_NUM_SHADES - 1)) for _ in colours for step in range(_NUM_SHADES)])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=alphas, optimize=True)
    return _uri(buffer.getvalue(), "image/png")


def _shades(num_layers: int, index: int) -> NDArray[np.float64]:
    if num_layers > 1:
        return np.tile(np.array(class_colour(index + 1), np.float64), (_NUM_SHADES, 1))
    steps = np.linspace(0, 1, len(PROBABILITY_COLOURS))
    at = np.linspace(0, 1, _NUM_SHADES)
    return np.stack([np.interp(at, steps, channel) for channel in PROBABILITY_COLOURS.T], axis=1)


def _jpeg(picture: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=82, optimize=True)
    return _uri(buffer.getvalue(), "image/jpeg")


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def shown_size(example: Example) -> str:
    """The aspect ratio of a picture, for the page.

    >>> shown_size(Example("a", "1", "", 320, 240, []))
    '320 / 240'
    """
    return f"{example.width} / {max(1, math.ceil(example.height))}"
