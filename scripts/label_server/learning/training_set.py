"""Weak labels of slides -> the manifest that a bundle trains from."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import shapely

from shared.data.manifest import write_manifest
from shared.data.record import Record, label_of
from shared.data.tissue_cache import TissueCache
from shared.geometry.tile_grid import TileGrid
from shared.wsi.slide import Slide
from shared.wsi.tissue.tissue_map import TissueMap

from ..refusal import Refusal
from .weak_labels import WeakLabel

logger = logging.getLogger(__name__)

# Of a region to be of use, and of normal tissue drawn in it to be one without tumour.
LEAST_TISSUE, LEAST_NORMAL = 0.5, 0.5


@dataclass(frozen=True)
class LabelledSlide:
    """A slide and what is known of it; `mpp`, micrometres per level-0 pixel, counts where its file does not say."""

    image_id: str
    path: Path
    label: WeakLabel
    mpp: float | None = None


def write_training_set(
    slides: Sequence[LabelledSlide],
    path: Path,
    tissue: TissueCache,
    region: tuple[int, float] | None,
    needs_area: bool = False,
    val_share: float = 0.25,
    slide_mpp: float | None = None,
) -> dict[str, int]:
    """Write a manifest of slides, or of their regions, with a train and a val split.

    A slide is in one split, and both splits have slides of both labels, chosen by their names, so that a slide stays where it is
    when others are added.

    Args:
        slides: with their labels.
        path: of the manifest.
        tissue: where tissue is kept.
        region: side in pixels and micrometres per pixel of regions, see `labelled_regions`; None for whole slides.
        needs_area: regions with tumour whose share is not known are left out.
        val_share: of the slides of each label, one at least.
        slide_mpp: of slides of which neither the file nor anything else says it.

    Returns:
        the number of rows with each label, as ``"0"`` and ``"1"``.

    Raises:
        Refusal: if a label has fewer than two slides.
        ValueError: if a slide cannot be read.
    """
    per_slide: dict[str, list[Record]] = {}
    for slide in slides:
        records = _records(slide, tissue, region, slide_mpp)
        kept = [record for record in records if not (needs_area and record["label"] and record["area"] is None)]
        if kept:
            per_slide[slide.image_id] = kept
        else:
            logger.warning("%s is left out: its label says nothing of any of its regions", slide.image_id)
    labels = {name: max(map(label_of, records)) for name, records in per_slide.items()}
    counts = Counter(labels.values())
    if min(counts[0], counts[1]) < 2:
        raise Refusal(
            f"training needs two slides without and two with tumour at least, one of each to validate; usable are {counts[0]} "
            f"without and {counts[1]} with"
        )
    split_of = _splits(labels, val_share)
    rows: list[Record] = [
        {**record, "split": split_of[name], "case_id": name} for name, records in per_slide.items() for record in records
    ]
    write_manifest(rows, path)
    written = Counter(row["label"] for row in rows)
    return {str(label): written[label] for label in (0, 1)}


def labelled_regions(slide: Slide, label: WeakLabel, tissue: TissueMap, size_px: int, mpp: float) -> list[Record]:
    """The regions of a slide whose label is known, on a grid, with tissue on half of them at least.

    - Of a normal slide every region is normal.
    - Where areas are drawn, a region that one of tumour touches has tumour, and that share of it; one that normal areas cover by
      half is normal. What nobody has drawn on is not used, because tumour may be left there.
    - Of a tumour slide on which nothing is drawn only a region that holds all the tissue is known to have tumour: the slide's
      label and fraction are then its own.

    Args:
        slide: the slide.
        label: what is known of it.
        tissue: of the same slide.
        size_px: side of a region at `mpp`.
        mpp: at which the regions will be read.

    Returns:
        Records with ``image``, ``x, y, width_px, height_px`` in level-0 pixels, ``label`` and ``area`` (None where not known).
    """
    grid = TileGrid.for_mpp(slide.size_px, slide.mpp, size_px, mpp, 0, slide.level_downsamples)
    positions = grid.positions()
    shares = tissue.shares(positions, grid.tile_extent_px)
    extent = round(grid.tile_extent_px)
    is_alone = int((shares > 0).sum()) == 1
    regions: list[Record] = []
    for (x, y), share in zip(positions.tolist(), shares.tolist(), strict=True):
        if share < LEAST_TISSUE and not (is_alone and share > 0):
            continue
        known = _region_label(label, (x, y, extent), share if is_alone else None)
        if known is not None:
            area = None if known[1] is None else max(round(known[1], 4), 1e-4 if known[0] else 0.0)
            region: Record = {"image": str(slide.path), "x": x, "y": y, "width_px": extent, "height_px": extent}
            regions.append({**region, "label": known[0], "area": area})
    return regions


def _region_label(label: WeakLabel, square: tuple[int, int, int], only_share: float | None) -> tuple[int, float | None] | None:
    """Label and area of a square (x, y, side) of a slide; None where they are not known.

    `only_share`: of tissue in it, where it holds all of the slide's.
    """
    if label.label == 0:
        return 0, 0.0
    x, y, side = square
    box = shapely.box(x, y, x + side, y + side)
    if label.drawn.label is not None:
        tumour, normal = (shapely.intersection(box, area).area / box.area for area in (label.drawn.tumour, label.drawn.normal))
        return (1, tumour) if tumour > 0 else (0, 0.0) if normal >= LEAST_NORMAL else None
    if only_share is None:
        return None
    return 1, None if label.fraction is None else label.fraction * only_share


def _records(
    slide: LabelledSlide, tissue: TissueCache, region: tuple[int, float] | None, slide_mpp: float | None
) -> list[Record]:
    with Slide(slide.path) as opened:
        mpp = None if opened.has_mpp else slide.mpp or slide_mpp
    if region is None:
        return [{"image": str(slide.path), "mpp": mpp, "label": slide.label.label, "area": slide.label.fraction}]
    with Slide(slide.path, mpp=mpp) as opened:
        found = labelled_regions(opened, slide.label, tissue.get(slide.path, mpp), *region)
    return [{**record, "mpp": mpp} for record in found]


def with_drawn_fraction(slide: LabelledSlide, tissue: TissueCache, slide_mpp: float | None = None) -> LabelledSlide:
    """A slide with tumour of which nobody said how much takes the fraction that is drawn on it; others stay as they are."""
    label = slide.label
    if label.fraction is not None or label.label != 1 or label.drawn.label != 1:
        return slide
    fraction = drawn_fraction(slide, tissue, slide_mpp) or None
    return replace(slide, label=replace(label, fraction=fraction))


def drawn_fraction(slide: LabelledSlide, tissue: TissueCache, slide_mpp: float | None = None) -> float:
    """The area of tumour drawn on a slide over that of its tissue, at most 1."""
    with Slide(slide.path) as opened:
        size = opened.size_px
        mpp = None if opened.has_mpp else slide.mpp or slide_mpp
    tissue_px = tissue.get(slide.path, mpp).share * size[0] * size[1]
    inside = shapely.intersection(slide.label.drawn.tumour, shapely.box(0, 0, *size)).area
    return min(1.0, inside / tissue_px) if tissue_px else 0.0


def _splits(labels: Mapping[str, int], val_share: float) -> dict[str, str]:
    splits: dict[str, str] = {}
    for label in (0, 1):
        names = sorted((name for name in labels if labels[name] == label), key=_shuffled)
        num_val = min(len(names) - 1, max(1, math.floor(val_share * len(names) + 0.5)))
        splits |= {name: "val" if index < num_val else "train" for index, name in enumerate(names)}
    return splits


def _shuffled(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest(), 16)
