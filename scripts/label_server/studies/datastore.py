"""The studies folder as MONAI Label's datastore, with checked names and atomic writes."""

from __future__ import annotations

import copy
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel, ImageLabelModel

from shared.writers.atomic import atomic_path
from shared.wsi.annotations.annotation_file import ANNOTATION_SUFFIXES, PACKED_SUFFIXES
from shared.wsi.file_names import comparable
from shared.wsi.formats import image_suffixes

from ..doors.access import check_name
from ..learning.weak_labels import check_info, stated_label
from ..refusal import Refusal
from .gone_slides import CONTENT, CONTENT_NOW, OF_EVERY_SLIDE, OF_THE_SERVER, GoneSlides, content_of
from .locked_datastore import LockedDatastore
from .slide_names import FoundSlides, find_slides
from .studies_watch import watch_studies

logger = logging.getLogger(__name__)

FINAL = "final"


class SlideDatastore(LockedDatastore):
    """A folder of slides and images, with its subfolders. Labels are stored in its ``labels/`` and ``datastore_v2.json``.

    It differs from MONAI Label's datastore: annotation files are not taken as images, subfolders are searched, every name from a
    client is checked, labels are validated before they are stored, and several servers may serve one folder. The entry ``name``
    of a slide is its path in the folder, and ``content_key`` tells the file that was labelled from others; for its id see
    `find_slides`.

    Args:
        folder: folder of the slides.
        auto_reload: whether to watch the folder.
        on_label: called with the id of a slide whose label has changed.
        excluded: subfolders without slides, such as the server's own.
        check_annotations: called with the paths of a slide and of its submitted annotations; raises if these cannot be read.
    """

    def __init__(
        self,
        folder: str,
        auto_reload: bool = True,
        on_label: Callable[[str], None] | None = None,
        check_annotations: Callable[[Path, Path], None] | None = None,
        excluded: Sequence[Path] = (),
    ) -> None:
        self._on_label = on_label or (lambda image_id: None)
        self._check_annotations = check_annotations or (lambda slide, annotations: None)
        self._excluded = list(excluded)
        self.found = FoundSlides({}, {})
        # Id and content of slides that were warned of.
        self._warned: set[tuple[str, str | None]] = set()
        self._gone = GoneSlides(Path(folder, "labels", "gone.json"))
        suffixes = sorted(image_suffixes() | {*ANNOTATION_SUFFIXES, *PACKED_SUFFIXES}, key=len)
        # Later suffixes take precedence, so longer ones come later: .geojson.gz rather than .gz.
        super().__init__(folder, extensions=[f"*{part}" for suffix in suffixes for part in (suffix, suffix.upper())])
        if auto_reload:
            watch_studies(Path(folder), self.refresh, self._init_from_datastore_file)

    def own_id(self, image_id: str) -> str:
        """The id of the slide that a client calls by this name: with accents written as in the slide's own (a Mac's client may
        write them otherwise); the name itself where no slide has it."""
        ids = self._datastore.objects
        if image_id in ids or image_id.isascii():
            return image_id
        return next((own for own in sorted(ids) if comparable(own) == comparable(image_id)), image_id)

    def slide_path(self, image_id: str) -> Path:
        """The file of a slide.

        Raises:
            Refusal: if there is none of this name, or several share it.
        """
        check_name(image_id)
        uri = self.get_image_uri(image_id)
        if uri and Path(uri).is_file():
            return Path(uri)
        others = self.found.called(image_id)
        if others:
            raise Refusal(f"{len(others)} slides have the name {image_id!r}: request {' or '.join(others[:10])}", 409)
        raise Refusal(f"there is no slide {image_id!r} in the studies folder", 404)

    def get_image_uri(self, image_id: str) -> str:
        found = self._datastore.objects.get(image_id)
        return "" if found is None else str(Path(self._datastore.image_path(), _path_of(image_id, found)).resolve())

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        path = self.slide_path(image_id)
        return {**copy.deepcopy(self._datastore.objects[image_id].image.info), "path": str(path)}

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        suffix = Path(image_filename).suffix
        if suffix.lower() not in image_suffixes():
            raise Refusal(f"{suffix[:80] or 'a file without a suffix'} is not a known format of slides or images")
        check_name(f"{check_name(image_id)}{suffix}")
        path = Path(self._datastore.image_path(), f"{image_id}{suffix}")
        with self._changing() as slides:
            # The file may belong to a slide with another id, or to none.
            if image_id in slides or path.exists():
                raise Refusal(f"a slide {image_id!r} already exists: give this one another name", 409)
            with atomic_path(path) as temporary:
                shutil.copy(image_filename, temporary)
            info = {**image_info, "ts": int(time.time()), "name": path.name}
            slides[image_id] = ImageLabelModel(image=DataModel(info=info, ext=suffix))
            self._reattach([image_id])
            self._identify([image_id])
        return image_id

    def remove_image(self, image_id: str) -> None:
        self.slide_path(image_id)
        with self._changing() as slides:
            entry = self._entry(image_id)
            for tag in list(entry.labels):
                self._remove_label_files(image_id, tag)
            path = _path_of(image_id, entry)
            # Removes a link, not its target.
            Path(self._datastore.image_path(), path).unlink()
            self._gone.forget(image_id, path, entry.image.info)
            del slides[image_id]
            self._reconcile_datastore()

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        slide = self.slide_path(image_id)
        check_tag(label_tag)
        # Raises for a file without readable annotations.
        self._check_annotations(slide, Path(label_filename))
        _, ending = self._to_id(Path(label_filename).name)
        path, content = Path(self._datastore.label_path(label_tag), self._filename(image_id, ending)), content_of(slide)
        with self._lock:
            with self._changing(image_id):
                entry = self._entry(image_id)
                with atomic_path(path) as temporary:
                    shutil.copy(label_filename, temporary)
                info = {**(label_info or {}), "ts": int(time.time()), "name": path.name}
                entry.labels[label_tag] = DataModel(info=info, ext=ending)
                _note_content(entry, content)
            # When the new one is stored, so that a killed server leaves one of them.
            for other in self._label_files(image_id, label_tag) - {path}:
                other.unlink(missing_ok=True)
        self._on_label(image_id)
        return image_id

    def _label_files(self, image_id: str, tag: str) -> set[Path]:
        """A slide's label files in all formats; one left behind would reappear when the others are removed."""
        return {path for path in Path(self._datastore.label_path(tag)).iterdir() if self._to_id(path.name)[0] == image_id}

    def _remove_label_files(self, image_id: str, tag: str) -> None:
        for path in self._label_files(image_id, tag):
            path.unlink(missing_ok=True)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        with self._changing(label_id) as slides:
            if not self.get_label_uri(label_id, check_tag(label_tag)):
                raise Refusal(f"{label_id!r} has no label", 404)
            self._remove_label_files(label_id, label_tag)
            del slides[label_id].labels[label_tag]
        self._on_label(label_id)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        path = self.slide_path(image_id)
        if not isinstance(info, dict):
            raise Refusal(f"info must be a JSON object, got {type(info).__name__}")
        stated, content = stated_label(check_info(info)), content_of(path)
        with self._changing(image_id):
            entry = self._entry(image_id)
            if "weak_label" in info or CONTENT not in entry.image.info or not _is_said(entry):
                _note_content(entry, content)
            entry.image.info.update(info)
        if stated is not None:
            self._on_label(image_id)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        with self._changing(label_id):
            super().update_label_info(label_id, label_tag, info)

    def annotation_file(self, image_id: str) -> Path | None:
        """The annotations that were submitted for a slide; None if there are none."""
        uri = self.get_label_uri(image_id, FINAL)
        return Path(uri) if uri and Path(uri).is_file() else None

    def _to_id(self, file: str) -> tuple[str, str]:
        endings = [pattern.removeprefix("*") for pattern in self._extensions]
        ending = max((ending for ending in endings if file.endswith(ending)), key=len, default=Path(file).suffix)
        return file.removesuffix(ending), ending

    def _reconcile_datastore(self) -> None:
        self._read_contents()
        with self._changing():
            self._remove_non_existing()
            self._add_non_existing_images()
            for folder in sorted(Path(self._datastore.label_path(None)).iterdir()):
                if folder.is_dir():
                    self._add_non_existing_labels(folder.name)
            self._identify(self._datastore.objects)

    def _read_contents(self) -> None:
        """Read up to 1 MiB of each slide whose content counts, which `content_of` remembers, before others wait for the lock."""
        folder = Path(self._datastore.image_path())
        paths = {_path_of(image_id, entry) for image_id, entry in list(self._datastore.objects.items()) if _is_known(entry)}
        # As a rule slides come back to where they were.
        paths |= {str(kept.get("name")) for infos in self._gone.kept().values() for kept in infos}
        for path in sorted(paths):
            content_of(folder / path)

    def _add_non_existing_images(self) -> int:
        """Add the slides that are new in the folder; return their number."""
        slides, folder = self._datastore.objects, Path(self._datastore.image_path())
        known = {_path_of(image_id, entry): image_id for image_id, entry in slides.items()}
        self.found = find_slides(folder, known, [Path(self._datastore.label_path(None)), *self._excluded])
        new = {image_id: path for image_id, path in self.found.paths.items() if image_id not in slides}
        for image_id, path in new.items():
            info = {"ts": int(time.time()), "name": path}
            slides[image_id] = ImageLabelModel(image=DataModel(info=info, ext=Path(path).suffix))
        self._reattach(new)
        return len(new)

    def _remove_non_existing(self) -> int:
        slides, folder = self._datastore.objects, Path(self._datastore.image_path())
        gone = {image_id: entry for image_id, entry in slides.items() if not (folder / _path_of(image_id, entry)).exists()}
        # This comes first, so that nothing is removed if it fails.
        self._gone.keep({image_id: entry.image.info for image_id, entry in gone.items()})
        for image_id in gone:
            del slides[image_id]
        removed = len(gone)
        for image_id, entry in slides.items():
            for tag, label in list(entry.labels.items()):
                if not Path(self._datastore.label_path(tag), self._filename(image_id, label.ext)).exists():
                    del entry.labels[tag]
                    removed += 1
        return removed

    def _reattach(self, new: Collection[str]) -> None:
        """Give slides that are back what is kept of them; what is kept of another slide of the same name is left aside.

        It is tried again as long as nothing was said of a slide, because its file may still be being copied.

        Args:
            new: ids of the slides that were not there before.
        """
        final = Path(self._datastore.label_path(FINAL))
        for image_id, kept in self._gone.kept().items():
            entry = self._datastore.objects.get(image_id)
            if entry is None or (_is_said(entry) and image_id not in new):
                continue
            path = _path_of(image_id, entry)
            content = content_of(Path(self._datastore.image_path(), path))
            found = self._gone.info_of(image_id, path, content)
            if image_id in new and found != kept[-1]:
                # They are those of the slide that had the id last.
                _move(self._label_files(image_id, FINAL), self._gone.drawings(kept[-1]))
            if found is not None:
                # What was stored while the file was being copied has the content of a part of it.
                since = {name: value for name, value in entry.image.info.items() if name not in (CONTENT, CONTENT_NOW)}
                entry.image.info = {**found, **since}
                aside = self._gone.drawings(found)
                _move(aside.iterdir() if aside.is_dir() else (), final)
            self._warn_of(image_id, path, content, found)

    def _warn_of(self, image_id: str, path: str, content: str | None, found: dict[str, Any] | None) -> None:
        """Log, once for each file, that the label of another slide was left aside, or that one was attached by its name alone."""
        if (found is not None and CONTENT in found) or (image_id, content) in self._warned:
            return
        self._warned.add((image_id, content))
        if found is None:
            logger.warning(
                "%s: the label and the drawings kept for %r in %s are not those of this file, and are left there: label it again "
                "if it is the same slide",
                *(path, image_id, self._gone.path),
            )
        else:
            logger.warning(
                "%s: the label kept for %r in %s was attached by the name of the file, as its content was not stored: check that "
                "it is the same slide",
                *(path, image_id, self._gone.path),
            )

    def _identify(self, images: Iterable[str]) -> None:
        """Store the content of slides of which something is known, and of files that were put in the place of labelled ones."""
        for image_id in images:
            entry = self._datastore.objects[image_id]
            if not _is_known(entry):
                continue
            path = Path(self._datastore.image_path(), _path_of(image_id, entry))
            content, info = content_of(path), entry.image.info
            if CONTENT not in info or content == info[CONTENT] or not _is_said(entry):
                _note_content(entry, content)
                continue
            if content is not None:
                # The label counts for this file too, also when it is gone for a while.
                info[CONTENT_NOW] = content
            if (image_id, content) not in self._warned:
                self._warned.add((image_id, content))
                logger.warning("%s has changed since %r was labelled: check that it is the same slide", path, image_id)

    def _entry(self, image_id: str) -> ImageLabelModel:
        """The entry of a slide, within `_changing`: another server may have removed it."""
        if image_id not in self._datastore.objects:
            raise Refusal(f"there is no slide {image_id!r} in the studies folder any more", 404)
        return self._datastore.objects[image_id]


