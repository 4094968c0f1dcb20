"""Open slides, kept for the next read: opening costs as much as reading several tiles."""

from __future__ import annotations

import functools
import os
from collections import OrderedDict
from pathlib import Path

from .slide import Slide

_MAX_OPEN_SLIDES = 32


class SlidePool:
    """The most recently used slides, at most `max_open` of them.

    A slide that is pushed out is closed, not invalid: code that still holds it may read on, which opens it again.

    Args:
        max_open: at least 1.
    """

    def __init__(self, max_open: int = _MAX_OPEN_SLIDES) -> None:
        if max_open < 1:
            raise ValueError(f"max_open must be at least 1, got {max_open}")
        self._max_open = max_open
        self._slides: OrderedDict[tuple[Path, float | None, str], Slide] = OrderedDict()

    def get(self, path: str | Path, mpp: float | None = None, backend: str = "auto") -> Slide:
        """The slide at `path`, opened unless it is open already. Arguments and errors as for `Slide`."""
        key = (Path(path), mpp, backend)
        slide = self._slides.pop(key, None) or Slide(path, backend=backend, mpp=mpp)
        self._slides[key] = slide
        while len(self._slides) > self._max_open:
            self._slides.popitem(last=False)[1].close()
        return slide

    def __len__(self) -> int:
        return len(self._slides)

    def close(self) -> None:
        """Close all slides and forget them."""
        while self._slides:
            self._slides.popitem()[1].close()


@functools.lru_cache(maxsize=1)
def _pool_of_process(pid: int) -> SlidePool:
    return SlidePool()


def open_slide(path: str | Path, mpp: float | None = None) -> Slide:
    """The slide at `path` from this process's `SlidePool`; do not close it. Arguments and errors as for `Slide`."""
    return _pool_of_process(os.getpid()).get(path, mpp)
