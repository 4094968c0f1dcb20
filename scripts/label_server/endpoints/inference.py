"""The endpoints for maps, with MONAI Label's addresses and answers and this project's inference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from shared.wsi.annotations.frames import LEVEL0
from shared.wsi.formats import image_suffixes, is_plain_picture, known_suffixes

from ..app import PathologyApp
from ..learning.served_model import LoadedModel, ServedModel
from ..maps.contours import moved_features
from ..refusal import Refusal
from ..viewer_frame import frame_of_viewer, frame_origin_of_slide, moved_box
from .responses import FORMATS, Answer
from .wsi_request import WsiRequest, parse_wsi_request


def answer_wsi(app: PathologyApp, model: str, image: str, body: Any, output: str) -> Answer:
    """The annotations of a slide in the studies folder, or of a region of it, in the coordinate frame of the viewer.

    Args:
        app: the app.
        model: name of the model that maps it.
        image: id of the slide.
        body: body of the request.
        output: format of the answer.

    Raises:
        Refusal: for an unknown model or slide, an invalid or empty region, or a slide that cannot be read.
    """
    request = parse_wsi_request(body)
    if not image:
        raise Refusal("no image given: add ?image=NAME of a slide in the studies folder, or upload one to /infer/wsi_v2/", 400)
    served = app.model(model)
    image = app.image_id(image)
    path = app.slide_path(image)
    loaded = served.loaded()
    frame = frame_of_viewer(output, request.frame, app.settings.annotation_frame)
    x, y = frame_origin_of_slide(path, frame)
    found = app.maps.annotations(model, loaded, image, path, moved_box(request.box, (x, y)))
    facts = {"cached": found.is_cached, "latencies": {"total": round(found.seconds, 3)}}
    return _answer(served, loaded, request, list(moved_features(found.features, (-x, -y))), facts, frame)


def answer_upload(app: PathologyApp, model: str, file_name: str, file: IO[bytes], body: Any, output: str) -> Answer:
    """The annotations of an uploaded image, in its own pixels.

    Args:
        app: the app.
        model: name of the model that maps it.
        file_name: name that the client gave it; its suffix determines the format.
        file: content of the image.
        body: body of the request.
        output: format of the answer.

    Raises:
        Refusal: for an unknown model or format, an invalid request, or an image that cannot be read.
    """
    request = parse_wsi_request(body)
    served = app.model(model)
    suffix = Path(file_name).suffix.lower()
    if suffix not in image_suffixes():
        raise Refusal(f"the upload {file_name[:80]!r} is not in a known format: {known_suffixes()}")
    with app.uploads.kept(file, suffix) as path:
        frame = frame_of_viewer(output, request.frame, app.settings.annotation_frame)
        x, y = frame_origin_of_slide(path, LEVEL0 if is_plain_picture(path) else frame)
        loaded = served.loaded()
        found = app.maps.patch(loaded, path, moved_box(request.box, (x, y)), request.mpp)
    facts = {"cached": False, "latencies": {"total": round(found.seconds, 3)}}
    return _answer(served, loaded, request, list(moved_features(found.features, (-x, -y))), facts, frame)


def image_params(params: Any) -> dict[str, Any]:
    """The keys of a slide request that the parameters of an image request contain, such as its region."""
    if not isinstance(params, dict):
        raise Refusal(f"params must be a JSON object, got {type(params).__name__}")
    wanted = ("level", "location", "size", "min_poly_area", "mpp", "annotation_frame")
    return {name: params[name] for name in wanted if name in params}


def check_output(output: object) -> None:
    """Check that the output format is known, before anything is computed."""
    if not isinstance(output, str) or output not in FORMATS:
        raise Refusal(f"output must be one of {', '.join(FORMATS)}, got {repr(output)[:80]}")


def rendered(answer: Answer, output: str) -> tuple[bytes, str, str]:
    """An answer in one of the formats: its content, media type and file suffix."""
    write, media_type, suffix = FORMATS[output]
    return write(answer), media_type, suffix


def _answer(
    served: ServedModel, loaded: LoadedModel, request: WsiRequest, features: list[Any], facts: dict[str, Any], frame: str
) -> Answer:
    """The answer of `loaded`, which is not necessarily the current version any more."""
    x, y, width, height = request.box or (0, 0, 0, 0)
    version, description = loaded.version.name, served.description
    answer = Answer(served.name, version, description, (x, y), (width, height), features, loaded.labels, request.min_poly_area)
    return replace(answer, facts={**facts, "weights": loaded.key}, annotation_frame=frame)
