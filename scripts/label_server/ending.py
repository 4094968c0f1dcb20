"""A server that ends when it is told to, whatever it is doing."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn

logger = logging.getLogger(__name__)

# For the requests that are being answered. What is written then is kept whole or not at all, see `shared.writers.atomic`.
PATIENCE_S = 5.0


class _EndingServer(uvicorn.Server):
    """Does not wait for threads that compute on: a map, a training's preparation."""

    def __init__(self, config: uvicorn.Config, told: Callable[[], None]) -> None:
        super().__init__(config)
        self._told = told

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._told()
        super().handle_exit(sig, frame)
        timer = threading.Timer(PATIENCE_S, _leave, (128 + sig,))
        timer.daemon = True
        timer.start()


def run_until_told(config: uvicorn.Config, told: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT, and end this process within `PATIENCE_S` of it.

    The processes that it has started end with it.

    Args:
        config: what is served.
        told: called when the signal comes, by its handler: it takes no lock.
    """
    _EndingServer(config, told).run()
    # Python itself would wait for the threads.
    logging.shutdown()
    os._exit(0)


def _leave(status: int) -> None:
    logger.warning("ended while requests were being answered")
    logging.shutdown()
    os._exit(status)
