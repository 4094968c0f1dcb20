"""Which library reads a file, and what its tags say."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .backends import CucimReader, LevelReader, OpenSlideReader, PillowReader
from .cucim_support import cucim_file_problem, usable_cucim_problem
from .orientation import UPRIGHT
from .sub_levels import with_sub_levels
from .tiff_layout import TiffLayout, read_tiff_layout

BACKENDS = ("cucim", "openslide", "pillow")


@dataclass(frozen=True)
class OpenedFile:
    """A reader with what else was learned on the way; `properties` are OpenSlide's, empty where it cannot read."""

    backend: str
    reader: LevelReader
    layout: TiffLayout | None
    properties: Mapping[str, str]


def open_file(path: Path, backend: str) -> OpenedFile:
    """Open a slide or an image with the first library that can read it.

    Args:
        path: the file.
        backend: "auto" (cuCIM, else OpenSlide, else Pillow) or one of `BACKENDS`, which then is the only one tried.

    Raises:
        ValueError: naming the file and what each library has against it.
    """
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"backend must be auto or one of {', '.join(BACKENDS)}; got {backend!r}")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; check the path (a manifest's are relative to the manifest)")
    layout = read_tiff_layout(path)
    problems: list[str] = []
    for name in BACKENDS if backend == "auto" else (backend,):
        problem = _problem(name, path, layout)
        if problem is None:
            try:
                reader = reader_factory(name, path, layout)()
            except (OSError, RuntimeError, ValueError, ImportError, Image.DecompressionBombError) as error:
                problem = str(error)
            else:
                return OpenedFile(name, reader, layout, _openslide_properties(path, reader))
        problems.append(f"{name}: {problem}")
    raise ValueError(
        f"{path} cannot be read ({'; '.join(problems)}). Check that the file is complete, or convert it to a tiled pyramidal TIFF"
    )


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


def _problem(backend: str, path: Path, layout: TiffLayout | None) -> str | None:
    if backend != "pillow" and layout is not None and layout.orientation not in UPRIGHT and layout.pages[0].is_tiled:
        return (
            f"its tag Orientation ({layout.orientation}) says that the picture is to be turned, which {backend} does not do; "
            "store it upright (if it is already, set the tag to 1)"
        )
    if backend == "cucim":
        # The file first: a folder of PNG tiles needs no warning that cuCIM is missing.
        return cucim_file_problem(layout, _openslide_vendor(path)) or usable_cucim_problem()
    if backend == "openslide" and _openslide_vendor(path) is None:
        return "not a slide format that OpenSlide knows, or OpenSlide is not installed"
    return None


def _openslide_vendor(path: Path) -> str | None:
    try:
        import openslide
    except (ImportError, OSError):
        return None
    vendor: str | None = openslide.OpenSlide.detect_format(str(path))
    return vendor


def _openslide_properties(path: Path, reader: LevelReader) -> Mapping[str, str]:
    if isinstance(reader, OpenSlideReader):
        return reader.properties
    if isinstance(reader, PillowReader) or _openslide_vendor(path) is None:
        return {}
    try:
        slide = OpenSlideReader(path)
    except RuntimeError:
        return {}
    slide.close()
    return slide.properties
