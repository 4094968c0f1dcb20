"""Errors of a disk, a folder or a quota, in one line that says where, why, and what helps."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..wsi.file_names import comparable

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

# With less than this, whatever was being written has most likely failed for want of space.
FULL_BYTES = 1 << 20
_GOES_ON = "The same command then resumes from here."
# Reason and remedy: what only writing can meet with, and what reading another file can meet with too.
_WRITING = {
    errno.ENOSPC: ("the disk is full", f"Free some space, or write to another disk. {_GOES_ON}"),
    errno.EDQUOT: ("the disk quota of this user is used up", f"Delete something, or write to another disk. {_GOES_ON}"),
    errno.EROFS: ("the file system is read-only", "Write to another folder."),
    errno.EFBIG: ("the file is larger than the system allows", "Raise the limit (ulimit -f), or write to another file system."),
}
_WHERE = {
    errno.EACCES: ("you do not have permission to write there", "Change the folder's permissions, or write to another folder."),
    errno.EPERM: ("the system does not allow you to write there", "Write to another folder."),
    errno.ENOTDIR: ("a part of its path is a file, not a folder", "Write to another folder."),
    errno.EEXIST: ("a part of its path is a file, not a folder", "Write to another folder."),
    errno.EISDIR: ("there is a folder of this name", "Remove it, or write to another folder."),
    errno.EIO: ("the disk has failed", "Check the disk, or write to another one."),
}


class StorageError(OSError):
    """Something could not be written; the message says which file, why, and what helps."""

    def __str__(self) -> str:
        return str(self.strerror)

    @property
    def concerns_all(self) -> bool:
        """Whether other files of the same folder cannot be written either."""
        return self.errno != errno.EFBIG


def storage_error(error: BaseException, path: str | Path, final: str | Path | None = None) -> StorageError | None:
    """The error as one of storage, if writing `path` failed for a reason that its user can mend; None for all other errors.

    Not every writer says why it failed: torch and NumPy report a full disk without its number.

    Args:
        error: raised while `path` was written.
        path: a file or folder that was to be written.
        final: the name that its user knows it by; None for `path`.
    """
    if isinstance(error, StorageError):
        return error
    number = error.errno if isinstance(error, OSError) else None
    if number in _WHERE and not _is_below(getattr(error, "filename", None), Path(path)):
        return None
    if number not in _WRITING and number not in _WHERE:
        number = _silent_reason(Path(path)) if isinstance(error, OSError | RuntimeError) else None
    if number is None:
        return None
    return StorageError(number, describe(number, final or path))


def describe(number: int, path: str | Path) -> str:
    """The sentence for an error number.

    >>> describe(errno.EROFS, "maps/slides.csv")
    'maps/slides.csv cannot be written: the file system is read-only. Write to another folder.'
    """
    reason, remedy = {**_WRITING, **_WHERE}[number]
    return f"{path} cannot be written: {reason}. {remedy}"


@contextmanager
def storage_errors(path: str | Path) -> Iterator[None]:
    """Errors of storage that the block raises while it writes `path` become a `StorageError`."""
    try:
        yield
    except Exception as error:
        found = storage_error(error, path)
        if found is None or found is error:
            raise
        raise found from error


def check_writable(folder: str | Path) -> None:
    """Check that a folder can be written to, or made, without writing anything.

    Raises:
        StorageError: if it cannot.
    """
    there = Path(folder).absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    number = None
    if not there.is_dir():
        number = errno.ENOTDIR
    elif os.statvfs(there).f_flag & os.ST_RDONLY:
        number = errno.EROFS
    elif not os.access(there, os.W_OK | os.X_OK):
        number = errno.EACCES
    elif _is_full(there):
        number = errno.ENOSPC
    if number is not None:
        raise StorageError(number, describe(number, folder))


def check_inputs_stay(folder: str | Path, names: Iterable[str], inputs: Iterable[str | Path]) -> None:
    """Check that no file that is read is one of those that are to be written, without writing anything.

    Links count as what they lead to, and as themselves: a link would be replaced too.

    Args:
        folder: that is written to, which need not exist.
        names: of the files that are written there.
        inputs: the files that are read; also those that are not there, for what is written would pass for them.

    Raises:
        ValueError: naming the file.
    """
    real = Path(folder).resolve()
    inside: dict[str, list[tuple[Path, Path]]] = {}
    for place, path in _places_in(real, inputs):
        inside.setdefault(comparable(place.name).casefold(), []).append((place, path))
    for name in names if inside else ():
        for place, path in inside.get(comparable(name).casefold(), ()):
            # Of names that differ in capitals alone the file system says whether they are one.
            if comparable(place.name) == comparable(name) or ((real / name).exists() and place.samefile(real / name)):
                raise ValueError(
                    f"{path} is a file to read, and {name}, which is to be written to {folder}, would replace it; nothing was "
                    "written. Give another output folder"
                )


def _places_in(real: Path, paths: Iterable[str | Path]) -> Iterator[tuple[Path, Path]]:
    """Where those of the files lie that lie in a folder, whatever leads to theirs, or are links that lead there.

    The file system is asked about each folder, and not about each file, of which there may be hundreds of thousands.
    """
    names_in: dict[str, list[str]] = {}
    for text in map(str, paths):
        start = text.rstrip(os.sep).rfind(os.sep) + 1
        names_in.setdefault(text[:start], []).append(text[start:])
    for folder, names in names_in.items():
        if Path(folder).resolve() == real:
            yield from ((real / name, Path(folder, name)) for name in names)
        for path in _links(Path(folder), names):
            place = path.resolve()
            if place.parent == real:
                yield place, path


def _links(folder: Path, names: Sequence[str]) -> list[Path]:
    """Those of the names in a folder that are links, or may be: some file systems take several spellings of a name for one."""
    if len(names) == 1:
        return [path for path in [folder / names[0]] if path.is_symlink()]
    try:
        with os.scandir(folder) as entries:
            links = {comparable(entry.name).casefold() for entry in entries if entry.is_symlink()}
    except FileNotFoundError:
        return []
    except OSError:  # a folder that may be entered and not listed, for one
        return [path for path in (folder / name for name in names) if path.is_symlink()]
    return [folder / name for name in names if comparable(name).casefold() in links] if links else []


def _is_below(name: object, path: Path) -> bool:
    """Whether the file that an error names is `path` or a folder around it; also where it names none."""
    if not isinstance(name, str | os.PathLike):
        return True
    return Path(name).absolute() in (path.absolute(), *path.absolute().parents)


def _is_full(folder: Path) -> bool:
    usage = shutil.disk_usage(folder)
    # Some file systems, of object stores above all, do not count: they say 0 of 0.
    return usage.total > 0 and usage.free < FULL_BYTES


def _silent_reason(path: Path) -> int | None:
    """Why writing may have failed if the writer gave no reason: no space, or a file at its limit."""
    with suppress(OSError):
        if _is_full(path.parent):
            return errno.ENOSPC
    with suppress(OSError):
        if resource is not None and 0 <= resource.getrlimit(resource.RLIMIT_FSIZE)[0] <= path.stat().st_size:
            return errno.EFBIG
    return None
