"""Is there a slide to open at all? What is known about a path before any library sees it."""

from __future__ import annotations

from pathlib import Path

from .formats import is_plain_picture, known_suffixes, unreadable_format

MIRAX_INDEX = "Slidedat.ini"


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
