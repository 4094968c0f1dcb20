"""Which library reads a file, and what its tags say."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .failures import remedy
from .formats import SLIDE_SUFFIXES
from .notices import warn_once
from .orientation import UPRIGHT
from .readers.backends import CucimReader, LevelReader, OpenSlideReader, PillowReader
from .readers.cucim_support import cucim_file_problem, usable_cucim_problem
from .readers.sub_levels import with_sub_levels
from .slide_files import check_slide_file
from .tiff.images import TiffImage, largest, num_equal_pictures, picture_problem, read_tiff_images, shown_problem
from .tiff.layout import TiffLayout, is_tiff, read_tiff_layout
from .tiff.sample_range import unused_range_problem

BACKENDS = ("cucim", "openslide", "pillow")
# OpenSlide's names for files that are of no vendor, and with those of plain, adjoining tiles.
_ANY_TIFF = ("generic-tiff", None)
_PLAIN_TIFF = (*_ANY_TIFF, "aperio")
# cuCIM fills its list of plug-ins when a process opens its first slide, and two threads at it end the process.
_opening = threading.RLock()


def _renew_lock() -> None:
    """The thread that held the lock is not there in a forked child."""
    global _opening
    _opening = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


@dataclass(frozen=True)
class OpenedFile:
    """A reader with what else was learned on the way; `properties` are OpenSlide's, empty where it cannot read."""

    backend: str
    reader: LevelReader
    layout: TiffLayout | None
    properties: Mapping[str, str]


def open_file(path: Path, backend: str) -> OpenedFile:
    """Open a slide or an image with the first library that can read it.

    No library is asked for another picture in place of the slide: not Pillow, where OpenSlide or the file's ending says that it
    is a slide, nor any that would show a smaller picture of a TIFF than the largest. Threads open one after the other.

    Args:
        path: the file.
        backend: "auto" (cuCIM, else OpenSlide, else Pillow) or one of `BACKENDS`, which then is the only one tried.

    Raises:
        ValueError: naming the file and what each library has against it.
    """
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"backend must be auto or one of {', '.join(BACKENDS)}; got {backend!r}")
    check_slide_file(path)
    layout = read_tiff_layout(path)
    vendor = _openslide_vendor(path)
    images = layout.images if layout is not None else read_tiff_images(path) if is_tiff(path) else ()
    # A small region that was cut from an Aperio slide may come with the macro photo of all of it.
    images = images[:1] if vendor == "aperio" else images
    if vendor in _PLAIN_TIFF:
        _check_values(path, images)
    problems: list[str] = []
    for name in BACKENDS if backend == "auto" else (backend,):
        problem = _problem(name, path, layout, vendor)
        if problem is None:
            try:
                reader = open_reader(name, path, layout)
            except (OSError, RuntimeError, ValueError, ImportError, Image.DecompressionBombError) as error:
                problem = str(error)
            else:
                # Vendors' tiles that overlap make a slide a little smaller than the picture in which they are stored.
                slack = 1.0 if vendor in _PLAIN_TIFF else 2.0
                problem = shown_problem(images, reader.level_sizes_px[0], slack)
                if problem is None:
                    return OpenedFile(name, reader, layout, _openslide_properties(path, reader, vendor))
                reader.close()
        problems.append(f"{name}: {problem}")
    raise ValueError(f"{path} cannot be read ({'; '.join(problems)}). {remedy(path, layout)}")


def open_reader(backend: str, path: Path, layout: TiffLayout | None) -> LevelReader:
    """`path`, opened with a library that is known to read it."""
    with _opening:
        return reader_factory(backend, path, layout)()


def reader_factory(backend: str, path: Path, layout: TiffLayout | None) -> Callable[[], LevelReader]:
    """What opens `path` with a library that is known to read it."""
    if backend == "cucim":
        if layout is None:
            raise ValueError(f"{path}: cuCIM reads TIFF files only")
        open_reader: Callable[[], LevelReader] = functools.partial(CucimReader, path, layout)
    elif backend == "openslide":
        open_reader = functools.partial(OpenSlideReader, path, layout)
    else:
        open_reader = functools.partial(PillowReader, path)
    return functools.partial(with_sub_levels, open_reader, path, layout) if layout and layout.sub_levels else open_reader


def _check_values(path: Path, images: Sequence[TiffImage]) -> None:
    problem = picture_problem(images) or (unused_range_problem(path, largest(images)) if images else None)
    if problem is not None:
        raise ValueError(f"{path} cannot be read: {problem}")
    if num_equal_pictures(images) > 1:
        warn_once(f"{path} holds {num_equal_pictures(images)} pictures of the same size: the first is read")


def _problem(backend: str, path: Path, layout: TiffLayout | None, vendor: str | None) -> str | None:
    """Why a library should not be given a file; None if it may be tried."""
    if backend != "pillow" and layout is not None and layout.orientation not in UPRIGHT and layout.pages[0].is_tiled:
        return (
            f"its tag Orientation ({layout.orientation}) says that the picture is to be turned, which {backend} does not do; "
            "store it upright (if it is already, set the tag to 1)"
        )
    if backend == "cucim":
        # The file first: a folder of PNG tiles needs no warning that cuCIM is missing.
        return cucim_file_problem(layout, vendor) or _cucim_problem()
    if backend == "openslide":
        return None if vendor is not None else "not a slide format that OpenSlide knows, or OpenSlide is not installed"
    if vendor not in _ANY_TIFF or path.suffix.lower() in SLIDE_SUFFIXES:
        return "not asked, as it would show a preview or a label in place of the slide"
    if layout is None and is_tiff(path):
        return "not asked, as the tags of this TIFF are damaged"
    return None


def _cucim_problem() -> str | None:
    with _opening:
        return usable_cucim_problem()


def _openslide_vendor(path: Path) -> str | None:
    try:
        import openslide
    except (ImportError, OSError):
        return None
    vendor: str | None = openslide.OpenSlide.detect_format(str(path))
    return vendor


def _openslide_properties(path: Path, reader: LevelReader, vendor: str | None) -> Mapping[str, str]:
    if isinstance(reader, OpenSlideReader):
        return reader.properties
    if isinstance(reader, PillowReader) or vendor is None:
        return {}
    try:
        slide = OpenSlideReader(path)
    except RuntimeError:
        return {}
    slide.close()
    return slide.properties
