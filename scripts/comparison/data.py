"""One manifest as every method needs it: the same splits, the same pixel size, images and whole slides."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from scripts.declarations.supervision import IMAGES, SLIDES
from shared.data import load_manifest, record_error, slide_regions, write_manifest
from shared.data.manifest import REGION
from shared.data.patches.image_regions import labelled_squares
from shared.data.record import Record, has_known_mask
from shared.data.record_masks import MASK_COLUMNS
from shared.data.tissue_cache import edited_mask_key
from shared.synthetic import demo_manifest
from shared.writers import atomic_path
from shared.wsi import open_slide
from shared.wsi.formats import is_plain_picture

logger = logging.getLogger(__name__)


BINARY_NAMES = ("normal", "tumour")
# Which test rows are scored, as overlays of whole slides call it: those with a mask or label 0, or those with a mask alone.
MASKS_WHERE_GIVEN, MASKS_ONLY = TRUTHS = ("masks_where_given", "masks_only")
# No network sees anything in smaller squares.
LEAST_SQUARE_PX = 32
_SIZES_NAMED = 8
# Says what the manifest of images was cut from.
_CUT_NOTE = "regions.json"


@dataclass(frozen=True)
class ComparisonData:
    """The data of a comparison.

    Attributes:
        manifest: that of the user.
        records: of the test split that are scored, by `truth`.
        rows: all of the manifest.
        is_slides: whether the rows are whole slides.
        manifests: ``"images"`` and ``"slides"`` -> the manifest that methods of this kind train on, of those that there are.
        training: the same -> its records of the training split.
        validation: the same of the validation split.
        test_manifest: whole images and slides of the test split, to map.
        class_names: class 0 is the background.
        region_size_um: sides (width, height) of the images that methods of images train on; None where they are not squares of
            one size.
        why_not_square: of these images their sizes, why they were not cut into squares, and what to do about it.
        why_no_regions: of slides, why they were not cut into regions; empty where they were.
    """

    manifest: Path
    records: Sequence[Record]
    rows: Sequence[Record]
    is_slides: bool
    manifests: dict[str, Path]
    training: dict[str, list[Record]]
    validation: dict[str, list[Record]]
    test_manifest: Path
    class_names: tuple[str, ...] = BINARY_NAMES
    region_size_um: tuple[float, float] | None = None
    why_not_square: str = ""
    why_no_regions: str = ""
    image_mpp: float = 1.0
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    truth: str = MASKS_WHERE_GIVEN

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def groups(self) -> list[str]:
        """The groups of the scored records that are scored apart, sorted; none where all records are of the same one."""
        found = {record.get("group") for record in self.records}
        return sorted(group for group in found if group is not None) if len(found) > 1 else []

    @property
    def only_group(self) -> str | None:
        """The group that all scored records are of; None where there is no such group."""
        found = {record.get("group") for record in self.records}
        return found.pop() if len(found) == 1 else None

    def files_of_methods(self, tissue: Path) -> str:
        """A hash of all files of which a method's maps are made, see `files_key`; masks of the test split are not among them."""
        return files_key([{**record, "mask": None} if record["split"] == "test" else record for record in self.rows], tissue)

    def of_group(self, group: str) -> list[int]:
        """Indices of the scored records of a group."""
        return [index for index, record in enumerate(self.records) if record.get("group") == group]