def _is_known(entry: ImageLabelModel) -> bool:
    """Whether anything is worth keeping of a slide: what was said of it or drawn on it, or when it was proposed."""
    return bool(entry.labels or set(entry.image.info) - OF_EVERY_SLIDE)


def _is_said(entry: ImageLabelModel) -> bool:
    """Whether anything was said of a slide or drawn on it."""
    return bool(entry.labels or set(entry.image.info) - OF_EVERY_SLIDE - OF_THE_SERVER)


def _note_content(entry: ImageLabelModel, content: str | None) -> None:
    """Store what the file of a slide holds, for which its label counts from now on."""
    if content is not None:
        entry.image.info[CONTENT] = content
        entry.image.info.pop(CONTENT_NOW, None)


def _move(files: Iterable[Path], folder: Path) -> None:
    for file in list(files):
        folder.mkdir(parents=True, exist_ok=True)
        file.replace(folder / file.name)


def _path_of(image_id: str, entry: ImageLabelModel) -> str:
    """A slide's path in the studies folder."""
    name = entry.image.info.get("name")
    is_inside = isinstance(name, str) and name and not name.startswith("/") and ".." not in Path(name).parts
    return str(name) if is_inside else f"{image_id}{entry.image.ext}"


def check_tag(tag: str) -> str:
    """Check the tag of a label, and return it. Only one is allowed, as labels with other tags would never be read.

    Raises:
        Refusal: for any other tag.
    """
    if tag != FINAL:
        raise Refusal(f"the tag of a label must be {FINAL!r}, got {tag[:80]!r}")
    return tag


def check_studies(folder: Path, work_dir: Path) -> None:
    """Check that labels can be stored in the studies folder, and that maps and trainings are kept elsewhere.

    Raises:
        ValueError: if the folder does not exist, cannot be written to, is on a full disk, or is the `work_dir`.
    """
    if not folder.is_dir():
        raise ValueError(f"--studies {folder} is not a folder: give the folder of the slides")
    if folder.resolve() == work_dir.resolve():
        raise ValueError(f"--studies and --work_dir are one folder, {folder}: give another --work_dir for maps and trainings")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-"):
            pass
    except OSError as error:
        raise ValueError(f"--studies {folder} cannot be written to ({error}), but the labels are stored in it") from error
    if shutil.disk_usage(folder).free < 2**20:
        raise ValueError(f"--studies {folder} has no disk space left for labels: free some")
