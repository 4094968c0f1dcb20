"""The next slide is opened, its tissue found and its first tiles read while the one before is computed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from ..wsi.slide import Slide
from .inputs import ImageInput
from .outputs.slide_results import Scale
from .overview import Overview
from .tiles.map_grid import MapGrid
from .tiles.near_tissue import NearTissue
from .tiles.tile_reader import Batch

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class OpenedTiles:
    """A slide of which the network can start at once. Use as a context manager; leaving it closes the slide.

    Args:
        slide: the slide.
        grid: its tiles and cells.
        wanted: tiles to compute, bool ``(rows, columns)``.
        first: batch of them, if there is any, see `read_batches`.
        others: batches after it, of which the next are being read.
    """

    slide: Slide
    grid: MapGrid
    wanted: np.ndarray
    first: list[Batch]
    others: Generator[Batch, None, None]

    @property
    def batches(self) -> Iterator[Batch]:
        """All batches, once."""
        return chain(self.first, self.others)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # The threads that read end before the slide is closed.
        self.others.close()
        self.slide.close()


@dataclass(frozen=True)
class OpenedSlide(OpenedTiles):
    """`OpenedTiles` of a map.

    Args:
        scale: the slide's frames.
        overview: its picture and tissue.
        near_tissue: see `ProbabilityMap`.
        stored_stride_px: the encoder's stride where the batches are features that were stored, see `StoredCells`; None for
            tiles of pixels.
    """

    scale: Scale
    overview: Overview
    near_tissue: NearTissue | None = None
    stored_stride_px: int | None = None


Opened = TypeVar("Opened", bound=OpenedTiles)


@dataclass(frozen=True)
class _Begun(Generic[Opened]):
    image: ImageInput
    file_state: tuple[int, int] | None
    opened: Future[Opened]


class LookAhead(Generic[Opened]):
    """Opens slides in the background.

    Two at most are kept: the one that is about to be taken and the one after it. What is never taken - because another process
    maps it - is closed when others come.

    Args:
        open_slide: opens an image, up to its first tiles.
    """

    def __init__(self, open_slide: Callable[[ImageInput], Opened]) -> None:
        self._open_slide = open_slide
        self._begun: list[_Begun[Opened]] = []

    def begin(self, image: ImageInput) -> None:
        """Start to open `image`; returns at once."""
        executor = ThreadPoolExecutor(1, thread_name_prefix="look-ahead")
        self._begun.append(_Begun(image, _file_state(image.path), executor.submit(self._open_slide, image)))
        executor.shutdown(wait=False)
        while len(self._begun) > 2:
            _close(self._begun.pop(0))

    def take(self, image: ImageInput) -> Opened:
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


def _close(begun: _Begun[Opened]) -> None:
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
