"""The studies folder as MONAI Label's datastore, with checked names and atomic writes."""

from __future__ import annotations

import copy
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore

from shared.writers.atomic import atomic_path
from shared.wsi.annotations.annotation_file import ANNOTATION_SUFFIXES, PACKED_SUFFIXES
from shared.wsi.file_names import comparable
from shared.wsi.formats import image_suffixes

from ..doors.access import check_name
from ..learning.weak_labels import check_info, stated_label
from ..refusal import Refusal
from .gone_slides import GoneSlides
from .slide_names import FoundSlides, find_slides
from .studies_watch import watch_studies

logger = logging.getLogger(__name__)

FINAL = "final"


class SlideDatastore(LocalDatastore):
    """A folder of slides and images, with its subfolders. Labels are stored in its ``labels/`` and ``datastore_v2.json``.

    It differs from MONAI Label's datastore: annotation files are not taken as images, subfolders are searched, every name from a
    client is checked, labels are validated before they are stored, and ``datastore_v2.json`` is replaced atomically. The entry
    ``name`` of a slide is its path in the folder; for its id see `find_slides`.

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
        with FileLock(self._lock_file):
            # The file may belong to a slide with another id, or to none.
            if image_id in self._datastore.objects or path.exists():
                raise Refusal(f"a slide {image_id!r} already exists: give this one another name", 409)
            with atomic_path(path) as temporary:
                shutil.copy(image_filename, temporary)
            info = {**image_info, "ts": int(time.time()), "name": path.name}
            self._datastore.objects[image_id] = ImageLabelModel(image=DataModel(info=info, ext=suffix))
            self._update_datastore_file(lock=False)
        return image_id

    def remove_image(self, image_id: str) -> None:
        self.slide_path(image_id)
        entry = self._datastore.objects[image_id]
        for tag in list(entry.labels):
            self.remove_label(image_id, tag)
        entry.image.info = {"name": _path_of(image_id, entry)}
        # Removes a link, not its target.
        Path(self._datastore.image_path(), _path_of(image_id, entry)).unlink()
        self.refresh()

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        slide = self.slide_path(image_id)
        check_tag(label_tag)
        # Raises for a file without readable annotations.
        self._check_annotations(slide, Path(label_filename))
        _, ending = self._to_id(Path(label_filename).name)
        path = Path(self._datastore.label_path(label_tag), self._filename(image_id, ending))
        with FileLock(self._lock_file):
            with atomic_path(path) as temporary:
                shutil.copy(label_filename, temporary)
            info = {**(label_info or {}), "ts": int(time.time()), "name": path.name}
            self._datastore.objects[image_id].labels[label_tag] = DataModel(info=info, ext=ending)
            self._update_datastore_file(lock=False)
            for other in self._label_files(image_id, label_tag) - {path}:
                other.unlink(missing_ok=True)
        self._on_label(image_id)
        return image_id

    def _label_files(self, image_id: str, tag: str) -> set[Path]:
        """A slide's label files in all formats; one left behind would reappear when the others are removed."""
        return {path for path in Path(self._datastore.label_path(tag)).iterdir() if self._to_id(path.name)[0] == image_id}

    def remove_label(self, label_id: str, label_tag: str) -> None:
        uri = self.get_label_uri(label_id, check_tag(label_tag))
        if not uri:
            raise Refusal(f"{label_id!r} has no label", 404)
        for path in self._label_files(label_id, label_tag):
            path.unlink(missing_ok=True)
        self.refresh()
        self._on_label(label_id)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        self.slide_path(image_id)
        if not isinstance(info, dict):
            raise Refusal(f"info must be a JSON object, got {type(info).__name__}")
        stated = stated_label(check_info(info))
        super().update_image_info(image_id, info)
        if stated is not None:
            self._on_label(image_id)

    def annotation_file(self, image_id: str) -> Path | None:
        """The annotations that were submitted for a slide; None if there are none."""
        uri = self.get_label_uri(image_id, FINAL)
        return Path(uri) if uri and Path(uri).is_file() else None

    def _to_id(self, file: str) -> tuple[str, str]:
        endings = [pattern.removeprefix("*") for pattern in self._extensions]
        ending = max((ending for ending in endings if file.endswith(ending)), key=len, default=Path(file).suffix)
        return file.removesuffix(ending), ending

    def _add_non_existing_images(self) -> int:
        """Add the slides that are new in the folder; return their number."""
        self._init_from_datastore_file()
        folder = Path(self._datastore.image_path())
        known = {_path_of(image_id, entry): image_id for image_id, entry in self._datastore.objects.items()}
        self.found = find_slides(folder, known, [Path(self._datastore.label_path(None)), *self._excluded])
        new = {image_id: path for image_id, path in self.found.paths.items() if image_id not in self._datastore.objects}
        for image_id, path in new.items():
            info = {**self._gone.info_of(image_id, path), "ts": int(time.time()), "name": path}
            self._datastore.objects[image_id] = ImageLabelModel(image=DataModel(info=info, ext=Path(path).suffix))
        return len(new)

    def _remove_non_existing(self) -> int:
        self._init_from_datastore_file()
        objects, folder = self._datastore.objects, Path(self._datastore.image_path())
        gone = {image_id: entry for image_id, entry in list(objects.items()) if not (folder / _path_of(image_id, entry)).exists()}
        # This comes first, so that nothing is removed if it fails.
        self._gone.keep({image_id: entry.image.info for image_id, entry in gone.items()})
        for image_id in gone:
            objects.pop(image_id, None)
        removed = len(gone)
        for image_id, entry in list(objects.items()):
            for tag, label in list(entry.labels.items()):
                if not Path(self._datastore.label_path(tag), self._filename(image_id, label.ext)).exists():
                    del entry.labels[tag]
                    removed += 1
        return removed

    def _update_datastore_file(self, lock: bool = True) -> None:
        if lock:
            with FileLock(self._lock_file):
                self._update_datastore_file(lock=False)
            return
        path = Path(self._datastore_config_path)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str))
        self._config_ts = path.stat().st_mtime


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


def check_studies(folder: Path) -> None:
    """Check that labels can be stored in the studies folder.

    Raises:
        ValueError: if the folder does not exist, cannot be written to, or is on a full disk.
    """
    if not folder.is_dir():
        raise ValueError(f"--studies {folder} is not a folder: give the folder of the slides")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-"):
            pass
    except OSError as error:
        raise ValueError(f"--studies {folder} cannot be written to ({error}), but the labels are stored in it") from error
    if shutil.disk_usage(folder).free < 2**20:
        raise ValueError(f"--studies {folder} has no disk space left for labels: free some")
