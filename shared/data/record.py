"""One image, region or slide: a row of a manifest, and the record made from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict


class _Image(TypedDict):
    image: str


class Record(_Image, total=False):
    """A row of a manifest: ``image`` always, the rest where it is known.

    `shared.data.manifest` says what the columns mean. ``x, y, width_px, height_px`` are level-0 pixels, absent or None of a
    whole image; ``mpp`` is micrometres per level-0 pixel. For messages there are ``manifest``, the path of the CSV, and
    ``row``, the number of the line in it on which the row begins (the header is row 1; blank lines count).
    """

    x: int | None
    y: int | None
    width_um: float | None
    height_um: float | None
    width_px: int | None
    height_px: int | None
    mpp: float | None
    label: int | None
    area: float | None
    mask: str | None
    tumour_classes: str | None
    annotation_frame: str | None
    case_id: str | None
    split: str | None
    group: str | None
    location: str | None
    manifest: str
    row: int
    # Columns after the manifest's own, of the instances that CAMEL picks.
    criterion: str
    probability: float | None
    # Labels of an image's instances, see `attach_instance_labels`.
    instances: str
    # A part of a slide that is calibrated as one tile.
    is_tile: bool
    # Of published data sets, until their manifests are written.
    part: str
    class_folder: str
    published_mask: str
    tumour_mask: str | None
    has_tumour: int
    tissues: Sequence[int]


def record_error(record: Record, problem: object) -> ValueError:
    """A ValueError that names the manifest, the row and the file of a record."""
    manifest = f"{record['manifest']}, " if record.get("manifest") else ""
    return ValueError(f"{manifest}row {record.get('row', '?')}, {record.get('image', '?')}: {problem}")


def label_of(record: Record) -> int:
    """The label of a record.

    Raises:
        ValueError: naming the row, if it has none.
    """
    label = record.get("label")
    if label is None:
        raise record_error(record, "the column 'label' is empty, and this run needs it for every image")
    return label


def has_known_mask(record: Record) -> bool:
    """Whether the class of every pixel of a record is known: it has a mask, or label 0, whose mask is empty."""
    return record.get("mask") is not None or record.get("label") == 0


def region_of(record: Record, image_size_px: tuple[int, int]) -> tuple[int, int, int, int]:
    """(x, y, width, height) of a record in level-0 pixels: its region, or else the whole image of `image_size_px`."""
    width, height = record.get("width_px") or image_size_px[0], record.get("height_px") or image_size_px[1]
    return record.get("x") or 0, record.get("y") or 0, width, height


def part_of(record: Record) -> Record:
    """What a region of an image or slide has from the whole: the file and how to read it, the mask, case and split."""
    return {
        "image": record["image"],
        "mpp": record.get("mpp"),
        "mask": record.get("mask"),
        "tumour_classes": record.get("tumour_classes"),
        "annotation_frame": record.get("annotation_frame"),
        "case_id": record.get("case_id"),
        "split": record.get("split"),
    }
