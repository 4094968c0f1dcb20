"""The next slide is opened, its tissue found and its first tiles read while the one before is computed."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from ..wsi.slide import Slide
from .inputs import ImageInput
from .outputs.slide_results import Scale
from .overview import Overview
from .tiles.map_grid import MapGrid
from .tiles.tile_reader import Batch


@dataclass(frozen=True)
class OpenedSlide:
    """A slide of which the network can start at once. Use as a context manager; leaving it closes the slide.

    Args:
        slide: the slide.
        scale: its frames.
        grid: its tiles and map.
        overview: its picture and tissue.
        wanted: tiles to compute, bool ``(rows, columns)``.
        first: batch of them, if there is any, see `read_batches`.
        others: batches after it, of which the next are being read.
    """

    slide: Slide
    scale: Scale
    grid: MapGrid
    overview: Overview
    wanted: np.ndarray
    first: list[Batch]
    others: Generator[Batch, None, None]

    def __enter__(self) -> OpenedSlide:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # The threads that read end before the slide is closed.
        self.others.close()
        self.slide.close()


@dataclass(frozen=True)
class _Begun:
    image: ImageInput
    file_state: tuple[int, int] | None
    opened: Future[OpenedSlide]


class LookAhead:
    """Opens slides in the background.

    Two at most are kept: the one that is about to be taken and the one after it. What is never taken - because another process
    maps it - is closed when others come.

    Args:
        open_slide: opens an image, up to its first tiles.
    """

    def __init__(self, open_slide: Callable[[ImageInput], OpenedSlide]) -> None:
        self._open_slide = open_slide
        self._begun: list[_Begun] = []

    def begin(self, image: ImageInput) -> None:
        """Start to open `image`; returns at once."""
        executor = ThreadPoolExecutor(1, thread_name_prefix="look-ahead")
        self._begun.append(_Begun(image, _file_state(image.path), executor.submit(self._open_slide, image)))
        executor.shutdown(wait=False)
        while len(self._begun) > 2:
            _close(self._begun.pop(0))

    def take(self, image: ImageInput) -> OpenedSlide:
        """`image`, from the background if it was begun there and its file is still the same, else opened now.

        Raises:
            ValueError: as opening it does, in this thread.
        """
        mine = [begun for begun in self._begun if begun.image == image]
        self._begun = [begun for begun in self._begun if begun.image != image]
        for begun in mine:
            # What failed there fails here again, or has passed.
            if begun is mine[-1] and begun.opened.exception() is None and begun.file_state == _file_state(image.path):
                return begun.opened.result()
            _close(begun)
        return self._open_slide(image)


def _close(begun: _Begun) -> None:
    if begun.opened.exception() is None:
        with begun.opened.result():
            pass


def _file_state(path: Path) -> tuple[int, int] | None:
    """Size and time of the last change; None where it cannot be seen."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
