"""What the maps of a test split score, image by image, on one grid for all methods."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from shared.data import TissueCache, record_error
from shared.data.record import Record, region_of
from shared.data.record_masks import MASK_COLUMNS, read_record_mask
from shared.data.tissue_cache import content_key
from shared.evaluation.scoring_grid import nearest_pixels
from shared.inference.cohort.cohort import SETTINGS_NAME
from shared.inference.cohort.finished import FINISHED
from shared.inference.cohort.row_store import TABLE_NAME
from shared.inference.inputs import image_name
from shared.inference.outputs.map_file import ClassMapFile, MapFile
from shared.metrics import BOUNDARY_THRESHOLDS, boundary_counts, confusion_matrix
from shared.metrics.ranking import counts_at, score_histograms
from shared.metrics.region import region_f_of_counts
from shared.writers import atomic_path, read_rows
from shared.wsi import open_slide, tissue_mask

from .data import ComparisonData

# Raise it when the same maps score differently.
SCORES_VERSION = 2
# Grid pixels scored at once.
_STRIP_AREA_PX = 2**22
# Boundaries are matched on a grid of this many pixels a side at most: tolerance is a share of the diagonal, time of the length.
BOUNDARY_SIDE_PX = 512


@dataclass(frozen=True)
class Scores:
    """What N images score.

    Attributes:
        counts: tp, fp, fn, tn at the threshold of the maps, ``(N, 4)``: of all pixels of an image, of a slide's tissue.
        tissue: counts of each value 0 to 255 of normal and of tumour pixels in tissue, ``(N, 2, 256)``.
        everywhere: the same with the background.
        region_f: ``(N,)``, see `region_f_of_counts`.
        boundary: `boundary_counts` of the images with tumour, zeros of others, ``(N, 99, 4)``.
        confusion: true class down, ``(N, C, C)``.
        cases: of each image, names ``(N,)``.
    """

    counts: NDArray[np.int64]
    tissue: NDArray[np.int64]
    everywhere: NDArray[np.int64]
    region_f: NDArray[np.float64]
    boundary: NDArray[np.int64]
    confusion: NDArray[np.int64]
    cases: NDArray[np.str_]


class MapScorer:
    """Scores the maps of one method against the masks of the test split.

    All maps are looked at on one grid, whatever pixel size a method works at: a grid pixel has the value of the map pixel below
    its middle, and the truth of the mask there. A slide's background scores 0 whatever its map says, and thresholded scores are
    of its tissue; an image counts with all its pixels, as in the papers, and what is glass there is left out of the AUC "tissue"
    only.

    Args:
        data: what is compared on.
        mpp: micrometres per pixel of the grid.
        tissue: of slides.
    """

    def __init__(self, data: ComparisonData, mpp: float, tissue: TissueCache) -> None:
        self.data, self.mpp, self.tissue = data, mpp, tissue

    def score(self, maps: Path, file: Path) -> Scores:
        """Score the maps in a folder that `SlideMapper` has filled; keep the scores in a file.

        Args:
            maps: the folder.
            file: ``.npz``; scores of the same maps and truth that lie there are read.

        Raises:
            ValueError: naming row and file of what cannot be read, or has no finished map.
        """
        key = self._key(maps)
        known = read_scores(file, key)
        if known is not None:
            return known
        settings = json.loads((maps / SETTINGS_NAME).read_text())
        rows = read_rows(maps / TABLE_NAME)
        images = []
        for record in tqdm(self.data.records, "scoring maps", unit="image", disable=None, leave=False):
            row = rows.get(image_name(Path(record["image"])), {})
            if row.get("status") not in FINISHED:
                raise record_error(record, f"has no finished map in {maps} ({row.get('status', 'not begun')})")
            try:
                images.append(self._score(ScoringGrid(record, row, self.mpp), maps, settings))
            except (ValueError, OSError) as error:
                raise record_error(record, error) from error
        scores = Scores(
            **{name: np.stack([image[name] for image in images]) for name in images[0]},
            cases=np.array([record["case_id"] or record["image"] for record in self.data.records], dtype=np.str_),
        )
        write_scores(scores, file, key)
        return scores

    def _score(self, grid: ScoringGrid, maps: Path, settings: dict[str, Any]) -> dict[str, NDArray[Any]]:
        record, num_classes = grid.record, self.data.num_classes
        threshold = math.ceil(255 * float(settings["threshold"]) - 1e-9)
        with open_map(maps, record, num_classes) as source:
            tissue = torch.zeros(2, 256, dtype=torch.int64)
            everywhere, decided = torch.zeros_like(tissue), torch.zeros_like(tissue)
            confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
            for top, height in grid.strips():
                truth = torch.from_numpy(grid.truth(top, height, num_classes))
                values, classes = (torch.from_numpy(part) for part in source.at(*grid.map_pixels(top, height, source.shape)))
                is_tissue = torch.from_numpy(self._tissue(grid, top, height))
                is_tumour = truth > 0
                if num_classes == 2:
                    classes = (values >= threshold).to(torch.uint8)
                # Of several classes the likeliest decides: a histogram of two values.
                decision = values if num_classes == 2 else (classes > 0).to(torch.uint8) * 255
                inside = is_tissue if self.data.is_slides else torch.ones_like(is_tissue)
                tissue += score_histograms(values[is_tissue], is_tumour[is_tissue])
                everywhere += score_histograms(values.masked_fill(~inside, 0), is_tumour)
                decided += score_histograms(decision[inside], is_tumour[inside])
                confusion += confusion_matrix(classes[inside], truth[inside], num_classes)
            counts = counts_at(decided, threshold if num_classes == 2 else 255)
            has_tumour = bool(everywhere[1].sum())
            boundary = self._boundary(grid, source) if has_tumour else np.zeros((len(BOUNDARY_THRESHOLDS), 4), np.int64)
        return {
            "counts": counts.numpy(),
            "tissue": tissue.numpy(),
            "everywhere": everywhere.numpy(),
            "region_f": region_f_of_counts(counts, torch.tensor(int(has_tumour))).numpy(),
            "boundary": boundary,
            "confusion": confusion.numpy(),
        }

    def _boundary(self, grid: ScoringGrid, source: TumourMap | ClassMap) -> NDArray[np.int64]:
        coarse = grid.coarser(max(1, math.ceil(max(grid.shape) / BOUNDARY_SIDE_PX)))
        values, _ = source.at(*coarse.map_pixels(0, coarse.shape[0], source.shape))
        if self.data.is_slides:
            values = values * self._tissue(coarse, 0, coarse.shape[0])
        truth = coarse.truth(0, coarse.shape[0], self.data.num_classes) > 0
        return boundary_counts(values.astype(np.float32) / np.float32(255), truth)

    def _tissue(self, grid: ScoringGrid, top: int, height: int) -> NDArray[np.bool_]:
        """Tissue ``(height, W)`` of a strip: of a slide the one that was found on it, of an image what is not white."""
        record = grid.record
        if not self.data.is_slides:
            corner = (record["x"] or 0, round((record["y"] or 0) + top * grid.pixel_px))
            slide = open_slide(record["image"], mpp=record["mpp"])
            return tissue_mask(slide.read_region(corner, (grid.shape[1], height), mpp=slide.mpp * grid.pixel_px), "white")
        found = self.tissue.get(record["image"], record["mpp"])
        scale = grid.pixel_px / found.pixel_px
        rows = nearest_pixels(top, height, scale, found.mask.shape[0])
        return found.mask[np.ix_(rows, nearest_pixels(0, grid.shape[1], scale, found.mask.shape[1]))]

    def _key(self, maps: Path) -> str:
        """What the scores depend on: the maps by their settings, the truth by its files, the patients."""
        truth = [None if mask is None else _file_key(Path(mask)) for mask in (record["mask"] for record in self.data.records)]
        rows = read_rows(maps / TABLE_NAME) if (maps / TABLE_NAME).is_file() else {}
        columns = ("image", "x", "y", "width_px", "height_px", "mpp", "label", "case_id", *MASK_COLUMNS[1:])
        regions = [[record.get(name) for name in columns] for record in self.data.records]
        made = sorted((name, row.get("status"), row.get("fingerprint")) for name, row in rows.items())
        parts = [SCORES_VERSION, self.mpp, self.data.class_names, self.tissue.mpp, self.tissue.method, truth, regions, made]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _file_key(file: Path) -> str:
    return content_key(str(file), file.stat().st_size, file.stat().st_mtime_ns)


class ScoringGrid:
    """The pixels at which an image, or a region of a slide, is scored.

    Args:
        record: of the manifest.
        row: of the image in the table of the maps.
        mpp: micrometres per grid pixel.
    """

    def __init__(self, record: Record, row: dict[str, str], mpp: float) -> None:
        self.record, self.row, self.mpp = record, row, mpp
        self.slide_size_px = (int(row["width_px"]), int(row["height_px"]))
        self.pixel_px = mpp / float(row["mpp"])
        self.map_pixel_px = float(row["map_mpp"]) / float(row["mpp"])
        x, y, width, height = region_of(record, self.slide_size_px)
        self.origin = (x, y)
        self.shape = (max(1, round(height / self.pixel_px)), max(1, round(width / self.pixel_px)))

    def coarser(self, factor: int) -> ScoringGrid:
        return ScoringGrid(self.record, self.row, self.mpp * factor)

    def strips(self) -> Iterator[tuple[int, int]]:
        """First row and height of each."""
        height = max(1, _STRIP_AREA_PX // self.shape[1])
        yield from ((top, min(height, self.shape[0] - top)) for top in range(0, self.shape[0], height))

    def truth(self, top: int, height: int, num_classes: int) -> NDArray[np.uint8]:
        """Classes ``(height, W)`` of a strip."""
        if self.record["mask"] is None:
            return np.zeros((height, self.shape[1]), np.uint8)
        corner = (self.origin[0], round(self.origin[1] + top * self.pixel_px))
        size = (self.shape[1], height)
        return read_record_mask(self.record, corner, size, self.slide_size_px, self.pixel_px, num_classes)

    def map_pixels(self, top: int, height: int, shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of a map of this shape below the middles of a strip's pixels."""
        places = []
        for start, first, count, limit in (
            (self.origin[1], top, height, shape[0]),
            (self.origin[0], 0, self.shape[1], shape[1]),
        ):
            middles = (start + (np.arange(first, first + count) + 0.5) * self.pixel_px) / self.map_pixel_px
            places.append(np.minimum(middles.astype(np.int64), limit - 1))
        return places[0], places[1]


