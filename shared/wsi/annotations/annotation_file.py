"""Annotation files on disk: which they are, and their content, unpacked within bounds."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

ANNOTATION_SUFFIXES = (".xml", ".json", ".geojson")
# The million outlines of a large slide have 300 MB of text. Parsed they take several times as much memory.
MAX_FILE_BYTES = 2**30
_GZIP, _ZIP = ".gz", ".zip"
PACKED_SUFFIXES = (*(suffix + _GZIP for suffix in ANNOTATION_SUFFIXES), _ZIP)
# What a packed file that is damaged raises, which is no OSError.
DAMAGE = (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile)


def is_annotation_file(path: str | Path) -> bool:
    """Whether a file is one of annotations by its name: ``.xml``, ``.json``, ``.geojson``, these with ``.gz``, or ``.zip``.

    >>> [is_annotation_file(name) for name in ("a.GeoJSON", "a.svs.geojson.gz", "a.zip", "a.png", "a.tif.gz")]
    [True, True, True, False, False]
    """
    name = Path(path).name.lower()
    return name.removesuffix(_GZIP).endswith(ANNOTATION_SUFFIXES) or name.endswith(_ZIP)


def annotation_stem(path: str | Path) -> str:
    """The name of an annotation file without its suffixes.

    >>> annotation_stem("a b.svs.geojson.gz"), annotation_stem("a.zip"), annotation_stem("a.XML")
    ('a b.svs', 'a', 'a')
    """
    name = Path(path).name
    for suffixes in ((_GZIP, _ZIP), ANNOTATION_SUFFIXES):
        suffix = Path(name).suffix
        name = name[: -len(suffix)] if suffix.lower() in suffixes else name
    return name


class BoundedFile:
    """A file that is read from start to end, and no further than `MAX_FILE_BYTES`.

    Args:
        file: to read from.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = MAX_FILE_BYTES

    def read(self, size: int = -1) -> bytes:
        """The next bytes, all that are left where `size` is negative.

        Raises:
            ValueError: if there are more than `MAX_FILE_BYTES` in all.
        """
        content = self._file.read(self._left + 1 if size < 0 else min(size, self._left + 1))
        self._left -= len(content)
        if self._left < 0:
            raise ValueError(
                f"it contains more than {MAX_FILE_BYTES / 2**30:g} GiB of text: leave out what is not needed, such as cells, or "
                "use a mask image instead"
            )
        return content


@contextmanager
def opened_annotations(path: Path) -> Iterator[tuple[BoundedFile, str]]:
    """The content of an annotation file, and the suffix that gives its format: ``.xml``, ``.json`` or ``.geojson``.

    Args:
        path: a file, a gzipped one, or a ZIP archive with one annotation file in it.

    Raises:
        ValueError: for another suffix, an archive with no annotation file or several, or one that needs a password.
        OSError: if it cannot be read; `DAMAGE` where a packed one is damaged.
    """
    if not is_annotation_file(path):
        suffix = path.suffix.lower() or "files without an ending"
        raise ValueError(
            f"annotations are read from {', '.join(ANNOTATION_SUFFIXES)}, not from {suffix}; they may be packed as {_GZIP} or "
            f"{_ZIP}"
        )
    with ExitStack() as stack:
        if path.suffix.lower() == _ZIP:
            archive = stack.enter_context(zipfile.ZipFile(path))
            member = _only_member(archive)
            file: IO[bytes] = stack.enter_context(_opened_member(archive, member))
            yield BoundedFile(file), PurePosixPath(member.filename).suffix.lower()
        elif path.suffix.lower() == _GZIP:
            unpacked = stack.enter_context(gzip.open(path))
            yield BoundedFile(cast(IO[bytes], unpacked)), Path(path.stem).suffix.lower()
        else:
            yield BoundedFile(stack.enter_context(path.open("rb"))), path.suffix.lower()


def _only_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    # macOS adds a hidden twin of each file.
    names = [info for info in archive.infolist() if PurePosixPath(info.filename).suffix.lower() in ANNOTATION_SUFFIXES]
    found = [info for info in names if not PurePosixPath(info.filename).name.startswith(".")]
    if len(found) != 1:
        shown = ", ".join(info.filename for info in found[:3]) or ", ".join(archive.namelist()[:3]) or "nothing"
        raise ValueError(
            f"expected one file of {', '.join(ANNOTATION_SUFFIXES)} in the archive, found {len(found)} ({shown}): unpack it"
        )
    return found[0]


def _opened_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    try:
        return archive.open(member)
    except (RuntimeError, NotImplementedError) as error:  # a password, or a compression that Python does not know
        raise ValueError(
            f"its {member.filename} cannot be unpacked ({error}): unpack it yourself and give the unpacked file"
        ) from error
