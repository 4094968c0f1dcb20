"""The slides and pictures below a folder, and what else is there: nothing is passed over without a word."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from .file_names import comparable
from .formats import image_suffixes, is_image, is_plain_picture, unreadable_format
from .slide_files import INDEX_SUFFIXES, files_named_in, is_mirax_folder

logger = logging.getLogger(__name__)

# What every folder of results holds.
RESULTS = ("settings.json", "slides.csv", "rows")
_DICOM_SUFFIX = ".dcm"


def find_image_files(folder: Path, exclude: Path | None = None) -> list[Path]:
    """The slides and pictures in a folder and those below it, in order; how many other files there are is logged.

    Folders that are links are followed, each folder once. A slide of several files is one: of a DICOM series its largest file,
    of a MIRAX slide the ``.mrxs`` (also where only its folder is there), of a Hamamatsu VMS slide the ``.vms``. Links to
    nothing are among the images where they may be one, and so are slides in formats that are not read, unless there is a slide
    of the same name: opening them says why. Hidden files and folders and results of earlier runs are left out.

    Args:
        folder: to search.
        exclude: a folder that is not searched.

    Raises:
        ValueError: if the folder itself cannot be searched.
    """
    search = _Search(folder, exclude)
    search.leave_out_originals()
    search.log()
    return _one_of_each_series(sorted(search.images - search.companions))


class _Search:
    """One walk through a folder: `images`, the files that belong to some of them, and how many others there are."""

    def __init__(self, folder: Path, exclude: Path | None) -> None:
        self.images: set[Path] = set()
        self.companions: set[Path] = set()
        self._folder = folder
        self._exclude = None if exclude is None else exclude.resolve()
        self._others: Counter[str] = Counter()
        self._remarks: list[str] = []
        for path in self._files():
            self._take(path)

    def leave_out_originals(self) -> None:
        """Leave out slides that cannot be read where one of the same name can: they were converted."""
        readable = {
            _name(path)
            for path in self.images
            if path.suffix.lower() in image_suffixes() and not is_plain_picture(path) and path.exists()
        }
        for path in sorted(path for path in self.images if _is_unreadable(path) and _name(path) in readable):
            self._remarks.append(f"{path}, which is skipped: there is a slide of the same name")
            self.images.remove(path)

    def log(self) -> None:
        """Say what was passed over, and why."""
        if self._others:
            ordered = sorted(self._others.items(), key=lambda item: (-item[1], item[0]))
            kinds = ", ".join(f"{count} {kind}" for kind, count in ordered)
            logger.info("%s: skipped %d files that are not images: %s", self._folder, self._others.total(), kinds)
        for remark in self._remarks:
            logger.warning("%s: skipped %s", self._folder, remark)

    def _files(self) -> Iterator[Path]:
        """Every file and broken link, folder by folder; those reached through links last, so that files keep their paths."""
        folders, links, seen = deque([self._folder]), deque[Path](), set()
        while folders or links:
            folder = (folders or links).popleft()
            real = folder.resolve()
            if real in seen:
                continue
            seen.add(real)
            for path in self._entries(folder):
                if not path.is_dir():
                    yield path
                elif self._is_searched(path):
                    (links if path.is_symlink() else folders).append(path)

    def _entries(self, folder: Path) -> list[Path]:
        try:
            return sorted(folder.iterdir())
        except OSError as error:
            if folder == self._folder:
                raise ValueError(f"{folder} cannot be searched: {error}") from error
            self._remarks.append(f"the folder {folder}, which cannot be searched: {error}")
            return []

    def _is_searched(self, folder: Path) -> bool:
        if self._exclude is not None and folder.resolve().is_relative_to(self._exclude):
            return False
        if folder.name.startswith("."):
            self._others["hidden"] += 1
            return False
        if unreadable_format(folder) is not None:
            self.images.add(folder)
            return False
        if is_mirax_folder(folder):
            # Without its file, too, it is a slide that somebody waits for.
            names = {path.name for path in folder.parent.iterdir() if path.name.lower() == f"{folder.name}.mrxs".lower()}
            self.images.add(folder.with_name(min(names, default=f"{folder.name}.mrxs")))
            return False
        if all((folder / name).exists() for name in RESULTS):
            self._remarks.append(f"the results of an earlier run in {folder}")
            return False
        return True

    def _take(self, path: Path) -> None:
        if path.name.startswith("."):
            self._others["hidden"] += 1
        elif is_image(path) or (_is_broken_link(path) and not path.suffix):
            self.images.add(path)
            if path.suffix.lower() in INDEX_SUFFIXES:
                self.companions |= files_named_in(path)
        elif _is_broken_link(path):
            self._remarks.append(f"{path}, a link to {path.readlink()}, which does not exist")
        else:
            self._others[path.suffix.lower() or "without ending"] += 1


def _is_unreadable(path: Path) -> bool:
    """Whether a path is of a format that is not read, or of a MIRAX slide of which only the folder is there."""
    return unreadable_format(path) is not None or not (path.exists() or path.is_symlink())


def _name(path: Path) -> str:
    return comparable(path.stem).casefold().removesuffix(".ome")


def _is_broken_link(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _one_of_each_series(paths: Iterable[Path]) -> list[Path]:
    """`paths` in their order, with one file, the largest, of those in a folder that are of one DICOM series.

    Such a slide is a series of files, one per level and more; OpenSlide opens it by any of them. Files that say
    nothing of a series stay, and so does what is no DICOM by its ending.
    """
    paths = list(paths)
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        if path.suffix.lower() == _DICOM_SUFFIX:
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
