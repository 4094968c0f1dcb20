"""The endpoints for slides and labels, with MONAI Label's addresses and answers, and with every value checked before use.

MONAI Label's own endpoints write uploads to the temporary folder under suffixes that the clients choose, leave them there after
an error, and pack all slides into an archive on anyone's request.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, File, Form, UploadFile
from fastapi.responses import FileResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.exception import LabelNotFoundException

from shared.wsi.annotations.annotation_file import ANNOTATION_SUFFIXES, PACKED_SUFFIXES
from shared.wsi.formats import image_suffixes, known_suffixes

from ..app import PathologyApp
from ..doors.strict_json import parse_note
from ..learning.weak_labels import check_info
from ..refusal import Refusal
from ..studies.datastore import FINAL, check_tag

_MAY_READ = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))
_MAY_LABEL = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))
_MAY_REMOVE = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))
# Annotated, so that each parameter gets its own Form(); a shared default would keep the name of one parameter.
_Text: TypeAlias = Annotated[str, Form()]
_Upload: TypeAlias = Annotated[UploadFile, File()]
_OUTPUTS = ("stats", "train", "all")


def datastore_routes(app: PathologyApp, allow_delete: bool = False) -> APIRouter:
    """The routes under ``/datastore``.

    Args:
        app: app with the datastore.
        allow_delete: whether to offer the routes that remove slides and labels.
    """
    router = APIRouter(prefix="/datastore", tags=["Datastore"])

    @router.get("/", summary="List the slides and their labels", dependencies=[_MAY_READ], response_model=None)
    def listing(output: str = "stats") -> Any:
        if output not in _OUTPUTS:
            raise Refusal(f"output must be one of {', '.join(_OUTPUTS)}, got {output[:80]!r}")
        store = app.datastore()
        return store.json() if output == "all" else store.datalist() if output == "train" else store.status()

    _add_image_routes(router, app)
    _add_label_routes(router, app)
    if allow_delete:
        _add_removing_routes(router, app)
    return router


def _add_image_routes(router: APIRouter, app: PathologyApp) -> None:
    @router.put("/image", summary="Upload a slide or an image")
    def add_image(file: _Upload, image: str = "", params: _Text = "{}", user: User = _MAY_LABEL) -> dict[str, str]:
        name = file.filename or ""
        suffix = _suffix(name, frozenset(image_suffixes()), known_suffixes())
        info = _noted(parse_note(params, "params"), user)
        image_id = app.image_id(image or Path(name).name[: -len(suffix)])
        with app.uploads.kept(file.file, suffix.lower()) as path:
            return {"image": app.datastore().add_image(image_id, str(path), check_info(info))}

    @router.head("/image", summary="Check whether a slide exists", dependencies=[_MAY_READ])
    def check_image(image: str, check_sum: str | None = None) -> dict[str, Any]:
        if check_sum is not None:
            raise Refusal("checksums of slides are not supported: leave out check_sum")
        app.slide_path(app.image_id(image))
        return {}

    @router.get("/image", summary="Download a slide", dependencies=[_MAY_READ])
    def download_image(image: str) -> FileResponse:
        path = app.slide_path(app.image_id(image))
        return FileResponse(path, filename=path.name)

    @router.get("/image/info", summary="Get the information stored on a slide", dependencies=[_MAY_READ])
    def image_info(image: str) -> dict[str, Any]:
        return dict(app.datastore().get_image_info(app.image_id(image)))

    @router.put("/image/info", summary="Store information on a slide, such as its weak label")
    def update_image_info(image: str, info: _Text = "{}", user: User = _MAY_LABEL) -> None:
        app.datastore().update_image_info(app.image_id(image), check_info(_noted(parse_note(info, "info"), user)))


def _add_label_routes(router: APIRouter, app: PathologyApp) -> None:
    endings = frozenset({*ANNOTATION_SUFFIXES, *PACKED_SUFFIXES})

    @router.put("/label", summary="Submit the annotations of a slide")
    def save_label(
        label: _Upload,
        image: str,
        params: _Text = "{}",
        tag: str = FINAL,
        user: User = _MAY_LABEL,
    ) -> dict[str, str]:
        suffix = _suffix(label.filename or "", endings, ", ".join(sorted(endings)))
        info = _noted(parse_note(params, "params"), user)
        with app.uploads.kept(label.file, suffix.lower()) as path:
            saved = app.datastore().save_label(app.image_id(image), str(path), check_tag(tag or FINAL), info)
        return {"image": image, "label": saved}

    def label_path(label: str, tag: str) -> Path:
        path = Path(app.datastore().get_label_uri(app.image_id(label, "label"), check_tag(tag)))
        if not path.is_file():
            raise LabelNotFoundException(f"{label!r} has no label")
        return path

    @router.head("/label", summary="Check whether a slide has annotations", dependencies=[_MAY_READ])
    def check_label(image: str, tag: str = FINAL) -> dict[str, Any]:
        label_path(image, tag)
        return {}

    @router.get("/label", summary="Download the annotations of a slide", dependencies=[_MAY_READ])
    def download_label(label: str, tag: str = FINAL) -> FileResponse:
        path = label_path(label, tag)
        return FileResponse(path, filename=path.name)

    @router.get("/label/info", summary="Get the information stored on a label", dependencies=[_MAY_READ])
    def label_info(label: str, tag: str = FINAL) -> dict[str, Any]:
        return dict(app.datastore().get_label_info(app.image_id(label, "label"), check_tag(tag)))

    @router.put("/label/info", summary="Store information on a label")
    def update_label_info(label: str, tag: str = FINAL, info: _Text = "{}", user: User = _MAY_LABEL) -> None:
        note = _noted(parse_note(info, "info"), user)
        app.datastore().update_label_info(app.image_id(label, "label"), check_tag(tag), note)


def _add_removing_routes(router: APIRouter, app: PathologyApp) -> None:
    @router.delete("/image", summary="Remove a slide and its labels", dependencies=[_MAY_REMOVE])
    def remove_image(id: str) -> dict[str, Any]:
        app.datastore().remove_image(app.image_id(id))
        return {}

    @router.delete("/label", summary="Remove the annotations of a slide", dependencies=[_MAY_REMOVE])
    def remove_label(id: str, tag: str = FINAL) -> dict[str, Any]:
        app.datastore().remove_label(app.image_id(id, "label"), check_tag(tag))
        return {}


def _noted(note: dict[str, Any], user: User) -> dict[str, Any]:
    return {**note, "user": user.username} if user.username else note


def _suffix(name: str, known: frozenset[str], listed: str) -> str:
    """The suffix of an uploaded file, in the spelling of its name.

    Raises:
        Refusal: if the suffix is not a known one.
    """
    lower = name.lower()
    found = max((suffix for suffix in known if lower.endswith(suffix)), key=len, default="")
    if not found:
        raise Refusal(f"the upload {name[-80:]!r} is not in a known format: {listed}")
    return name[-len(found) :]
