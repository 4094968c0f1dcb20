"""Access control of the page: only this machine, and only with the page's token."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from typing import Any

from bokeh.server.auth_provider import AuthProvider
from tornado.web import RequestHandler
from tornado.websocket import WebSocketHandler

HOST = "127.0.0.1"
LOOPBACK = (HOST, "localhost")
REFUSAL = "Open the address that scripts/view.py printed; it ends with a token."
_REFUSED = "/no_token"


class Access(AuthProvider):
    """Allows requests with the token in their address, and later ones of the same browser, which keeps the token in a cookie.

    The host name is checked as well, so that a foreign site whose name resolves to this machine is refused.

    Attributes:
        token: random, and new for each server.
    """

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(18)
        super().__init__()

    def is_allowed(self, handler: RequestHandler) -> bool:
        """Whether this request may be answered. If so, the browser gets the token as a cookie."""
        if handler.request.host_name not in LOOPBACK:
            return False
        # All ports of a host share its cookies.
        cookie = f"view_{handler.request.host.rpartition(':')[2]}"
        kept = handler.get_cookie(cookie)
        given = handler.get_query_argument("token", None) or kept or ""
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return False
        if kept != self.token and not isinstance(handler, WebSocketHandler):
            handler.set_cookie(cookie, self.token, httponly=True, samesite="Strict")
        return True

    @property
    def get_user(self) -> Callable[[Any], str | None]:
        return lambda handler: "viewer" if self.is_allowed(handler) else None

    @property
    def get_user_async(self) -> None:
        return None

    @property
    def login_url(self) -> str:
        return _REFUSED

    @property
    def get_login_url(self) -> None:
        return None

    @property
    def login_handler(self) -> type[RequestHandler]:
        return _Refusal

    @property
    def logout_url(self) -> None:
        return None

    @property
    def logout_handler(self) -> None:
        return None


class _Refusal(RequestHandler):
    def get(self) -> None:
        self.set_status(403)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(REFUSAL)
