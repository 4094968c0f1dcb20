"""What the maps of a test split score, image by image, on one grid for all methods."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from shared.data import TissueCache, record_error
from shared.data.record import Record
from shared.data.record_masks import MASK_COLUMNS
from shared.data.tissue_cache import content_key
from shared.evaluation.maps.counts import PARTS, count_pixels, least_value
from shared.evaluation.maps.map_folder import MapFolder
from shared.evaluation.maps.scoring_grid import ScoringGrid, StripTissue
from shared.inference.cohort.folder_settings import SETTINGS_NAME
from shared.inference.cohort.row_store import TABLE_NAME
from shared.inference.outputs.map_file import MapFile
from shared.metrics import BOUNDARY_THRESHOLDS, boundary_counts
from shared.metrics.region import region_f_of_counts
from shared.writers import atomic_path, read_rows
from shared.wsi import open_slide, tissue_mask

from ..data import ComparisonData, edited_tissue
from ..json_file import read_object
from .ceilings import INSTANCES_PER_SIDE, CeilingGrid

# Raise it when the same maps score differently.
SCORES_VERSION = 3
# Boundaries are matched on a grid of this many pixels per side at most: tolerance is a share of the diagonal, time of the
# length.
BOUNDARY_SIDE_PX = 512


@dataclass(frozen=True)
class Scores:
    """The scores of N images.

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

    def of(self, chosen: Sequence[int]) -> Scores:
        """The scores of some of the images."""
        return Scores(**{name: getattr(self, name)[list(chosen)] for name in Scores.__dataclass_fields__})


