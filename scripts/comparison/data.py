"""One manifest as every method needs it: the same splits, the same pixel size, images and whole slides."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from shared.data import load_manifest, record_error, slide_regions, write_manifest
from shared.data.manifest import PLAIN_SUFFIXES
from shared.data.record_masks import MASK_COLUMNS
from shared.synthetic import demo_manifest
from shared.writers import atomic_path
from shared.wsi import open_slide

Record = dict[str, Any]

IMAGES, SLIDES = "images", "slides"
BINARY_NAMES = ("normal", "tumour")


@dataclass(frozen=True)
class ComparisonData:
    """What is compared on.

    Attributes:
        manifest: that of the user.
        records: of the test split that are scored.
        is_slides: whether the rows are whole slides.
        manifests: ``"images"`` and ``"slides"`` -> the manifest that methods of this kind train on, of those that there are.
        training: the same -> its records of the training split.
        test_manifest: whole images and slides of the test split, to map.
        class_names: class 0 is the background.
        region_size_um: sides (width, height) of the images that methods of images train on; None where they differ.
    """

    manifest: Path
    records: Sequence[Record]
    is_slides: bool
    manifests: dict[str, Path]
    training: dict[str, list[Record]]
    test_manifest: Path
    class_names: tuple[str, ...] = BINARY_NAMES
    region_size_um: tuple[float, float] | None = None
    image_mpp: float = 1.0
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def prepare_data(
    manifest: str | Path,
    out: Path,
    class_names: Sequence[str] = BINARY_NAMES,
    tile_mpp: float | None = None,
    region_size_px: int = 320,
    region_mpp: float = 0.5,
    tumour_classes: Sequence[str] | None = None,
    annotation_frame: str | None = None,
) -> ComparisonData:
    """Write the manifests of a comparison into `out`: every path absolute, every split and pixel size filled in.

    Whole slides with masks are also cut into labelled regions, see `slide_regions`, for the methods that learn from images; of
    slides without, only the methods of slides learn.

    Args:
        manifest: of images, regions or whole slides.
        out: folder to write to.
        class_names: of the labels and masks; class 0 is the background.
        tile_mpp: micrometres per pixel of PNG and JPEG images in rows without ``mpp``.
        region_size_px: side of the regions that slides are cut into, at `region_mpp`.
        region_mpp: micrometres per pixel.
        tumour_classes: of annotation files, see `load_manifest`; the manifests that are written name them.
        annotation_frame: the same.

    Raises:
        ValueError: naming file and row, for what cannot be read, has no pixel size or mixes slides with images; and where no test
            image has a mask or label 0.
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
        raise ValueError(f"{file} mixes whole slides with images or regions: compare them in two runs")
    is_slides = kinds.pop()
    manifests: dict[str, Path] = {}
    kind = SLIDES if is_slides else IMAGES
    of_kind = {kind: records}
    if is_slides:
        regions = _kept_regions(records, region_size_px, region_mpp, len(class_names), out)
        if regions:
            of_kind[IMAGES] = regions
    for name, rows in of_kind.items():
        manifests[name] = out / f"{name}.csv"
        write_manifest(rows, manifests[name])
    test = [record for record in records if record["split"] == "test"]
    whole = {record["image"]: {name: record.get(name) for name in ("image", "mpp", "case_id", "split")} for record in test}
    write_manifest(list(whole.values()), out / "test.csv")
    scored = [record for record in test if record.get("mask") is not None or record["label"] == 0]
    if not scored:
        raise ValueError(f"{file} has no image of the split 'test' with a mask or label 0: there is nothing to score")
    training = {name: [row for row in rows if row["split"] == "train"] for name, rows in of_kind.items()}
    return ComparisonData(
        manifest=file,
        records=scored,
        is_slides=is_slides,
        manifests=manifests,
        training=training,
        test_manifest=out / "test.csv",
        class_names=tuple(class_names),
        region_size_um=_common_size_um(training.get(IMAGES, [])),
        image_mpp=float(records[0]["mpp"]),
        counts={split: _counts(records, split) for split in ("train", "val", "test")},
    )


def _fill_mpp(record: Record) -> None:
    try:
        slide = open_slide(record["image"], mpp=record["mpp"])
        if not slide.has_mpp:
            raise ValueError(
                "the methods read images at pixel sizes of their own, and this one's is not known: fill the column 'mpp', or "
                "give --tile_mpp"
            )
    except ValueError as error:
        raise record_error(record, error) from error
    record["mpp"] = slide.mpp


def _is_slide(record: Record) -> bool:
    if record["x"] is not None or Path(record["image"]).suffix.lower() in PLAIN_SUFFIXES:
        return False
    return open_slide(record["image"], mpp=record["mpp"]).backend != "pillow"


def _kept_regions(records: Sequence[Record], size_px: int, mpp: float, num_classes: int, out: Path) -> list[Record]:
    """`_regions`, or those that an earlier call has written, if slides and masks are the same: tissue takes seconds a slide."""
    files = [Path(record[name]) for record in records for name in ("image", "mask") if record[name] is not None]
    known = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    rows = [[record[name] for name in ("image", "mpp", "label", "case_id", "split", *MASK_COLUMNS)] for record in records]
    key = hashlib.sha256(json.dumps([size_px, mpp, num_classes, known, rows]).encode()).hexdigest()
    note, manifest = out / "regions.json", out / f"{IMAGES}.csv"
    if note.is_file() and manifest.is_file() and json.loads(note.read_text()) == key:
        return load_manifest(manifest, num_classes=num_classes)
    note.unlink(missing_ok=True)
    regions = _regions(records, size_px, mpp, num_classes)
    if regions:
        write_manifest(regions, manifest)
        with atomic_path(note) as temporary:
            temporary.write_text(json.dumps(key))
    return regions


def _regions(records: Sequence[Record], size_px: int, mpp: float, num_classes: int) -> list[Record]:
    """Labelled regions of the slides; none where a training slide with tumour has no mask."""
    if any(record["split"] == "train" and record["mask"] is None and record["label"] != 0 for record in records):
        return []
    known = [record for record in records if record["mask"] is not None or record["label"] == 0]
    progress = tqdm(known, "cutting slides into regions", unit="slide", disable=None, leave=False)
    return [region for record in progress for region in slide_regions(record, size_px, mpp, num_classes=num_classes)]


def _common_size_um(records: Sequence[Record]) -> tuple[float, float] | None:
    sizes = set()
    for record in records:
        size = (record["width_px"], record["height_px"])
        width, height = size if size[0] is not None else open_slide(record["image"], mpp=record["mpp"]).size_px
        sizes.add((round(width * record["mpp"], 3), round(height * record["mpp"], 3)))
    return sizes.pop() if len(sizes) == 1 else None


def _counts(records: Sequence[Record], split: str) -> dict[str, int]:
    chosen = [record for record in records if record["split"] == split]
    return {
        "rows": len(chosen),
        "tumour": sum(record["label"] is not None and record["label"] > 0 for record in chosen),
        "masks": sum(record["mask"] is not None for record in chosen),
        "areas": sum(record["area"] is not None for record in chosen),
        "cases": len({record["case_id"] or record["image"] for record in chosen}),
    }