def prepare_data(
    manifest: str | Path,
    out: Path,
    class_names: Sequence[str] = BINARY_NAMES,
    tile_mpp: float | None = None,
    region_size_px: int = 320,
    region_mpp: float = 0.5,
    tumour_classes: Sequence[str] | None = None,
    annotation_frame: str | None = None,
    truth: str = MASKS_WHERE_GIVEN,
) -> ComparisonData:
    """Write the manifests of a comparison into `out`: every path absolute, every split and pixel size filled in.

    Test rows with tumour but no mask are mapped, but not among the rows that methods train with.

    Whole slides with masks are also cut into labelled regions, see `slide_regions`, for the methods that learn from images; of
    slides without, only the methods of slides learn. Images that are not all squares of one size are cut into such squares,
    with the smallest side of any image, which are labelled by the masks, see `labelled_squares`. Whatever is cut is scored
    whole.

    Args:
        manifest: of images, regions or whole slides.
        out: folder to write to.
        class_names: of the labels and masks; class 0 is the background.
        tile_mpp: micrometres per pixel of PNG and JPEG images in rows without ``mpp``.
        region_size_px: side of the regions that slides are cut into, at `region_mpp`.
        region_mpp: micrometres per pixel.
        tumour_classes: of annotation files, see `load_manifest`; the manifests that are written name them.
        annotation_frame: the same.
        truth: of `TRUTHS`: which rows of the test split are scored.

    Raises:
        ValueError: naming file and row, for what cannot be read, has no pixel size or mixes slides with images. Whether there
            is something to learn and to score `check_comparable` tells.
    """
    file = Path(demo_manifest(manifest)).resolve()
    records = load_manifest(
        file,
        require=(),
        num_classes=len(class_names),
        tile_mpp=tile_mpp,
        tumour_classes=tumour_classes,
        annotation_frame=annotation_frame,
    )
    for record in tqdm(records, "reading sizes", unit="image", disable=None, leave=False):
        _fill_mpp(record)
    kinds = {_is_slide(record) for record in records}
    if len(kinds) > 1:
        raise ValueError(f"{file} mixes whole slides with images or regions: compare them in two separate runs")
    is_slides = kinds.pop()
    manifests: dict[str, Path] = {}
    why_no_regions = ""
    kind = SLIDES if is_slides else IMAGES
    of_kind = {kind: records}
    size_um, why_not = None, ""
    if is_slides:
        regions, why_no_regions = _labelled_regions(records, region_size_px, region_mpp, class_names, out)
        if not why_no_regions:
            of_kind[IMAGES], size_um = regions, region_size_px * region_mpp
    else:
        size_um, why_not, of_kind[IMAGES] = _squares(records, class_names, out)
    for name, rows in of_kind.items():
        manifests[name] = out / f"{name}.csv"
        # A test row that cannot be scored would leave a training without masks to choose by.
        write_manifest([row for row in rows if row["split"] != "test" or has_known_mask(row)] or rows, manifests[name])
    test = [record for record in records if record["split"] == "test"]
    whole: dict[str, Record] = {
        record["image"]: {
            "image": record["image"],
            "mpp": record["mpp"],
            "case_id": record["case_id"],
            "split": record["split"],
        }
        for record in test
    }
    write_manifest(list(whole.values()), out / "test.csv")
    scored = [record for record in test if (has_known_mask(record) if truth == MASKS_WHERE_GIVEN else record["mask"] is not None)]
    training, validation = (
        {name: [row for row in rows if row["split"] == split] for name, rows in of_kind.items()} for split in ("train", "val")
    )
    return ComparisonData(
        manifest=file,
        records=scored,
        rows=records,
        is_slides=is_slides,
        manifests=manifests,
        training=training,
        validation=validation,
        test_manifest=out / "test.csv",
        class_names=tuple(class_names),
        region_size_um=None if size_um is None else (size_um, size_um),
        why_not_square=why_not,
        why_no_regions=why_no_regions,
        image_mpp=_most_frequent_mpp(training.get(IMAGES, records)),
        counts={split: _counts(records, split) for split in ("train", "val", "test")},
        truth=truth,
    )


def _fill_mpp(record: Record) -> None:
    try:
        slide = open_slide(record["image"], mpp=record["mpp"])
        if not slide.has_mpp:
            raise ValueError(
                "each method reads images at its own pixel size, and that of this image is not known: fill the column 'mpp', or "
                "give --tile_mpp"
            )
    except ValueError as error:
        raise record_error(record, error) from error
    record["mpp"] = slide.mpp


def _most_frequent_mpp(records: Sequence[Record]) -> float:
    """The pixel size that most images have, the finest of several, for methods that read images as they are.

    >>> _most_frequent_mpp([{"mpp": mpp} for mpp in (0.5, 0.25, 1.0, 0.5, 0.25)])
    0.25
    """
    counts = Counter(map(_mpp, records))
    return min(counts, key=lambda mpp: (-counts[mpp], mpp), default=1.0)