class TumourMap:
    """A finished map of tumour, read at some of its pixels.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = MapFile(path)
        self.shape = self._file.shape

    def at(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Probability of tumour 0 to 255 and, of several classes, the likeliest: both ``(rows, columns)``."""
        band = self._file.read_rows(int(rows[0]), int(rows[-1]) + 1)
        values = band[np.ix_(rows - rows[0], columns)]
        return values, values

    def __enter__(self) -> TumourMap:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


class ClassMap:
    """A finished map of several classes, whose tumour is all that is not class 0; as `TumourMap`."""

    def __init__(self, path: Path, num_classes: int) -> None:
        self._file = ClassMapFile(path, num_classes)
        self.shape = self._file.shape

    def at(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        classes, tumour = self._file.read_decisions(int(rows[0]), int(rows[-1]) + 1)
        pixels = np.ix_(rows - rows[0], columns)
        return tumour[pixels], classes[pixels]

    def __enter__(self) -> ClassMap:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def open_map(maps: Path, record: Record, num_classes: int) -> TumourMap | ClassMap:
    """The map of a record's image in a folder that `SlideMapper` has filled."""
    path = maps / f"{image_name(Path(record['image']))}.ome.tif"
    return TumourMap(path) if num_classes == 2 else ClassMap(path, num_classes)


def read_scores(file: Path, key: str) -> Scores | None:
    """The scores in a file, if they are those of this key."""
    try:
        with np.load(file) as kept:
            if str(kept["key"]) != key:
                return None
            return Scores(**{name: kept[name] for name in Scores.__dataclass_fields__})
    except (OSError, ValueError, KeyError):
        return None


def write_scores(scores: Scores, file: Path, key: str) -> None:
    """Write the scores, whole or not at all."""
    arrays = {name: getattr(scores, name) for name in Scores.__dataclass_fields__}
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, key=np.str_(key), **arrays)
