"""The interface of a library that reads slides or pictures; `Slide` does the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..orientation import UPRIGHT
from ..tiff.layout import TiffLayout, TiffPageLayout

GLASS = 255
# Tiles or slides, from any writer; the last three are BigTIFF.
TIFF_SUFFIXES = frozenset({".tif", ".tiff", ".btf", ".tf2", ".tf8"})


@dataclass(frozen=True)
class SlideFile:
    """The facts about a file before a library opens it.

    `layout` is that of a TIFF, None for other files; `vendor` is OpenSlide's name for the format, None where OpenSlide does not
    know it.
    """

    path: Path
    layout: TiffLayout | None = None
    vendor: str | None = None

    def page_of_size(self, size_px: tuple[int, int]) -> TiffPageLayout | None:
        """The first tiled page of a TIFF that is of (width, height) `size_px`."""
        return None if self.layout is None else self.layout.page_of_size(size_px)


class LevelReader(Protocol):
    """The interface of an opened file that `Slide` uses."""

    level_sizes_px: tuple[tuple[int, int], ...]

    def read(self, level: int, origins: NDArray[np.int64], size_px: tuple[int, int], num_workers: int) -> NDArray[np.uint8]:
        """Regions of (width, height) `size_px` at `origins` ``(n, 2)``, (x, y) in pixels *of the level*.

        The regions lie wholly inside the level. Returns ``(n, height, width, 3)``.
        """

    def properties(self) -> Mapping[str, str]:
        """OpenSlide's properties of the file; empty where OpenSlide does not read it."""

    def close(self) -> None: ...


class Reader(ABC):
    """A library: which files it reads, and how. A new one is a module with a subclass, and a place in `order.READERS`.

    Attributes:
        name: by which callers ask for it.
        suffixes: endings of the files that it reads, in small letters; folders are searched for these.
        plain_suffixes: those of them whose files carry no pixel size that anyone could trust.
        reads_pictures: whether what it opens is a picture and no slide: decoded whole, turned as its tags say, and taken as it
            is stored where nothing says how large its pixels are.
        level_sizes_px: (width, height) of each level, the finest first.
    """

    name: ClassVar[str]
    suffixes: ClassVar[frozenset[str]]
    plain_suffixes: ClassVar[frozenset[str]] = frozenset()
    reads_pictures: ClassVar[bool] = False
    level_sizes_px: tuple[tuple[int, int], ...]

    @classmethod
    @abstractmethod
    def problem(cls, file: SlideFile) -> str | None:
        """Why this library should not be given a file; None if it may be tried."""

    @abstractmethod
    def __init__(self, file: SlideFile) -> None:
        """Open a file.

        Raises:
            OSError, RuntimeError, ValueError, ImportError: saying what is wrong with the file or the library.
        """

    @abstractmethod
    def read(self, level: int, origins: NDArray[np.int64], size_px: tuple[int, int], num_workers: int) -> NDArray[np.uint8]:
        """See `LevelReader.read`."""

    def properties(self) -> Mapping[str, str]:
        """See `LevelReader.properties`."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""


def turned_tiles_problem(name: str, layout: TiffLayout | None) -> str | None:
    """Why a library that turns nothing should not be given a TIFF: its tags say that its tiles are to be turned."""
    if layout is None or layout.orientation in UPRIGHT or not layout.pages[0].is_tiled:
        return None
    return (
        f"its tag Orientation ({layout.orientation}) says that the picture must be rotated or mirrored, which {name} does not "
        "do; store it upright (if it is already, set the tag to 1)"
    )


def on_glass(image: Image.Image) -> NDArray[np.uint8]:
    """RGB ``(H, W, 3)`` of an image whose transparent parts show white glass."""
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        glass = Image.new("RGB", image.size, (GLASS, GLASS, GLASS))
        glass.paste(image, mask=image.getchannel("A"))
        return np.asarray(glass)
    return np.asarray(image.convert("RGB"))