def _mpp(record: Record) -> float:
    """Micrometres per level-0 pixel of a record that `_fill_mpp` has filled."""
    mpp = record["mpp"]
    assert mpp is not None
    return mpp


def files_key(records: Sequence[Record], tissue: Path | None = None) -> str:
    """A hash of names, sizes and times of the images and masks of some rows: whether any of them has been changed in place.

    Args:
        records: the rows.
        tissue: folder of the tissue masks from which something is made; those that were edited belong to the hash.
    """
    files = sorted({Path(file) for record in records for file in (record["image"], record["mask"]) if file is not None})
    known: list[Any] = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    edited = {} if tissue is None else edited_tissue(records, tissue)
    return hashlib.sha256(json.dumps([*known, *sorted(edited.items())]).encode()).hexdigest()[:16]


def edited_tissue(records: Sequence[Record], tissue: Path) -> dict[str, str]:
    """Image -> key of its tissue masks in a folder, where these were edited; regions are as they were cut, and have none.

    A comparison in which none was edited keeps the keys that it had.
    """
    keys = {record["image"]: edited_mask_key(tissue, record["image"]) for record in records if record["x"] is None}
    return {image: key for image, key in keys.items() if key is not None}


def _is_slide(record: Record) -> bool:
    if record["x"] is not None or is_plain_picture(record["image"]):
        return False
    return not open_slide(record["image"], mpp=record["mpp"]).is_picture


def _kept(
    records: Sequence[Record], sizes: Sequence[float], class_names: Sequence[str], out: Path, cut: Callable[[], list[Record]]
) -> list[Record]:
    """The result of `cut`, or of an earlier call with the same images, masks and classes: tissue takes seconds per slide."""
    rows = [
        [record.get(name) for name in ("image", "mpp", "label", "case_id", "split", *MASK_COLUMNS, *REGION)] for record in records
    ]
    key = hashlib.sha256(json.dumps([*sizes, list(class_names), files_key(records), rows]).encode()).hexdigest()
    note, manifest = out / _CUT_NOTE, out / f"{IMAGES}.csv"
    # The bytes, so that a damaged note is one of another cut.
    if note.is_file() and manifest.is_file() and note.read_bytes() == json.dumps(key).encode():
        return load_manifest(manifest, require=(), num_classes=len(class_names))
    note.unlink(missing_ok=True)
    regions = cut()
    if regions:
        write_manifest(regions, manifest)
        with atomic_path(note) as temporary:
            temporary.write_text(json.dumps(key))
    return regions


def _labelled_regions(
    records: Sequence[Record], size_px: int, mpp: float, class_names: Sequence[str], out: Path
) -> tuple[list[Record], str]:
    """Labelled regions of the slides, and why there are none to learn from."""
    training = [record for record in records if record["split"] == "train"]
    tumour = [record for record in training if record["label"] != 0]
    without = sum(record["mask"] is None for record in tumour)
    if without:
        (out / _CUT_NOTE).unlink(missing_ok=True)
        return [], (
            "slides are cut into labelled regions only if every training slide with tumour has a mask "
            f"(missing: {without} of {len(tumour)})"
        )
    regions = _kept(records, (size_px, mpp), class_names, out, lambda: _regions(records, size_px, mpp, class_names))
    size = f"{size_px * mpp:g} um ({size_px} px at {mpp:g} um per pixel)"
    if not any(region["split"] == "train" for region in regions):
        return [], f"no region of {size} fits in the tissue of any training slide: give a smaller --region_size_px"
    cut = {region["image"] for region in regions}
    left_out = [record for record in records if has_known_mask(record) and record["image"] not in cut]
    if left_out:
        logger.warning(
            "%d of %d slides, such as %s, have no region of %s in their tissue, and methods of images do not see them: give a "
            "smaller --region_size_px to use them",
            len(left_out),
            len(records),
            Path(left_out[0]["image"]).name,
            size,
        )
    return regions, ""


