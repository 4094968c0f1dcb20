"""A server that ends promptly on a signal, whatever it is doing."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn

logger = logging.getLogger(__name__)

# Time for the requests in progress. Files are written completely or not at all, see `shared.writers.atomic`.
PATIENCE_S = 5.0


class _EndingServer(uvicorn.Server):
    """Does not wait for threads that are still computing, such as a map or the preparation of a training."""

    def __init__(self, config: uvicorn.Config, on_signal: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_signal = on_signal

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_signal()
        super().handle_exit(sig, frame)
        timer = threading.Timer(PATIENCE_S, _leave, (128 + sig,))
        timer.daemon = True
        timer.start()


def run_until_signal(config: uvicorn.Config, on_signal: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT, and then end this process within `PATIENCE_S` seconds.

    The processes that it started end with it.

    Args:
        config: configuration of the server.
        on_signal: called by the signal handler, so it must not acquire a lock.
    """
    _EndingServer(config, on_signal).run()
    # A normal exit of Python would wait for the threads.
    logging.shutdown()
    os._exit(0)


def _leave(status: int) -> None:
    logger.warning("the server ended while requests were still in progress")
    logging.shutdown()
    os._exit(status)
