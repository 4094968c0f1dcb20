"""Scores of many images in as many processes as the machine has free cores, where that is worth starting them."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

Score = TypeVar("Score")
# What starting processes costs that import torch: less work than this is done before they were there.
START_S = 10.0


class ScorePool:
    """Calls a function for many arguments, in order: in this process at first, in others once it has taken a while.

    The processes are started again and not forked, as this one may have threads and a GPU. Use as a context manager.

    Args:
        num_processes: 1 for this one alone.
        patience_s: seconds of work until the others are started.
    """

    def __init__(self, num_processes: int, patience_s: float = START_S) -> None:
        self.num_processes, self._seconds_left = num_processes, patience_s
        self._executor: ProcessPoolExecutor | None = None

    def map(self, function: Callable[..., Score], arguments: Sequence[tuple[Any, ...]]) -> list[Score]:
        """`function` of each tuple of arguments; it and they can be pickled."""
        if self._executor is None and (self.num_processes < 2 or self._seconds_left > 0):
            started = time.perf_counter()
            scores = [function(*values) for values in arguments]
            self._seconds_left -= time.perf_counter() - started
            return scores
        if self._executor is None:
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self.num_processes, context, initializer=torch.set_num_threads, initargs=(1,))
        try:
            return [future.result() for future in [self._executor.submit(function, *values) for values in arguments]]
        except BrokenProcessPool:
            # A script without `if __name__ == "__main__"` cannot be imported by them, or the memory was too small for several.
            logger.warning("the other scoring processes ended: this process does the rest of the scoring alone")
            self._executor.shutdown(cancel_futures=True)
            self._executor, self.num_processes = None, 1
            return self.map(function, arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None