def _regions(records: Sequence[Record], size_px: int, mpp: float, class_names: Sequence[str]) -> list[Record]:
    known = [record for record in records if has_known_mask(record)]
    progress = tqdm(known, "cutting slides into regions", unit="slide", disable=None, leave=False)
    num_classes, named = len(class_names), _of_annotations(class_names)
    cut = (slide_regions(record, size_px, mpp, num_classes=num_classes, class_names=named) for record in progress)
    return [region for regions in cut for region in regions]


def _squares(records: Sequence[Record], class_names: Sequence[str], out: Path) -> tuple[float | None, str, list[Record]]:
    """Side in micrometres of the squares that methods of images learn from, why there are none, and the records to learn from."""
    sizes_px = [_size_px(record) for record in records]
    sides_um = [side * _mpp(record) for size, record in zip(sizes_px, records, strict=True) for side in size]
    least_um, coarsest_mpp = min(sides_um), max(map(_mpp, records))
    # A pixel of rounding is a size in micrometres, see `read_image`.
    if max(sides_um) - least_um <= coarsest_mpp:
        (out / _CUT_NOTE).unlink(missing_ok=True)
        return (least_um + max(sides_um)) / 2, "", list(records)
    named = _named_sizes(sizes_px)
    unknown = sum(record["split"] == "train" and not has_known_mask(record) for record in records)
    why_not = ""
    if unknown:
        why_not = (
            f"squares cut from them would have no labels, because {unknown} training images have neither a mask nor label 0. Add "
            "the masks, or cut and label squares of one size yourself"
        )
    elif least_um / coarsest_mpp < LEAST_SQUARE_PX:
        why_not = (
            f"squares with their smallest side, {least_um:g} um, would be under {LEAST_SQUARE_PX} px. Leave out the smallest"
        )
    if why_not:
        (out / _CUT_NOTE).unlink(missing_ok=True)
        return None, f"{named}; {why_not}", list(records)
    logger.warning("the images (%s) are cut into squares of %g um for the methods that learn from images", named, least_um)
    return least_um, "", _kept(records, [least_um], class_names, out, lambda: _cut(records, least_um, class_names))


def _cut(records: Sequence[Record], side_um: float, class_names: Sequence[str]) -> list[Record]:
    known = [record for record in records if has_known_mask(record)]
    progress = tqdm(known, "cutting images into squares", unit="image", disable=None, leave=False)
    # The least side is a whole number of pixels, but for rounding.
    sides_px = ((record, int(side_um / _mpp(record) + 1e-6)) for record in progress)
    classes = (len(class_names), _of_annotations(class_names))
    return [square for record, side_px in sides_px for square in labelled_squares(record, side_px, *classes)]


def _of_annotations(class_names: Sequence[str]) -> Sequence[str] | None:
    """The classes of annotation files, in which two classes are called tumour or not by the manifest."""
    return class_names if len(class_names) > 2 else None


def _named_sizes(sizes_px: Sequence[tuple[int, int]]) -> str:
    """Sizes and how many images have them, the most frequent first.

    >>> _named_sizes([(224, 160), (64, 64), (224, 160)])
    '2 of 224 x 160 px, 1 of 64 x 64 px'
    """
    counts = Counter(sizes_px).most_common()
    named = ", ".join(f"{number} of {width} x {height} px" for (width, height), number in counts[:_SIZES_NAMED])
    return named + (f" and {len(counts) - _SIZES_NAMED} other sizes" if len(counts) > _SIZES_NAMED else "")


def _size_px(record: Record) -> tuple[int, int]:
    """(width, height) of a row in level-0 pixels."""
    width, height = record["width_px"], record["height_px"]
    return (width, height) if width and height else open_slide(record["image"], mpp=record["mpp"]).size_px


def _counts(records: Sequence[Record], split: str) -> dict[str, int]:
    chosen = [record for record in records if record["split"] == split]
    return {
        "rows": len(chosen),
        "tumour": sum(record["label"] is not None and record["label"] > 0 for record in chosen),
        "masks": sum(record["mask"] is not None for record in chosen),
        "areas": sum(record["area"] is not None for record in chosen),
        "cases": len({record["case_id"] or record["image"] for record in chosen}),
        "unnamed": sum(not record["case_id"] for record in chosen),
    }
