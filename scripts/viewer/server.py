"""The server of the page."""

from __future__ import annotations

import logging
import signal
import socket
import webbrowser
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from bokeh.application import Application
from bokeh.application.handlers import FunctionHandler
from bokeh.core.validation import silence
from bokeh.core.validation.warnings import EMPTY_LAYOUT
from bokeh.document import Document
from bokeh.server.server import Server

from .access import HOST, LOOPBACK, Access
from .cohort import Cohort
from .layers import Layers
from .page import Page
from .squares import routes

if TYPE_CHECKING:
    from .labelling.learner import Learner

logger = logging.getLogger(__name__)

_LAST_PORT = 65535

# Panes are empty until a slide is opened.
silence(EMPTY_LAYOUT)


def open_server(cohort: Cohort, port: int = 0, learner: Learner | None = None) -> tuple[Server, str]:
    """Open a server that is listening, and return it with the address of its page.

    Args:
        cohort: slides and methods.
        port: port of the page; 0 chooses a free one.
        learner: trains on the labels given on the page; None if slides are only viewed.

    Raises:
        ValueError: if the port is taken or not a valid number.
    """
    if not 0 <= port <= _LAST_PORT:
        raise ValueError(f"--port must be from 0 to {_LAST_PORT}, found {port}")
    access, layers, port = Access(), Layers(cohort), port or _free_port()
    application = Application(FunctionHandler(partial(_fill, layers, learner)))
    try:
        server = Server(
            {"/": application},
            address=HOST,
            port=port,
            allow_websocket_origin=[f"{name}:{port}" for name in LOOPBACK],
            extra_patterns=routes(layers, access),
            auth_provider=access,
            keep_alive_milliseconds=10_000,
        )
    except OSError as error:
        raise ValueError(f"--port {port} cannot be used ({error.strerror}): give another, or omit it for a free port") from error
    return server, f"http://{HOST}:{server.port}/?token={access.token}"


def _free_port() -> int:
    # Bokeh needs the allowed origins of its websockets, which contain the port, before it chooses a port.
    with socket.create_server((HOST, 0)) as listening:
        return int(listening.getsockname()[1])


def _fill(layers: Layers, learner: Learner | None, document: Document) -> None:
    Page(layers, document, learner)


def serve(
    cohort: Cohort,
    port: int = 0,
    opens_browser: bool = True,
    open_page: Callable[[str], object] = webbrowser.open,
    learner: Learner | None = None,
) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        cohort: slides and methods.
        port: port of the page; 0 chooses a free one.
        opens_browser: whether to open the page in a browser, besides printing its address.
        open_page: function that opens an address.
        learner: trains on the labels given on the page; None if slides are only viewed.
    """
    server, address = open_server(cohort, port, learner)
    print(f"{address}\nPress Ctrl-C to stop.", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if opens_browser:
        server.io_loop.call_later(0.1, open_page, address)
    server.start()
    try:
        server.io_loop.start()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()
        if learner is not None:
            learner.close()
