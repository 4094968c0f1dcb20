"""Zips that hold the same bytes whenever they are made of the same files."""

from __future__ import annotations

import hashlib
import shutil
import stat
import zipfile
from pathlib import Path

from shared.writers import atomic_path

# The oldest that the format knows.
FIXED_TIME = (1980, 1, 1, 0, 0, 0)
PERMISSIONS = stat.S_IFREG | 0o644
UNIX = 3


def write_archive(folder: Path, path: Path) -> None:
    """Pack a folder: entries sorted, with fixed times and permissions, below the folder's own name.

    Nothing is compressed: weights hardly shrink, and each release of zlib may compress the rest in its own way.

    Args:
        folder: every file below it is taken, links are refused.
        path: the zip, which appears whole or not at all.

    Raises:
        ValueError: for a symbolic link.
    """
    links = [file for file in folder.rglob("*") if file.is_symlink()]
    if links:
        raise ValueError(f"{links[0]} is a link, and a packed bundle must not depend on other files")
    files = {file.relative_to(folder.parent).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, FIXED_TIME)
            entry.external_attr, entry.create_system = PERMISSIONS << 16, UNIX
            with files[name].open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 1 << 20)


def unpack(path: Path, parent: Path) -> Path:
    """Unpack a bundle's zip into an empty folder, after every byte of it has been checked.

    Args:
        path: the zip.
        parent: gets the bundle's folder.

    Returns:
        the bundle's folder: the one that every entry lies in, named as the zip is up to ``_v``.

    Raises:
        ValueError: if it is truncated or altered, or an entry lies outside that folder.
    """
    name = path.name.partition("_v")[0]
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"{path} was altered: the checksum of {damaged} does not match")
            outside = [entry for entry in archive.namelist() if not _is_below(entry, name)]
            if outside:
                raise ValueError(f"{path}: every entry must lie in {name}/; got {outside[0]}")
            archive.extractall(parent)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a complete zip file: it was truncated or altered: {error}") from error
    return parent / name


def checksum(path: Path, algorithm: str = "sha1") -> str:
    """SHA checksum of a file's bytes, in hexadecimal digits. The zoo's ``model_info.json`` has SHA-1.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "abc")
    ...     _ = file.write_bytes(b"abc")
    ...     checksum(file)
    'a9993e364706816aba3e25717850c26c9cd0d89d'
    """
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _is_below(entry: str, folder: str) -> bool:
    parts = entry.split("/")
    return parts[0] == folder and len(parts) > 1 and ".." not in parts and "\\" not in entry
