"""Requests of viewers for a slide or a region of it, in the form that MONAI Label's clients send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.inference.region_map import Box
from shared.wsi.annotations.frames import check_frame

from ..doors.numbers import FARTHEST_PX, LARGEST_AREA_PX, LEAST_MPP, MOST_MPP, number
from ..refusal import Refusal

# Square level-0 pixels; MONAI Label's default.
DEFAULT_MIN_POLY_AREA = 80.0
# Keys that clients send but that have no effect: the bundle has its own tiles, and its network takes no clicks.
IGNORED = frozenset({"tile_size", "client_id", "output", "girder_api_url", "girder_token", "result_extension", "result_dtype"})
KNOWN = frozenset({"level", "location", "size", "min_poly_area", "params", "mpp", "annotation_frame"})
PARAMS = frozenset({"foreground", "background", "max_workers", "wsi_tiles", "mpp", *IGNORED})


@dataclass(frozen=True)
class WsiRequest:
    """A request for a whole slide or a region.

    Args:
        box: region in level-0 pixels from the frame's origin; None for the whole slide.
        min_poly_area: least area of a polygon in square level-0 pixels.
        mpp: micrometres per pixel of an uploaded image.
        frame: coordinate frame of the box and of the answer, one of `ANNOTATION_FRAMES`; None for that of the format, see
            `frame_of_viewer`.
    """

    box: Box | None = None
    min_poly_area: float = DEFAULT_MIN_POLY_AREA
    mpp: float | None = None
    frame: str | None = None


def parse_wsi_request(body: Any) -> WsiRequest:
    """Parse and validate the body of a client's request.

    All viewers send positions and sizes in level-0 pixels, so ``level`` must be 0. A ``size`` of (0, 0), the Digital Slide
    Archive's (-1, -1), and a missing one all mean the whole slide. The archive's ``params.wsi_tiles``, the tiles with tissue,
    mean the rectangle around them.

    Raises:
        Refusal: naming the key, and what was expected and received.
    """
    if not isinstance(body, Mapping):
        raise Refusal(f"the request's body must be a JSON object, got {type(body).__name__}")
    params = body.get("params") or {}
    if not isinstance(params, Mapping):
        raise Refusal(f"params must be a JSON object, got {type(params).__name__}")
    unknown = sorted({*body} - KNOWN - IGNORED) + sorted({*params} - PARAMS)
    if unknown:
        raise Refusal(
            f"unknown keys {', '.join(unknown)[:200]}; expected {', '.join(sorted(KNOWN))}, "
            f"or, in params, {', '.join(sorted(PARAMS))}"
        )
    if body.get("level") not in (None, 0):
        raise Refusal(f"level must be 0: location and size are level-0 pixels; got {repr(body['level'])[:80]}")
    tiles = params.get("wsi_tiles")
    box = _around(tiles) if tiles else _box(body.get("location"), body.get("size"))
    area = body.get("min_poly_area")
    mpp = params.get("mpp", body.get("mpp"))
    return WsiRequest(
        box,
        DEFAULT_MIN_POLY_AREA if area is None else number(area, "min_poly_area", 0, LARGEST_AREA_PX),
        None if mpp is None else number(mpp, "mpp", LEAST_MPP, MOST_MPP),
        _frame(body.get("annotation_frame")),
    )


def _frame(value: Any) -> str | None:
    try:
        return None if value is None else check_frame(value)
    except ValueError as error:
        raise Refusal(str(error)) from error


def _box(location: Any, size: Any) -> Box | None:
    width, height = (0, 0) if size is None else _pair(size, "size")
    x, y = (0, 0) if location is None else _pair(location, "location")
    if (width, height) in ((0, 0), (-1, -1)):
        if (x, y) not in ((0, 0), (-1, -1)):
            raise Refusal(f"an empty region: location ({x}, {y}) with size ({width}, {height}); omit both for the whole slide")
        return None
    if width <= 0 or height <= 0:
        raise Refusal(f"an empty region: size ({width}, {height}) at ({x}, {y})")
    return x, y, width, height


def _around(tiles: Any) -> Box:
    if not isinstance(tiles, Sequence) or not all(isinstance(tile, Mapping) for tile in tiles):
        raise Refusal("wsi_tiles must be a list of objects with location and size")
    boxes = [_box(tile.get("location"), tile.get("size")) for tile in tiles]
    found = [box for box in boxes if box is not None]
    if len(found) < len(boxes):
        raise Refusal("wsi_tiles contains a tile without a size")
    left, top = min(box[0] for box in found), min(box[1] for box in found)
    right, bottom = max(box[0] + box[2] for box in found), max(box[1] + box[3] for box in found)
    return left, top, right - left, bottom - top


def _pair(value: Any, name: str) -> tuple[int, int]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise Refusal(f"{name} must be two numbers, got {repr(value)[:80]}")
    numbers = [number(part, name, -FARTHEST_PX, FARTHEST_PX) for part in value]
    return round(numbers[0]), round(numbers[1])
