"""Which library reads a file, and what its tags say."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .failures import remedy
from .notices import warn_once
from .readers import order
from .readers.cucim_support import PLAIN_TILE_VENDORS
from .readers.jpeg_2000 import with_jpeg_2000
from .readers.openslide import openslide_vendor
from .readers.reader import LevelReader, Reader, SlideFile
from .readers.sub_levels import with_sub_levels
from .slide_files import check_slide_file
from .tiff.images import TiffImage, largest, num_equal_pictures, picture_problem, read_tiff_images, shown_problem
from .tiff.layout import is_tiff, read_tiff_layout
from .tiff.sample_range import unused_range_problem

# cuCIM fills its list of plug-ins when a process opens its first slide, and two threads at it end the process.
_opening = threading.RLock()


def _renew_lock() -> None:
    """The thread that held the lock is not there in a forked child."""
    global _opening
    _opening = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


@dataclass(frozen=True)
class OpenedFile:
    """A file, the library that reads it, and the file opened by that."""

    file: SlideFile
    library: type[Reader]
    reader: LevelReader


def open_file(path: Path, backend: str) -> OpenedFile:
    """Open a slide or an image with the first library that can read it.

    No library is asked for another picture in place of the slide: not Pillow, where OpenSlide or the file's ending says that it
    is a slide, nor any that would show a smaller picture of a TIFF than the largest. Threads open one after the other.

    Args:
        path: the file.
        backend: "auto" (all of `order.READERS`, in turn) or the name of one, which then is the only one tried.

    Raises:
        ValueError: naming the file and what each library has against it.
    """
    libraries = [library for library in order.READERS if backend in ("auto", library.name)]
    if not libraries:
        names = ", ".join(library.name for library in order.READERS)
        raise ValueError(f"backend must be auto or one of {names}; got {backend!r}")
    check_slide_file(path)
    file = SlideFile(path, read_tiff_layout(path), openslide_vendor(path))
    images = _images_of(file)
    if file.vendor in PLAIN_TILE_VENDORS:
        _check_values(path, images)
    problems: list[str] = []
    for library in libraries:
        opened = _try(library, file, images)
        if isinstance(opened, OpenedFile):
            return opened
        problems.append(f"{library.name}: {opened}")
    raise ValueError(f"{path} cannot be read ({'; '.join(problems)}). {remedy(path, file.layout)}")


def open_reader(library: type[Reader], file: SlideFile) -> LevelReader:
    """A file, opened with a library that is known to read it."""
    with _opening:
        reader: LevelReader = library(file)
        if not library.reads_pictures:
            reader = with_jpeg_2000(reader, file)
        return with_sub_levels(reader, file.path, file.layout) if file.layout and file.layout.sub_levels else reader


def _images_of(file: SlideFile) -> Sequence[TiffImage]:
    images = file.layout.images if file.layout is not None else read_tiff_images(file.path) if is_tiff(file.path) else ()
    # A small region that was cut from an Aperio slide may come with the macro photo of all of it.
    return images[:1] if file.vendor == "aperio" else images


def _try(library: type[Reader], file: SlideFile, images: Sequence[TiffImage]) -> OpenedFile | str:
    """The file as this library opens it, or why it does not."""
    with _opening:
        problem = library.problem(file)
    if problem is not None:
        return problem
    try:
        reader = open_reader(library, file)
    except (OSError, RuntimeError, ValueError, ImportError, Image.DecompressionBombError) as error:
        return str(error)
    # Vendors' tiles that overlap make a slide a little smaller than the picture in which they are stored.
    slack = 1.0 if file.vendor in PLAIN_TILE_VENDORS else 2.0
    problem = shown_problem(images, reader.level_sizes_px[0], slack)
    if problem is None:
        return OpenedFile(file, library, reader)
    reader.close()
    return problem


def _check_values(path: Path, images: Sequence[TiffImage]) -> None:
    problem = picture_problem(images) or (unused_range_problem(path, largest(images)) if images else None)
    if problem is not None:
        raise ValueError(f"{path} cannot be read: {problem}")
    if num_equal_pictures(images) > 1:
        warn_once(f"{path} holds {num_equal_pictures(images)} pictures of the same size: only the first is read")
