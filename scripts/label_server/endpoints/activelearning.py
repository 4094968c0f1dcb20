"""The endpoint that proposes what to label next, with MONAI Label's address and answer."""

from __future__ import annotations

import logging
import time
from typing import Any

from fastapi import APIRouter, Depends, Request
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from starlette.concurrency import run_in_threadpool

from ..app import PathologyApp
from ..doors.strict_json import body_of, parse_note
from ..learning.weak_labels import proposals
from ..refusal import Refusal

logger = logging.getLogger(__name__)

_MAY_READ = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))


def activelearning_routes(app: PathologyApp) -> APIRouter:
    """The route under ``/activelearning``."""
    router = APIRouter(prefix="/activelearning", tags=["ActiveLearning"])

    @router.post("/{strategy}", summary="What to label next")
    async def sample(request: Request, strategy: str, user: User = _MAY_READ) -> dict[str, Any]:
        params = parse_note(await body_of(request), "the body")
        if params.get("image"):
            params["image"] = app.image_id(params["image"])
        return await run_in_threadpool(lambda: _proposed(app, strategy, params, user.username))

    return router


def _proposed(app: PathologyApp, strategy: str, params: dict[str, Any], user: str | None) -> dict[str, Any]:
    client = params.get("client_id")
    if client is not None and not isinstance(client, str):
        raise Refusal(f"client_id must be a string, got {repr(client)[:80]}")
    result = app.next_sample({**params, "strategy": strategy})
    if not result:
        return {}
    image_id, store = result["id"], app.datastore()
    info = dict(store.get_image_info(image_id))
    strategies = {**proposals(info), strategy: {"ts": int(time.time()), "client_id": (client or user or "")[:255] or None}}
    try:
        store.update_image_info(image_id, {"strategy": strategies})
    except (NotImplementedError, OSError) as error:
        logger.warning("the proposal of %s could not be recorded: %s", image_id, error)
    # Clients may have stored anything under any name: the proposal comes first.
    return {**info, **result, "strategy": strategies}
