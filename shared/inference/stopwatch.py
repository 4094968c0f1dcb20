"""Measures where the time of a run is spent."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Stopwatch:
    """Seconds by stage, added up over all visits.

    Attributes:
        seconds: stage -> seconds so far.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to `stage`, also when it ends with an error."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started

    def measure_waiting(self, stage: str, iterable: Iterable[T]) -> Iterator[T]:
        """Yield the elements of `iterable` and add the time spent waiting for them to `stage`."""
        iterator = iter(iterable)
        while True:
            try:
                with self.measure(stage):
                    element = next(iterator)
            except StopIteration:
                return
            yield element