class MapScorer:
    """Scores the maps of one method against the masks of the test split.

    All maps are looked at on one grid, whatever pixel size a method works at: a grid pixel has the value of the map pixel below
    its middle, and the truth of the mask there. A slide's background scores 0 whatever its map says, and thresholded scores are
    of its tissue; an image counts with all its pixels, as in the papers, and what is glass there is left out of the AUC
    "tissue" only.

    Args:
        data: what is compared on.
        mpp: micrometres per pixel of the grid.
        tissue: of slides.
    """

    def __init__(self, data: ComparisonData, mpp: float, tissue: TissueCache) -> None:
        self.data, self.mpp, self.tissue = data, mpp, tissue
        self.class_names = map_class_names(data)

    def score(self, maps: Path, file: Path) -> Scores:
        """Score the maps in a folder that `SlideMapper` has filled; keep the scores in a file.

        Args:
            maps: the folder.
            file: ``.npz``; scores of the same maps and truth that lie there are read.

        Raises:
            ValueError: naming row and file of what cannot be read, or has no finished map.
        """
        rows = read_rows(maps / TABLE_NAME) if (maps / TABLE_NAME).is_file() else {}
        key = self._key(sorted((name, row.get("status"), row.get("fingerprint")) for name, row in rows.items()))
        known = read_scores(file, key)
        if known is not None:
            return known
        settings = read_object(maps / SETTINGS_NAME, "Delete the folder of the maps to make them again", ("threshold",))
        least = least_value(float(settings["threshold"]))
        folder = MapFolder(maps, self.class_names)

        def of_map(record: Record) -> dict[str, NDArray[Any]]:
            if not folder.is_finished(record):
                raise ValueError(f"has no finished map in {maps} ({folder.status(record)})")
            with folder.open(record) as source:
                return self._score(ScoringGrid.of_mpp(record, folder.row(record), self.mpp, self.class_names), source, least)

        return self._kept(of_map, file, key)

    def ceiling(self, name: str, file: Path) -> Scores:
        """Score what labels that are all right would give, see `CEILINGS`; keep the scores in a file.

        Raises:
            ValueError: naming row and file of what cannot be read.
        """
        key = self._key([[name, INSTANCES_PER_SIDE, self.data.region_size_um]])
        return read_scores(file, key) or self._kept(partial(self._of_truth, name), file, key)

    def _of_truth(self, name: str, record: Record) -> dict[str, NDArray[Any]]:
        slide = open_slide(record["image"], mpp=record["mpp"])
        size = dict(zip(("width_px", "height_px"), map(str, slide.size_px), strict=True))
        row = {**size, "mpp": str(slide.mpp), "map_mpp": str(self.mpp)}
        grid = CeilingGrid.of_mpp(record, row, self.mpp, self.class_names)
        assert isinstance(grid, CeilingGrid)
        if name == "true_instances":
            sides = [side / INSTANCES_PER_SIDE for side in grid.shape]
            if self.data.is_slides and self.data.region_size_um is not None:
                sides = [side / self.mpp for side in self.data.region_size_um]
            grid = replace(grid, cell_px=(sides[0], sides[1]))
        return self._score(grid, None, least=128)

    def _kept(self, score: Callable[[Record], dict[str, NDArray[Any]]], file: Path, key: str) -> Scores:
        """Score every record, and keep the scores."""
        images = []
        for record in tqdm(self.data.records, "scoring maps", unit="image", disable=None, leave=False):
            try:
                images.append(score(record))
            except (ValueError, OSError) as error:
                raise record_error(record, error) from error
        scores = Scores(
            **{name: np.stack([image[name] for image in images]) for name in images[0]},
            cases=np.array([record["case_id"] or record["image"] for record in self.data.records], dtype=np.str_),
        )
        write_scores(scores, file, key)
        return scores

    def _score(self, grid: ScoringGrid, source: MapFile | None, least: int) -> dict[str, NDArray[Any]]:
        counts = count_pixels(grid, source, self._tissue(grid), with_glass=not self.data.is_slides)
        tissue, everywhere = (counts.histograms[part] for part in PARTS)
        has_tumour = bool(everywhere[1].sum())
        factor = max(1, math.ceil(max(grid.shape) / BOUNDARY_SIDE_PX))
        coarse = type(grid).of_mpp(grid.record, grid.row, self.mpp * factor, self.class_names)
        if isinstance(coarse, CeilingGrid) and isinstance(grid, CeilingGrid) and grid.cell_px is not None:
            coarse = replace(coarse, cell_px=(grid.cell_px[0] / factor, grid.cell_px[1] / factor))
        boundary = self._boundary(coarse, source) if has_tumour else np.zeros((len(BOUNDARY_THRESHOLDS), 4), np.int64)
        inside = "tissue" if self.data.is_slides else "all"
        decided = counts.decided(inside, least)
        return {
            "counts": decided.numpy(),
            "tissue": tissue.numpy(),
            "everywhere": everywhere.numpy(),
            "region_f": region_f_of_counts(decided, torch.tensor(int(has_tumour))).numpy(),
            "boundary": boundary,
            # Of two classes tn, fp, fn, tp.
            "confusion": counts.confusions.get(inside, decided.flip(0).reshape(2, 2).T).numpy(),
        }

    def _boundary(self, grid: ScoringGrid, source: MapFile | None) -> NDArray[np.int64]:
        strip = (0, grid.shape[0])
        values = grid.decisions(source, *strip)[0]
        if self.data.is_slides:
            values = values * self._tissue(grid)(*strip)
        return boundary_counts(values.astype(np.float32) / np.float32(255), grid.truth(*strip) > 0)

    def _tissue(self, grid: ScoringGrid) -> StripTissue:
        """The detected tissue of a slide, or the pixels of an image that are not white."""
        return grid.slide_tissue(self.tissue) if self.data.is_slides else partial(_not_white, grid)

    def _key(self, made: Sequence[Any]) -> str:
        """Everything that the scores depend on: the maps by their settings, the truth by its files, patients, edited tissue."""
        truth = [None if mask is None else _file_key(Path(mask)) for mask in (record["mask"] for record in self.data.records)]
        columns = ("image", "x", "y", "width_px", "height_px", "mpp", "label", "case_id", *MASK_COLUMNS[1:])
        regions = [[record.get(name) for name in columns] for record in self.data.records]
        parts = [SCORES_VERSION, self.mpp, self.data.class_names, self.tissue.mpp, self.tissue.method, truth, regions, made]
        edited = edited_tissue(self.data.records, self.tissue.folder)
        return hashlib.sha256(json.dumps([*parts, edited] if edited else parts).encode()).hexdigest()


def _not_white(grid: ScoringGrid, top: int, height: int) -> NDArray[np.bool_]:
    """Where a strip of an image ``(height, W)`` is not white."""
    slide = open_slide(grid.record["image"], mpp=grid.record["mpp"])
    corner = (grid.origin[0], round(grid.origin[1] + top * grid.pixel_px))
    return tissue_mask(slide.read_region(corner, (grid.shape[1], height), slide.mpp * grid.pixel_px, exact=True), "white")


def _file_key(file: Path) -> str:
    return content_key(str(file), file.stat().st_size, file.stat().st_mtime_ns)


def map_class_names(data: ComparisonData) -> tuple[str, ...] | None:
    """Classes of the maps; None for maps of tumour."""
    return data.class_names if data.num_classes > 2 else None


def read_scores(file: Path, key: str) -> Scores | None:
    """The scores in a file, if they are those of this key."""
    try:
        with np.load(file) as kept:
            if str(kept["key"]) != key:
                return None
            return Scores(**{name: kept[name] for name in Scores.__dataclass_fields__})
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):  # damaged: the maps are scored again
        return None


def write_scores(scores: Scores, file: Path, key: str) -> None:
    """Write the scores, whole or not at all."""
    arrays = {name: getattr(scores, name) for name in Scores.__dataclass_fields__}
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, key=np.str_(key), **arrays)
