"""From weak labels of slides to the manifest on which a bundle is trained."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import shapely

from shared.data.case_pattern import CasePattern
from shared.data.manifest import write_manifest
from shared.data.record import Record, label_of
from shared.data.tissue_cache import TissueCache
from shared.geometry.tile_grid import TileGrid
from shared.wsi.slide import Slide
from shared.wsi.tissue.tissue_map import TissueMap

from ..refusal import Refusal
from .weak_labels import WeakLabel

logger = logging.getLogger(__name__)

# Least share of tissue in a usable region, and of drawn normal tissue in a normal region.
LEAST_TISSUE, LEAST_NORMAL = 0.5, 0.5


@dataclass(frozen=True)
class LabelledSlide:
    """A slide and its weak label.

    Args:
        image_id: id of the slide.
        path: path of its file.
        label: its weak label.
        mpp: micrometres per level-0 pixel, used if the file does not state it.
        case: patient of the slide; None for a case of its own.
    """

    image_id: str
    path: Path
    label: WeakLabel
    mpp: float | None = None
    case: str | None = None

    @property
    def case_id(self) -> str:
        return self.image_id if self.case is None else self.case


def write_training_set(
    slides: Sequence[LabelledSlide],
    path: Path,
    tissue: TissueCache,
    region: tuple[int, float] | None,
    needs_area: bool = False,
    val_share: float = 0.25,
    slide_mpp: float | None = None,
) -> dict[str, int]:
    """Write a manifest of slides, or of their regions, with the splits train and val.

    Each case is in one split, and both splits have slides of both labels. Splits are derived from the names of the cases, so that
    they change little when slides are added.

    Args:
        slides: slides with their labels.
        path: path of the manifest.
        tissue: cache of the slides' tissue.
        region: side in pixels and micrometres per pixel of regions, see `labelled_regions`; None for whole slides.
        needs_area: whether to leave out tumour regions whose share of tumour is not known.
        val_share: share of each label's cases for validation, but at least one case.
        slide_mpp: micrometres per level-0 pixel of slides for which neither the file nor the slide's own `mpp` states it.

    Returns:
        the number of rows with each label, as ``"0"`` and ``"1"``.

    Raises:
        Refusal: if a label has slides of fewer than two cases.
        ValueError: if a slide cannot be read.
    """
    per_slide: dict[str, list[Record]] = {}
    for slide in slides:
        records = _records(slide, tissue, region, slide_mpp)
        kept = [record for record in records if not (needs_area and record["label"] and record["area"] is None)]
        if kept:
            per_slide[slide.image_id] = kept
        else:
            logger.warning("%s is left out: its label determines the label of none of its regions", slide.image_id)
    case_of = {slide.image_id: slide.case_id for slide in slides}
    labels = {name: max(map(label_of, records)) for name, records in per_slide.items()}
    of_cases: dict[str, set[int]] = {}
    for name, label in labels.items():
        of_cases.setdefault(case_of[name], set()).add(label)
    _check_numbers(Counter(labels.values()), Counter(label for found in of_cases.values() for label in found))
    split_of = _splits(of_cases, val_share)
    rows: list[Record] = [
        {**record, "split": split_of[case_of[name]], "case_id": case_of[name]}
        for name, records in per_slide.items()
        for record in records
    ]
    write_manifest(rows, path)
    written = Counter(row["label"] for row in rows)
    return {str(label): written[label] for label in (0, 1)}


def with_cases(slides: Sequence[LabelledSlide], names: Mapping[str, str], pattern: CasePattern) -> list[LabelledSlide]:
    """The slides with their cases.

    Args:
        slides: slides of the training.
        names: id of each slide -> its path in the studies folder.
        pattern: it finds the case in this path.

    Raises:
        Refusal: if it finds none in some of them.
    """
    found, unmatched = [], []
    for slide in slides:
        try:
            found.append(replace(slide, case=pattern.case_of(names[slide.image_id])))
        except ValueError as error:
            unmatched.append(str(error))
    if unmatched:
        raise Refusal(
            f"the case of {len(unmatched)} labelled slides is not known, so that they could be in both training and validation: "
            f"{unmatched[0]}. Rename them or their folders, or start the server with another --case_pattern"
        )
    return found


def labelled_regions(slide: Slide, label: WeakLabel, tissue: TissueMap, size_px: int, mpp: float) -> list[Record]:
    """The regions of a slide, on a grid, whose label is known and which are at least half tissue.

    - Every region of a normal slide is normal.
    - On a slide with drawn areas, a region that overlaps drawn tumour is a tumour region, with that overlap as its share of
      tumour; a region of which normal areas cover at least half is normal. Other regions are not used, because tumour may be
      undrawn there.
    - On a tumour slide without drawn areas, only a region that contains all the tissue is known to have tumour; it takes the
      slide's label and fraction.

    Args:
        slide: the slide.
        label: its weak label.
        tissue: its tissue.
        size_px: side of a region, in pixels at `mpp`.
        mpp: micrometres per pixel at which the regions will be read.

    Returns:
        Records with ``image``, ``x, y, width_px, height_px`` in level-0 pixels, ``label`` and ``area`` (None if not known).
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
    """Label and area of a square (x, y, side) of a slide, in level-0 pixels; None if they are not known.

    `only_share` is the square's share of tissue if it contains all tissue of the slide, and None otherwise.
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
    """Set the fraction of a tumour slide to the drawn one if none was given; other slides are returned unchanged."""
    label = slide.label
    if label.fraction is not None or label.label != 1 or label.drawn.label != 1:
        return slide
    fraction = drawn_fraction(slide, tissue, slide_mpp) or None
    return replace(slide, label=replace(label, fraction=fraction))


def drawn_fraction(slide: LabelledSlide, tissue: TissueCache, slide_mpp: float | None = None) -> float:
    """The area of tumour drawn on a slide, divided by the area of its tissue; at most 1."""
    with Slide(slide.path) as opened:
        size = opened.size_px
        mpp = None if opened.has_mpp else slide.mpp or slide_mpp
    tissue_px = tissue.get(slide.path, mpp).share * size[0] * size[1]
    inside = shapely.intersection(slide.label.drawn.tumour, shapely.box(0, 0, *size)).area
    return min(1.0, inside / tissue_px) if tissue_px else 0.0


def _check_numbers(slides: Mapping[int, int], cases: Mapping[int, int]) -> None:
    if min(slides[0], slides[1]) < 2:
        raise Refusal(
            f"training needs at least two normal and two tumour slides, one of each for validation; found {slides[0]} normal and "
            f"{slides[1]} tumour slides that can be used"
        )
    if min(cases[0], cases[1]) < 2:
        raise Refusal(
            "training needs normal slides of at least two cases (--case_pattern) and tumour slides of at least two, as each case "
            f"is either trained on or validated on; found normal slides of {cases[0]} and tumour slides of {cases[1]}"
        )


def _splits(labels: Mapping[str, Collection[int]], val_share: float) -> dict[str, str]:
    """Case -> train or val, from the labels of each case's slides. A label of at least two cases is in both splits."""
    both = sorted((name for name in labels if len(labels[name]) == 2), key=_shuffled)
    single = {label: sorted((name for name in labels if {*labels[name]} == {label}), key=_shuffled) for label in (0, 1)}
    # Where a label is in no other cases, these must be in both splits.
    least = 1 if both and not (single[0] and single[1]) else 0
    num_both = min(len(both) - least, max(least, _share(val_share, len(both))))
    val = {*both[:num_both]}
    for names in single.values():
        num_cases = len(both) + len(names)
        wanted = min(num_cases - 1, max(1, _share(val_share, num_cases)))
        val |= {*names[: max(0, wanted - num_both)]}
    return {name: "val" if name in val else "train" for name in labels}


def _share(share: float, number: int) -> int:
    return math.floor(share * number + 0.5)


def _shuffled(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest(), 16)
