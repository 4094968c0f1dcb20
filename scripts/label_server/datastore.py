"""The studies folder as MONAI Label's datastore: slides only, names that stay inside, files that survive a kill."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.datastore.local import LocalDatastore

from shared.writers.atomic import atomic_path
from shared.wsi.annotations.annotation_file import ANNOTATION_SUFFIXES, PACKED_SUFFIXES
from shared.wsi.annotations.reading import read_annotations
from shared.wsi.formats import image_suffixes

from .access import check_name
from .refusal import Refusal
from .weak_labels import stated_label

logger = logging.getLogger(__name__)

FINAL = "final"


class SlideDatastore(LocalDatastore):
    """A folder of slides and images, flat; labels and notes lie in ``labels/`` and ``datastore_v2.json`` in it.

    Unlike MONAI Label's own, annotation files are no images, every name from outside is checked, what is stored is checked before
    it is, and ``datastore_v2.json`` is replaced in one step.

    Args:
        folder: of the slides.
        auto_reload: watch the folder.
        on_label: called with the name of a slide whose label has changed.
    """

    def __init__(self, folder: str, auto_reload: bool = True, on_label: Callable[[str], None] | None = None) -> None:
        self._on_label = on_label or (lambda image_id: None)
        super().__init__(
            folder, extensions=_patterns(image_suffixes() | {*ANNOTATION_SUFFIXES, *PACKED_SUFFIXES}), auto_reload=auto_reload
        )

    def slide_path(self, image_id: str) -> Path:
        """The file of a slide.

        Raises:
            Refusal: if there is none of this name.
        """
        check_name(image_id)
        uri = self.get_image_uri(image_id)
        if not uri or not Path(uri).is_file():
            raise Refusal(f"there is no slide {image_id!r} in the studies folder", 404)
        return Path(uri)

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        self.slide_path(image_id)
        return dict(super().get_image_info(image_id))

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        if Path(image_filename).suffix.lower() not in image_suffixes():
            raise Refusal(f"{Path(image_filename).suffix or 'a file without ending'} is no known format of slides or images")
        return str(super().add_image(check_name(image_id), image_filename, image_info))

    def remove_image(self, image_id: str) -> None:
        self.slide_path(image_id)
        super().remove_image(image_id)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        self.slide_path(image_id)
        check_name(label_tag, "tag")
        if label_tag == FINAL:
            # Fails for what is no annotation file.
            read_annotations(label_filename)
        label_id = str(super().save_label(image_id, label_filename, label_tag, label_info))
        self._on_label(image_id)
        return label_id

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        self.slide_path(image_id)
        if not isinstance(info, dict):
            raise Refusal(f"info must be a JSON object, got {type(info).__name__}")
        stated = stated_label(info)
        super().update_image_info(image_id, info)
        if stated is not None:
            self._on_label(image_id)

    def annotation_file(self, image_id: str) -> Path | None:
        """The annotations that were submitted for a slide."""
        uri = self.get_label_uri(image_id, FINAL)
        return Path(uri) if uri and Path(uri).is_file() else None

    def _list_files(self, path: str, patterns: Iterable[str]) -> dict[str, str]:
        found: dict[str, str] = super()._list_files(path, patterns)
        if Path(path).resolve() != Path(self._datastore.image_path()).resolve():
            return found
        is_image = (Path(name).suffix.lower() in image_suffixes() and not name.startswith(".") for name in found)
        return {name: file for (name, file), keep in zip(found.items(), is_image, strict=True) if keep}

    def _update_datastore_file(self, lock: bool = True) -> None:
        if lock:
            with FileLock(self._lock_file):
                self._update_datastore_file(lock=False)
            return
        path = Path(self._datastore_config_path)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str))
        self._config_ts = path.stat().st_mtime


def check_studies(folder: Path) -> None:
    """See that the datastore's file is whole, which MONAI Label needs in order to start.

    Raises:
        ValueError: if there is no such folder, it cannot be written to, or its file is damaged.
    """
    if not folder.is_dir():
        raise ValueError(f"--studies {folder} is no folder: give the folder of the slides")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-"):
            pass
    except OSError as error:
        raise ValueError(f"--studies {folder} cannot be written to ({error}): the labels are kept in it") from error
    if shutil.disk_usage(folder).free < 2**20:
        raise ValueError(f"--studies {folder} has no space left for labels")


def _patterns(suffixes: Iterable[str]) -> list[str]:
    """Endings in both cases: the datastore's patterns know the difference."""
    return [f"*{suffix}" for suffix in sorted({part for suffix in suffixes for part in (suffix, suffix.upper())})]
