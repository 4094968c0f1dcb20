"""The server, with those of MONAI Label's endpoints that pathology needs; none of them blocks the others."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from monailabel.config import settings
from monailabel.endpoints import info, login, model
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException
from monailabel.interfaces.utils import app as app_registry
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from .app import PathologyApp
from .doors.access import allowed_hosts
from .doors.guard import LARGEST_UPLOAD_BYTES, Guard
from .doors.plain_errors import PlainErrors
from .doors.strict_json import body_of, parse_json
from .endpoints.activelearning import activelearning_routes
from .endpoints.datastore import datastore_routes
from .endpoints.inference import answer_upload, answer_wsi, check_output, image_params, rendered
from .endpoints.responses import Answer
from .learning.training import TrainingTask
from .refusal import Refusal

logger = logging.getLogger(__name__)

# Requests for maps that can wait or be answered from the cache concurrently; one map is computed at a time.
INFERENCE_THREADS = 16
# Reasons are cut to this length, as they may repeat what a client sent.
_LONGEST_REASON = 800
_USER, _ADMIN = settings.MONAI_LABEL_AUTH_ROLE_USER, settings.MONAI_LABEL_AUTH_ROLE_ADMIN


def create_server(
    app: PathologyApp,
    host: str,
    origins: Sequence[str] = (),
    allow_delete: bool = False,
    largest_upload_bytes: int = LARGEST_UPLOAD_BYTES,
) -> ASGIApp:
    """Create the ASGI application.

    MONAI Label's endpoints that pathology does not need, and that would be a risk, are left out: the DICOM proxy, OHIF, sessions,
    logs, batch inference (use `scripts/infer.py`), the upload of weights, and the archive of all slides, of which every request
    leaves a copy in the temporary folder.

    Args:
        app: the app that answers the requests.
        host: the address that the server listens on, see `allowed_hosts`.
        origins: origins of web pages that may send requests, such as ``https://slides.example.org``.
        allow_delete: whether to offer the routes that remove slides and labels.
        largest_upload_bytes: limit for one request.
    """
    # MONAI Label's endpoints look up the app here.
    app_registry.apps[f"{settings.MONAI_LABEL_APP_DIR}{settings.MONAI_LABEL_STUDIES}"] = app
    server = FastAPI(title="Weakly supervised histopathology", docs_url="/", redoc_url="/docs")
    routers = [info.router, model.router]
    if settings.MONAI_LABEL_AUTH_ENABLE:
        routers.append(login.router)
    server.include_router(_version_routes(app))
    for router in routers:
        server.include_router(_in_threads(router, {"GET", "HEAD"} if router is model.router else None))
    server.include_router(datastore_routes(app, allow_delete))
    server.include_router(activelearning_routes(app))
    server.include_router(_inference_routes(app))
    server.include_router(_training_routes(app))
    explain = _explained(PlainErrors(app.folders))
    for kind in (Refusal, MONAILabelException, ValueError, NotImplementedError, OSError):
        server.add_exception_handler(kind, explain)
    server.add_exception_handler(RequestValidationError, _wrong_parameter)
    if origins:
        server.add_middleware(CORSMiddleware, allow_origins=list(origins), allow_methods=["*"], allow_headers=["*"])
    server.add_middleware(TrustedHostMiddleware, allowed_hosts=allowed_hosts(host))
    return Guard(server, frozenset(origins), largest_upload_bytes)


def _in_threads(router: APIRouter, methods: set[str] | None = None) -> APIRouter:
    """MONAI Label's endpoints, run in threads because they are coroutines that block.

    `methods` are the HTTP methods to keep; None keeps all.
    """
    copy = APIRouter()
    for route in router.routes:
        if not isinstance(route, APIRoute):
            continue
        own = sorted(route.methods or ())
        if methods is None or set(own) <= methods:
            copy.add_api_route(
                route.path,
                _in_thread(route.endpoint),
                methods=own,
                response_model=None,
                summary=route.summary,
                tags=list(route.tags),
                include_in_schema=route.include_in_schema,
            )
    return copy


def _in_thread(endpoint: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(endpoint)
    async def run(*args: Any, **kwargs: Any) -> Any:
        async def call() -> Any:
            return await endpoint(*args, **kwargs)

        return await run_in_threadpool(lambda: asyncio.run(call()))

    return run


def _inference_routes(app: PathologyApp) -> APIRouter:
    router = APIRouter(prefix="/infer", tags=["Infer"], dependencies=[Depends(RBAC(_USER))])
    threads = ThreadPoolExecutor(INFERENCE_THREADS, thread_name_prefix="infer")

    async def respond(work: Callable[[str], Answer], output: str) -> Response:
        check_output(output)

        def render() -> tuple[bytes, str, str]:
            return rendered(work(output), output)

        content, media_type, suffix = await asyncio.get_running_loop().run_in_executor(threads, render)
        return Response(
            content, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="result.{suffix}"'}
        )

    def upload(name: str, file: UploadFile, body: Any) -> Callable[[str], Answer]:
        return lambda output: answer_upload(app, name, file.filename or "", file.file, body, output)

    @router.post("/wsi/{name}", summary="Map a slide, or a region of it")
    async def wsi(request: Request, name: str, image: str = "", output: str | None = None) -> Response:
        body = parse_json(await body_of(request), "the body")
        return await respond(lambda output: answer_wsi(app, name, image, body, output), output or "dsa")

    @router.post("/wsi_v2/{name}", summary="Map a slide, or an uploaded image")
    async def wsi_v2(
        name: str,
        image: str = "",
        output: str | None = None,
        file: UploadFile | None = File(None),  # noqa: B008
        wsi: str = Form("{}"),
    ) -> Response:
        body = parse_json(wsi, "wsi")
        if file is not None and file.filename:
            return await respond(upload(name, file, body), output or "dsa")
        return await respond(lambda output: answer_wsi(app, name, image, body, output), output or "dsa")

    @router.post("/{name}", summary="Map an uploaded image, or a slide")
    async def infer(
        name: str,
        image: str = "",
        output: str | None = None,
        file: UploadFile | None = File(None),  # noqa: B008
        params: str = Form("{}"),
    ) -> Response:
        given = parse_json(params, "params")
        body = image_params(given)
        wanted = output or given.get("output") or "json"
        if file is not None and file.filename:
            return await respond(upload(name, file, body), wanted)
        return await respond(lambda output: answer_wsi(app, name, image, body, output), wanted)

    return router


def _training_routes(app: PathologyApp) -> APIRouter:
    router = APIRouter(prefix="/train", tags=["Train"])
    plain = PlainErrors(app.folders)

    def plain_task(task: TrainingTask) -> dict[str, Any]:
        summary = task.summary()
        reason = summary["reason"] and plain(summary["reason"])
        return {**summary, "reason": reason, "details": [plain(line) for line in summary["details"]]}

    @router.get("/", summary="Get the last training, or all of them", dependencies=[Depends(RBAC(_USER))], response_model=None)
    def status(all: bool = False, check_if_running: bool = False) -> Any:
        running = app.trainings.running
        if check_if_running and running is None:
            raise Refusal("no training is running", 404)
        tasks = app.trainings.tasks
        if not tasks:
            raise Refusal("no training has run since the server was started", 404)
        return [plain_task(task) for task in tasks] if all else plain_task(running or tasks[-1])

    @router.post("/{name}", summary="Train a model on the weak labels", dependencies=[Depends(RBAC(_ADMIN))])
    async def start(request: Request, name: str) -> dict[str, Any]:
        options = parse_json(await body_of(request), "the body")
        if not isinstance(options, dict):
            raise Refusal(f"the options of a training must be a JSON object, got {type(options).__name__}")
        task = await run_in_threadpool(lambda: app.trainings.start(app.model(name), options))
        return plain_task(task)

    @router.delete("/", summary="Stop the training", dependencies=[Depends(RBAC(_ADMIN))])
    def stop() -> dict[str, Any]:
        task = app.trainings.stop()
        return {} if task is None else plain_task(task)

    return router


def _version_routes(app: PathologyApp) -> APIRouter:
    router = APIRouter()

    @router.get("/model/{name}/versions", summary="Versions of a model", tags=["Model"], dependencies=[Depends(RBAC(_USER))])
    def versions(name: str) -> list[dict[str, Any]]:
        return app.model(name).versions.listed()

    @router.post(
        "/model/{name}/rollback",
        summary="Return to the previous version",
        tags=["Model"],
        dependencies=[Depends(RBAC(_ADMIN))],
    )
    def rollback(name: str) -> dict[str, Any]:
        version = app.model(name).versions.roll_back()
        logger.info("%s: rolled back to version %s", name, version.name)
        return {"version": version.name, "checkpoint": str(version.checkpoint)}

    @router.get("/weak_labels/", summary="Labels of all slides", tags=["Datastore"], dependencies=[Depends(RBAC(_USER))])
    def weak_labels() -> dict[str, Any]:
        return {image_id: label.summary() for image_id, label in app.weak_labels().items()}

    return router


def _explained(plain: PlainErrors) -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
    """A handler that turns errors into answers for the client; errors of the server itself are logged."""

    async def explain(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, Refusal):
            return JSONResponse({"detail": plain(str(error))[:_LONGEST_REASON]}, error.status)
        if isinstance(error, MONAILabelException):
            is_missing = isinstance(error, ImageNotFoundException | LabelNotFoundException)
            return JSONResponse({"detail": plain(str(error.msg))[:_LONGEST_REASON]}, 404 if is_missing else 400)
        if isinstance(error, NotImplementedError):
            return JSONResponse({"detail": "not supported: the archive manages its images and labels itself"}, 501)
        if isinstance(error, OSError):
            logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
            return JSONResponse({"detail": plain(f"error with the server's files: {error.strerror or error}")}, 507)
        return JSONResponse({"detail": plain(str(error))[:_LONGEST_REASON]}, 400)

    return explain


async def _wrong_parameter(request: Request, error: Exception) -> JSONResponse:
    """Report invalid parameters without their values, which may be long or binary."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    reasons = [f"{' '.join(str(part) for part in entry['loc'])}: {entry['msg']}"[:200] for entry in found[:5]]
    return JSONResponse({"detail": "; ".join(reasons)}, 422)
