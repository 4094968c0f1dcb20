"""Is there a slide to open at all? What is known about a path before any library sees it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from .formats import is_plain_picture, known_suffixes, unreadable_format

MIRAX_INDEX = "Slidedat.ini"
# Raise it when a slide is refused that could be opened before, or when another pixel size or magnification is read from one:
# what was noted of slides is then found again.
SLIDES_VERSION = 1
# Text files that name the pictures of a slide, which lie next to them.
INDEX_SUFFIXES = (".vms", ".vmu")
_LARGEST_INDEX_BYTES = 2**20
_DICOM_SUFFIX = ".dcm"


def check_slide_file(path: Path) -> None:
    """See that a path leads to a file of a format that is read, with what belongs to it.

    Raises:
        ValueError: for a missing file, a link to nothing, a format that no library here reads, and a MIRAX slide without the
            folder of its pixels: its file is but a preview, under whatever name.
    """
    suffix = path.suffix.lower()
    unreadable = unreadable_format(path)
    if unreadable is not None and path.exists():
        raise ValueError(
            f"{path}: {unreadable} files ({suffix}) are not supported: convert it to a tiled pyramidal TIFF; supported are "
            f"{known_suffixes()}"
        )
    if path.is_symlink() and not path.exists():
        raise ValueError(
            f"{path}: there is no such file: it is a link to {path.readlink()}, which does not exist; fetch that file"
        )
    folder = path.with_suffix("")
    if not path.is_file():
        beside = (
            f" (its folder {folder} is there: copy the .mrxs file too)" if is_mirax_folder(folder) and suffix == ".mrxs" else ""
        )
        raise ValueError(
            f"{path}: there is no such file{beside}; check the path (paths in a manifest are relative to the manifest)"
        )
    if is_plain_picture(path) and is_mirax_folder(folder) and not path.with_suffix(".mrxs").exists():
        raise ValueError(f"{path}: the folder {folder} contains a MIRAX slide, so this is its preview: rename it back to .mrxs")
    if suffix == ".mrxs" and not is_mirax_folder(folder):
        missing = f"{MIRAX_INDEX} is missing in the folder {folder}" if folder.is_dir() else f"the folder {folder} is missing"
        raise ValueError(
            f"{path}: {missing}, which contains the slide's pixels (the .mrxs file is only a preview): copy the whole folder, "
            "and give it the name of the file"
        )


def is_mirax_folder(folder: Path) -> bool:
    """Whether a folder holds the pixels of a MIRAX slide."""
    return (folder / MIRAX_INDEX).is_file()


class SlideStates:
    """Whether slides are as they were, by sizes and times of their files: nothing but the index of a VMS slide is read.

    The files of a slide are those that `check_slide_file` and the libraries look at: of MIRAX also the files in its folder, of
    Hamamatsu VMS those that its index names, of DICOM all DICOM files of the folder, any of which may be of its series. A folder
    of DICOM files is looked at once: make a new object to see later changes.
    """

    def __init__(self) -> None:
        self._dicom_folders: dict[Path, str] = {}

    def of(self, path: str | Path) -> str:
        """A text that is another one when a file of the slide has changed, has come or has gone, or `SLIDES_VERSION` has.

        Raises:
            OSError: if the slide's own file cannot be seen.
        """
        path = Path(path)
        status = path.stat()
        return _hash([SLIDES_VERSION, status.st_size, status.st_mtime_ns, self._companions(path)])

    def _companions(self, path: Path) -> str:
        suffix = path.suffix.lower()
        if suffix == ".mrxs":
            return _state_of(mirax_files(path))
        if suffix in INDEX_SUFFIXES:
            return _state_of(files_named_in(path))
        if suffix != _DICOM_SUFFIX:
            return ""
        if path.parent not in self._dicom_folders:
            files = (file for file in path.parent.iterdir() if file.suffix.lower() == _DICOM_SUFFIX)
            self._dicom_folders[path.parent] = _state_of(files)
        return self._dicom_folders[path.parent]


def mirax_files(path: Path) -> list[Path]:
    """The files in the folder of a MIRAX slide; none where it has no folder."""
    folder = path.with_suffix("")
    return sorted(file for file in folder.iterdir() if file.is_file()) if folder.is_dir() else []


def files_named_in(index: Path) -> set[Path]:
    """The files next to an index of ``key=value`` lines that it names, whether or not they are there."""
    try:
        with index.open(encoding="latin-1") as file:
            lines = file.read(_LARGEST_INDEX_BYTES).splitlines()
    except OSError:
        return set()
    names = {line.partition("=")[2].strip() for line in lines}
    return {index.parent / name for name in names if name and Path(name).name == name}


def _state_of(files: Iterable[Path]) -> str:
    return _hash([(file.name, *_size_and_time(file)) for file in sorted(files)])


def _size_and_time(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:  # named in an index, or a link to nothing
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _hash(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
