"""Checks every request before anything else sees it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..refusal import Refusal
from .access import check_parameters

# For bodies other than uploads; the Digital Slide Archive lists the tiles of a slide in one.
LARGEST_BODY_BYTES = 16 * 2**20
LARGEST_UPLOAD_BYTES = 4 * 2**30
# Values of Sec-Fetch-Site with which a browser marks requests made by pages of other sites.
_FOREIGN = ("cross-site", "same-site")


class Guard:
    """Rejects invalid and foreign requests.

    - Parameters that become file names must be valid names.
    - Web pages of other origins are rejected, which a browser alone would not do for simple requests.
    - Bodies that are too large are cut off, and all bodies in transit together may not exceed the limit of one upload.
    - Bodies without a content type, as QuPath sends them, are taken as JSON.

    Args:
        app: application that receives the accepted requests.
        origins: origins of web pages that may send requests.
        largest_upload_bytes: limit for one body with files, and for all bodies that are received at the same time.
    """

    def __init__(
        self, app: ASGIApp, origins: frozenset[str] = frozenset(), largest_upload_bytes: int = LARGEST_UPLOAD_BYTES
    ) -> None:
        self._app, self._origins, self._largest = app, origins, largest_upload_bytes
        self._received = 0
        self._lock = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            check_parameters(request.query_params.multi_items())
            self._check_origin(request.headers)
            limit = self._limit(request.headers)
        except Refusal as refusal:
            await _refuse(refusal, scope, receive, send)
            return
        if "content-type" not in request.headers and request.method in ("POST", "PUT"):
            scope = {**scope, "headers": [*scope["headers"], (b"content-type", b"application/json")]}
        await self._pass_on(scope, receive, send, limit)

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        origin = headers.get("origin")
        if origin in self._origins:
            return
        if origin and _host_of(origin) != headers.get("host"):
            raise Refusal(f"web pages of {origin[:80]} may not send requests: to allow them, start the server with --origin", 403)
        # Images and links on a page are requested without an origin.
        if headers.get("sec-fetch-site") in _FOREIGN:
            raise Refusal("web pages of other sites may not send requests: to allow them, start the server with --origin", 403)

    def _limit(self, headers: Mapping[str, str]) -> int:
        """The largest size in bytes that a body may have.

        Raises:
            Refusal: if its content length exceeds it.
        """
        is_upload = headers.get("content-type", "").lower().startswith("multipart/form-data")
        limit = self._largest if is_upload else min(self._largest, LARGEST_BODY_BYTES)
        said = headers.get("content-length", "0")
        if said.isascii() and said.isdigit() and (len(said) > 18 or int(said) > limit):
            raise _too_large(limit)
        return limit

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        own = 0
        has_begun = False
        refusal: Refusal | None = None

        async def counted() -> Message:
            nonlocal own, refusal
            message = await receive()
            size = len(message.get("body", b""))
            with self._lock:
                own += size
                self._received += size
                total = self._received
            if own > limit:
                refusal = _too_large(limit)
            elif total > max(self._largest, own):
                refusal = Refusal("other uploads are in progress: send this one again later", 429)
            if refusal is not None:
                raise refusal
            return message

        async def unless_refused(message: Message) -> None:
            nonlocal has_begun
            # The application's answer to a body that was cut off is replaced by the refusal.
            if refusal is None or has_begun:
                has_begun = True
                await send(message)

        try:
            await self._app(scope, counted, unless_refused)
        except Refusal:
            if refusal is None:
                raise
        finally:
            with self._lock:
                self._received -= own
        if refusal is not None and not has_begun:
            await _refuse(refusal, scope, receive, send)


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _too_large(limit: int) -> Refusal:
    return Refusal(f"the body is too large: at most {limit:,} bytes are accepted", 413)


async def _refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    # The rest of the body is not read, so the connection is closed after the answer.
    await JSONResponse({"detail": str(refusal)}, refusal.status, {"Connection": "close"})(scope, receive, send)
