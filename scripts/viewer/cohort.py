"""What the page shows: slides, the maps of one or several methods, and the truth."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tifffile

from shared.data import load_manifest
from shared.data.record import Record
from shared.inference.cohort.finished import FINISHED, MAP_SUFFIX, fingerprint
from shared.inference.cohort.folder_settings import SETTINGS_NAME
from shared.inference.cohort.row_store import TABLE_NAME
from shared.inference.inputs import ImageInput, image_name
from shared.writers.table import read_rows
from shared.wsi.file_names import comparable, existing_file

logger = logging.getLogger(__name__)

# Where `scripts/compare.py` keeps the maps of each method and training, and the manifest of the scored slides.
_COMPARED, _SCORED = "maps", "data/test.csv"


@dataclass(frozen=True)
class Outlining:
    """How areas of tumour are outlined, see `ResultOptions`.

    Args:
        threshold: probability from which a pixel is tumour.
        min_area_um2: smaller areas are left out.
        simplify_um: outlines move by no more than this.
    """

    threshold: float = 0.5
    min_area_um2: float = 0.0
    simplify_um: float = 0.0


@dataclass(frozen=True)
class Maps:
    """The maps of one method in their present state: files that change while the page is open are read again.

    Args:
        title: name of the method on the page.
        folder: output folder of a `SlideMapper`.
    """

    title: str
    folder: Path

    @classmethod
    def of_folder(cls, folder: Path, title: str | None = None) -> Maps:
        """The maps in a folder.

        Raises:
            ValueError: if its table or settings cannot be read.
        """
        maps = cls(title or folder.name, folder)
        try:
            json.loads((folder / SETTINGS_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{folder / SETTINGS_NAME} cannot be read ({error}): give a folder of maps that infer.py has written"
            ) from error
        read_rows(folder / TABLE_NAME)
        return maps

    @property
    def rows(self) -> Mapping[str, Mapping[str, str]]:
        """The rows of the folder's table: `comparable` name of a slide -> its columns, as text."""
        path = self.folder / TABLE_NAME
        return _rows(path, stamp_of(path))

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings with which the maps were made."""
        path = self.folder / SETTINGS_NAME
        return _settings(path, stamp_of(path))

    @property
    def class_names(self) -> Sequence[str] | None:
        """The classes of multi-class maps, the background first; None for tumour maps. Those of the latest run."""
        names: Sequence[str] | None = self.settings.get("class_names")
        return names

    def class_names_of(self, slide: str) -> Sequence[str] | None:
        """The classes of a slide's map, the background first, as its file names them; None for a tumour map."""
        return _class_names(self.path(slide, MAP_SUFFIX), self.stamp(slide))

    def outlining(self, slide: str) -> Outlining:
        """With what a slide's map was outlined: by its row, and by the settings of the folder's latest run where an earlier
        version wrote the row."""
        row, settings = self.rows.get(slide, {}), self.settings
        found = {one.name: row.get(one.name) or settings.get(one.name) for one in fields(Outlining)}
        return Outlining(**{name: float(value) for name, value in found.items() if value})

    def is_foreign(self, slide: ViewedSlide) -> bool:
        """Whether with what a slide's map was outlined is not known: its row does not say so, and the folder's settings are not
        those with which it was made."""
        row = self.rows.get(slide.name, {})
        if row.get("min_area_um2"):
            return False
        images = [ImageInput(slide.path, slide.name, mpp) for mpp in {None, slide.mpp}]
        return row.get("fingerprint") not in {fingerprint(self.settings, image) for image in images}

    def has_map(self, slide: str) -> bool:
        """Whether a slide is mapped. A slide without tissue has a map, too."""
        return self.rows.get(slide, {}).get("status") in FINISHED

    def path(self, slide: str, suffix: str) -> Path:
        """The path of a slide's result with a suffix such as ``.ome.tif``."""
        return existing_file(self.folder / f"{slide}{suffix}")

    def stamp(self, slide: str) -> str:
        """A string that changes whenever a slide's map is rewritten."""
        return stamp_of(self.path(slide, MAP_SUFFIX))


