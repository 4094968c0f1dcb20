"""The labels that people give to slides and draw on them, saved at once."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import shapely

from scripts.label_server.learning.training_set import LabelledSlide, with_drawn_fraction
from scripts.label_server.learning.weak_labels import StatedLabel, WeakLabel, stated_label, weak_label
from scripts.label_server.refusal import Refusal
from shared.data.manifest import assigns_splits, write_manifest
from shared.data.record import Record, record_error
from shared.data.tissue_cache import TissueCache
from shared.writers.atomic import atomic_path
from shared.writers.geojson import annotation_feature, write_geojson
from shared.writers.palette import Colour
from shared.wsi.annotations.frames import LEVEL0
from shared.wsi.file_names import comparable, existing_file

from ..cohort import ViewedSlide

logger = logging.getLogger(__name__)

MANIFEST, GIVEN, STROKES = "labels.csv", "said.json", "strokes"
# Class of a stroke -> its colour; colour-blind people can tell the two apart.
CLASSES: Mapping[str, Colour] = {"Tumor": (230, 159, 0), "Normal": (0, 114, 178)}


class Labels:
    """The weak labels of slides in a folder: ``said.json``, ``strokes/<slide>.geojson`` and, derived from both, ``labels.csv``.

    Label precedence is that of the label server, see `scripts.label_server.learning.weak_labels`: first the label given here,
    then the strokes, then the manifest's row. ``labels.csv`` is a manifest of the labelled slides, which keeps the other columns
    of their rows. Every file is replaced atomically, before the call that changes it returns.

    Safe to use from several threads.

    Args:
        folder: folder of the files.
        slides: name -> slide; the labels in their records count.
        tissue: tissue of the slides, of which strokes cover a fraction.
        manifest: manifest of the slides; its splits are kept if it has any.

    Raises:
        ValueError: if a stored file cannot be read, a row of the manifest is a region, or its label and area contradict each
            other.
    """

    def __init__(self, folder: Path, slides: Mapping[str, ViewedSlide], tissue: TissueCache, manifest: Path) -> None:
        self.folder, self._slides, self._tissue = folder, slides, tissue
        self._lock = threading.RLock()
        self._has_splits = assigns_splits(manifest)
        for slide in slides.values():
            _check_record(slide.record)
        self._given = self._read_given()
        found = ((name, self._find(name)) for name in slides)
        self._known = {name: slide for name, slide in found if slide is not None}
        # A process that was killed between two writes may have left an outdated one.
        self._write_manifest()

    @property
    def path(self) -> Path:
        """Path of the manifest of the labelled slides."""
        return self.folder / MANIFEST

    def given_label(self, name: str) -> StatedLabel | None:
        """The label that was given to a slide here; None if there is none."""
        with self._lock:
            return stated_label({"weak_label": self._given.get(name)})

    def set_label(self, name: str, label: int | None, fraction: float | None = None) -> None:
        """Save the label of a slide.

        Args:
            name: name of the slide.
            label: 0 or 1; None withdraws an earlier label.
            fraction: fraction of the tissue that is tumour, in [0, 1], if it is known.

        Raises:
            Refusal: if label and fraction contradict each other.
        """
        stated = None if label is None else {"tumor": label, "fraction": fraction}
        stated_label({"weak_label": stated})
        with self._lock:
            given = {other: value for other, value in self._given.items() if other != name} | ({name: stated} if stated else {})
            with atomic_path(self.folder / GIVEN) as temporary:
                temporary.write_text(json.dumps(given, indent=1) + "\n", encoding="utf-8")
            self._given = given
            self._changed(name)

    def draw(self, name: str, class_name: str, points: Sequence[tuple[float, float]], width_px: float) -> None:
        """Save a stroke.

        Args:
            name: name of the slide.
            class_name: one of `CLASSES`.
            points: points (x, y) of its centre line, in level-0 pixels.
            width_px: width of the brush, in level-0 pixels.
        """
        stroke = stroke_area(points, width_px)
        if class_name not in CLASSES or stroke.is_empty:
            return
        polygons = [part for part in shapely.get_parts(stroke) if part.geom_type == "Polygon"]
        with self._lock:
            drawn = self._features(name)
            drawn += [annotation_feature(polygon, class_name, CLASSES[class_name], {}) for polygon in polygons]
            self._write_strokes(name, drawn)

    def undo_stroke(self, name: str) -> None:
        """Remove the last stroke."""
        with self._lock:
            self._write_strokes(name, self._features(name)[:-1])

    def strokes(self, name: str) -> list[tuple[str, shapely.Polygon]]:
        """Class and polygon, in level-0 pixels, of each stroke on a slide, in the order in which they were drawn."""
        features = self._features(name)
        return [(feature["properties"]["classification"]["name"], _polygon(feature["geometry"])) for feature in features]

    def label(self, name: str) -> WeakLabel | None:
        """The label of a slide by precedence, with the drawn fraction where none was given; None if it has no label."""
        with self._lock:
            known = self._known.get(name)
            return None if known is None else known.label

    def labelled_slides(self) -> list[LabelledSlide]:
        """The slides that have a label, in the manifest's order."""
        with self._lock:
            return [self._known[name] for name in self._slides if name in self._known]

    def slides_to_learn_from(self) -> list[LabelledSlide]:
        """The labelled slides, without those that the manifest reserves for the test split."""
        kept_back = {name for name, slide in self._slides.items() if self._split(slide.record) == "test"}
        return [slide for slide in self.labelled_slides() if slide.image_id not in kept_back]

    def _split(self, record: Record | None) -> str | None:
        """The split that the manifest states; None where it would be drawn at random."""
        return record.get("split") if record and self._has_splits else None

    def _find(self, name: str) -> LabelledSlide | None:
        path, slide = self._strokes_path(name), self._slides[name]
        info: dict[str, Any] = {"weak_label": self._given.get(name), "meta": {"weak_label": _of_record(slide.record)}}
        label = weak_label(info, path if path.is_file() else None, name, LEVEL0)
        if label is None:
            return None
        known = LabelledSlide(name, slide.path, label, slide.mpp)
        try:
            return with_drawn_fraction(known, self._tissue)
        except (ValueError, OSError) as error:
            logger.warning("the fraction of tissue that the strokes on %s cover cannot be computed: %s", name, error)
            return known

    def _changed(self, name: str) -> None:
        known = self._find(name)
        self._known = {other: slide for other, slide in self._known.items() if other != name}
        if known is not None:
            self._known[name] = known
        self._write_manifest()

    def _write_manifest(self) -> None:
        rows: list[Record] = []
        for slide in self.labelled_slides():
            record: Record = self._slides[slide.image_id].record or {"image": str(slide.path)}
            label = slide.label
            rows.append({**record, "label": label.label, "area": label.fraction, "split": self._split(record)})
        write_manifest(rows, self.path)

    def _strokes_path(self, name: str) -> Path:
        return existing_file(self.folder / STROKES / f"{name}.geojson")

    def _features(self, name: str) -> list[dict[str, Any]]:
        path = self._strokes_path(name)
        try:
            return list(orjson.loads(path.read_bytes())["features"]) if path.is_file() else []
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the strokes {path} cannot be read ({error}): move the file away and draw them again") from error

    def _write_strokes(self, name: str, features: Sequence[Mapping[str, Any]]) -> None:
        path = self._strokes_path(name)
        if features:
            write_geojson(path, features, LEVEL0)
        else:
            path.unlink(missing_ok=True)
        self._changed(name)

    def _read_given(self) -> dict[str, Any]:
        path = self.folder / GIVEN
        if not path.is_file():
            return {}
        try:
            given = dict(json.loads(path.read_text(encoding="utf-8")))
            for value in given.values():
                stated_label({"weak_label": value})
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"{path} cannot be read ({error}): move it away, or give another --work_dir") from error
        return {comparable(name): value for name, value in given.items()}


def stroke_area(points: Sequence[tuple[float, float]], width_px: float) -> shapely.Geometry:
    """The area that a brush covers along its points; a single point leaves a dot.

    >>> round(stroke_area([(0, 0), (100, 0)], 10).area)
    1078
    """
    way = np.asarray(points, float).reshape(-1, 2)
    way = way[np.isfinite(way).all(axis=1)]
    if not len(way):
        return shapely.Polygon()
    line = shapely.Point(way[0]) if len(way) == 1 else shapely.LineString(way).simplify(width_px / 50)
    return line.buffer(width_px / 2)


def _polygon(geometry: Mapping[str, Any]) -> shapely.Polygon:
    outline, *holes = geometry["coordinates"]
    return shapely.Polygon(outline, holes)


def _of_record(record: Record | None) -> dict[str, Any] | None:
    if record is None or record.get("label") is None:
        return None
    return {"tumor": record["label"], "fraction": record.get("area")}


def _check_record(record: Record | None) -> None:
    if record is None:
        return
    if record.get("x") is not None:
        raise record_error(record, "it is a region, but only whole slides are labelled here: leave out x, y and the size")
    try:
        stated_label({"weak_label": _of_record(record)})
    except Refusal as refusal:
        raise record_error(record, refusal) from refusal
