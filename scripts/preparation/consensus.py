"""One mask for each image from the masks of two pathologists, as for CDWS-MIL's Dataset A, and of a third where they disagree.

python scripts/prepare.py consensus first.csv second.csv data/agreed --third third.csv

The manifests name the same whole images, each with its own masks: pictures or annotation files. A region on which both masks
overlap by more than 80 % becomes what both show; on every other one the third mask decides. In the output folder:

masks          a PNG for each image
images.csv     the first manifest with these masks and the labels that they show; images with a region on which nobody has decided
               are left out
undecided.csv  these images, for the third pathologist: how many regions of each are open
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from scripts.options.annotation import add_annotation_options
from scripts.options.numbers import SHARE
from shared.data import label_of, load_manifest, write_manifest
from shared.data.labels.consensus import LEAST_OVERLAP, consensus_mask
from shared.data.manifest import assigns_splits
from shared.data.record import Record, record_error
from shared.data.record_masks import read_record_mask, without_label
from shared.writers import atomic_path, check_inputs_stay
from shared.wsi import open_slide

AGREED, UNDECIDED = "images.csv", "undecided.csv"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("first", type=Path, help="manifest with the masks of one pathologist")
    parser.add_argument("second", type=Path, help="manifest of the same images with the masks of another pathologist")
    parser.add_argument("output", type=Path, help="folder to write to")
    parser.add_argument(
        "--third", type=Path, help="manifest with the masks of a third pathologist, at least for the disputed images"
    )
    parser.add_argument(
        "--overlap",
        type=SHARE,
        default=LEAST_OVERLAP,
        help=f"overlap from which a region counts as agreed (default {LEAST_OVERLAP:g})",
    )
    add_annotation_options(parser)


def prepare(arguments: Namespace) -> Iterator[str]:
    given = [path for path in (arguments.first, arguments.second, arguments.third) if path is not None]
    check_inputs_stay(arguments.output, (AGREED, UNDECIDED), given)
    records = _records(arguments.first, arguments)
    seconds, thirds = (_by_image(path, arguments) for path in (arguments.second, arguments.third))
    missing = [record for record in records if record["image"] not in seconds]
    if missing:
        raise record_error(missing[0], f"the image is not in {arguments.second}, which must name the same images")
    agreed: list[Record] = []
    undecided, counts = [], np.zeros(3, int)
    for index, record in enumerate(tqdm(records, desc="masks", unit="image", disable=None)):
        image = record["image"]
        third = _mask(thirds[image]) if image in thirds else None
        found = consensus_mask(_mask(record), _mask(seconds[image]), third, arguments.overlap)
        counts += [found.num_agreed, found.num_decided, found.num_open]
        if found.num_open:
            undecided.append({"image": image, "open_regions": found.num_open})
            continue
        path = arguments.output.resolve() / "masks" / f"{index:05d}_{Path(image).stem}.png"
        with atomic_path(path) as temporary:
            Image.fromarray(found.mask.astype(np.uint8) * 255).save(temporary, format="PNG")
        with_mask: Record = {**records[index], "mask": str(path), "tumour_classes": None, "annotation_frame": None}
        has_tumour = bool(found.mask.any())
        if has_tumour != (label_of(record) > 0):
            # A training would refuse a label that contradicts its mask, and an area of no tumour.
            with_mask |= {"label": int(has_tumour), "area": None}
            agreed_on = "there is tumour" if has_tumour else "no tumour is left"
            yield f"note: row {record['row']}, {image}: {agreed_on}, and its label {record['label']} becomes {int(has_tumour)}"
        agreed.append(with_mask)
    if agreed:
        write_manifest(agreed, arguments.output / AGREED)
    else:
        # Not one of other masks.
        (arguments.output / AGREED).unlink(missing_ok=True)
    with atomic_path(arguments.output / UNDECIDED) as temporary:
        pd.DataFrame(undecided, columns=["image", "open_regions"]).to_csv(temporary, index=False)
    yield f"{arguments.output}: {len(agreed)} images with masks, {len(undecided)} undecided"
    yield f"regions: {counts[0]} agreed on, {counts[1]} decided by the third mask, {counts[2]} open"


def _records(path: Path, arguments: Namespace) -> list[Record]:
    records = load_manifest(
        path,
        require=("label", "mask"),
        tumour_classes=arguments.tumour_classes,
        annotation_frame=arguments.annotation_frame,
    )
    for record in records:
        if record.get("x") is not None:
            raise record_error(record, "a consensus is of whole images, and this row is a region of one")
    # A split that is drawn here would keep its test images out of the folds of a cross-validation.
    if not assigns_splits(path):
        for record in records:
            record["split"] = None
    return records


def _by_image(path: Path | None, arguments: Namespace) -> dict[str, Record]:
    return {} if path is None else {record["image"]: record for record in _records(path, arguments)}


def _mask(record: Record) -> NDArray[np.uint8]:
    """Of a whole image ``(H, W)``; empty of an image of label 0 without a mask."""
    try:
        size_px = open_slide(record["image"], mpp=record.get("mpp")).size_px
        if record.get("mask") is None and not label_of(record):
            return np.zeros(size_px[::-1], np.uint8)
        # The labels are those of the images, and one pathologist may have seen what another has not.
        return read_record_mask(without_label(record), (0, 0), size_px, size_px)
    except (ValueError, OSError) as error:
        raise record_error(record, error) from error