def stamp_of(path: Path) -> str:
    """A string that changes with the content of a file, as far as the file system shows it; empty if there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_mtime_ns:x}.{found.st_ino:x}.{found.st_size:x}"


@functools.lru_cache(maxsize=64)
def _rows(path: Path, stamp: str) -> Mapping[str, Mapping[str, str]]:
    return {comparable(name): row for name, row in read_rows(path).items()}


@functools.lru_cache(maxsize=64)
def _settings(path: Path, stamp: str) -> Mapping[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if stamp else {}


@functools.lru_cache(maxsize=1024)
def _class_names(path: Path, stamp: str) -> Sequence[str] | None:
    try:
        with tifffile.TiffFile(path) as file:
            channels = ElementTree.fromstring(file.ome_metadata or "<OME/>").iterfind(".//{*}Channel")
            names = [channel.get("Name", "") for channel in channels]
    except (OSError, tifffile.TiffFileError, ElementTree.ParseError):  # said where the map itself is read
        return None
    return names if len(names) > 1 else None


@dataclass(frozen=True)
class ViewedSlide:
    """One slide of the page.

    Args:
        name: `comparable` file name of its results, without suffix.
        path: path of the slide.
        mpp: micrometres per level-0 pixel, where the manifest or a table of maps states it.
        record: its row in the manifest; None without a manifest.
    """

    name: str
    path: Path
    mpp: float | None = None
    record: Record | None = None


@dataclass(frozen=True)
class Cohort:
    """Slides and the methods that mapped them. There may be no methods, and methods may be added later."""

    slides: Mapping[str, ViewedSlide]
    methods: list[Maps] = field(default_factory=list)

    def add(self, maps: Maps) -> int:
        """Add a method and return its number."""
        self.methods.append(maps)
        return len(self.methods) - 1

    @property
    def has_truth(self) -> bool:
        return any(slide.record and slide.record.get("mask") for slide in self.slides.values())


def open_cohort(folders: Sequence[Path], manifest: Path | None = None) -> Cohort:
    """Collect the slides and maps of folders and of a manifest.

    Args:
        folders: folders of maps, or of comparisons, which contain maps of several methods.
        manifest: manifest with masks and labels; it may name slides that are not mapped.

    Raises:
        ValueError: if there are no slides, or a folder contains no maps.
    """
    methods = [maps for folder in folders for maps in _methods_in(folder)]
    scored = [folder / _SCORED for folder in folders if (folder / _SCORED).is_file()]
    records = _records(manifest) if manifest is not None else [one for path in scored for one in _records(path)]
    slides: dict[str, ViewedSlide] = {}
    for record in records:
        name = comparable(image_name(Path(record["image"])))
        slides.setdefault(name, _viewed(name, record))
        _warn_of_another(slides[name], Path(record["image"]))
    for maps in methods:
        for name, row in maps.rows.items():
            known = slides.get(name)
            mpp = float(row["mpp"]) if row.get("mpp") else None
            if known is None:
                slides[name] = ViewedSlide(name, Path(row["path"]), mpp)
                continue
            _warn_of_another(known, Path(row["path"]))
            if known.mpp is None:
                slides[name] = ViewedSlide(name, known.path, mpp, known.record)
    if not slides:
        raise ValueError("there are no slides to show: give a folder of maps, a folder of a comparison, or --manifest")
    # Mapped slides come first.
    mapped = {name for maps in methods for name in maps.rows}
    return Cohort(dict(sorted(slides.items(), key=lambda named: named[0] not in mapped)), methods)


def _warn_of_another(shown: ViewedSlide, path: Path) -> None:
    """Warn if two existing files have the same name, and therefore share one row and one set of results."""
    if shown.path != path and shown.path.is_file() and path.is_file() and not shown.path.samefile(path):
        logger.warning("two slides have the name %s: %s is shown, %s is not", shown.name, shown.path, path)


def _viewed(name: str, record: Record) -> ViewedSlide:
    return ViewedSlide(name, Path(record["image"]), record.get("mpp"), record)


def _records(manifest: Path) -> list[Record]:
    return load_manifest(manifest, require=(), check_files=False)


def _methods_in(folder: Path) -> list[Maps]:
    """The maps of a folder, or, for a comparison, those of each method's first training."""
    if (folder / TABLE_NAME).is_file():
        return [Maps.of_folder(folder)]
    compared = sorted({path.parents[1] for path in folder.glob(f"{_COMPARED}/*/*/{TABLE_NAME}")})
    if not compared:
        raise ValueError(f"{folder} contains no maps: expected {TABLE_NAME}, which infer.py writes, or the maps of a comparison")
    firsts = [min(path.glob(f"*/{TABLE_NAME}")).parent for path in compared]
    return [Maps.of_folder(first, first.parent.name) for first in firsts]
