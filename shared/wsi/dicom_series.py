"""A slide in DICOM is a series of files, one per level and more; OpenSlide opens it by any of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

_SUFFIX = ".dcm"


def one_of_each_series(paths: Iterable[Path]) -> list[Path]:
    """`paths` in their order, with one file, the largest, of those in a folder that are of one DICOM series.

    Files that say nothing of a series stay, and so does what is no DICOM by its ending.
    """
    paths = list(paths)
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        if path.suffix.lower() == _SUFFIX:
            folders[path.parent].append(path)
    dropped: set[Path] = set()
    for folder, files in folders.items():
        for series in _series(folder, files) if len(files) > 1 else ():
            kept = max(series, key=lambda path: (path.stat().st_size, path.name))
            dropped.update(path for path in series if path != kept)
    return [path for path in paths if path not in dropped]


def _series(folder: Path, files: Iterable[Path]) -> list[list[Path]]:
    """The files of each series in a folder."""
    import itk

    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(False)  # levels differ in them
    names.SetRecursive(False)
    names.SetDirectory(str(folder))
    by_name = {path.name: path for path in files}
    found = ([Path(name).name for name in names.GetFileNames(uid)] for uid in names.GetSeriesUIDs())
    return [[by_name[name] for name in series if name in by_name] for series in found if any(name in by_name for name in series)]
