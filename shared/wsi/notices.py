"""Warnings about files, each given once in a process however often the file is opened."""

from __future__ import annotations

import functools
import logging

logger = logging.getLogger(__name__)


@functools.lru_cache(maxsize=10_000)
def warn_once(message: str) -> None:
    """Log a warning, unless this one was logged before."""
    logger.warning("%s", message)
