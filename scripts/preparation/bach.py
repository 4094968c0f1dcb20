"""Write the manifests of BACH, the breast-cancer challenge of ICIAR 2018, from its unpacked ICIAR2018_BACH_Challenge.

python scripts/prepare.py bach ICIAR2018_BACH_Challenge bach --val A04

Download: https://zenodo.org/records/3632035 (CC BY-NC-ND 4.0, not for commercial use). In the folder bach:

images.csv    the photos of part A: one of four labels each, no masks
slides.csv    the annotated slides of part B, the annotations as masks: 3 for training, 1 for validation, 6 for testing
patches.csv   the training data: patches of these slides centred on their lesions, and the photos
annotations   the slides' annotations with one name for each class, as GeoJSON
tissue        tissue masks of the slides; a second run reuses them

No pixels are copied. The paper's patches are 128 px of the slides' third level, 16 times 0.467 um per pixel: --mpp 7.472.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from scripts.options.numbers import COUNT, COUNT_FROM_0, PIXEL_SIZE, SEED
from scripts.preparation.folder_options import add_folder_options
from shared.data import BACH_CLASSES, TissueCache, bach_photos, bach_slides, slide_patches, write_manifest
from shared.data.public.bach import (
    SLIDE_MPP,
    TRAINING_SLIDES,
    TRAINING_SLIDES_WITH_A08,
    VALIDATION_SLIDES,
    VALIDATION_SLIDES_WITH_A08,
)
from shared.data.record import Record

SLIDE_DOWNSAMPLE = 16


def add_arguments(parser: ArgumentParser) -> None:
    add_folder_options(parser, "ICIAR2018_BACH_Challenge, with Photos and WSI in it")
    for split, slides in (("train", TRAINING_SLIDES), ("val", VALIDATION_SLIDES)):
        parser.add_argument(f"--{split}", nargs="+", metavar="SLIDE", help=f"{split} slides (default {' '.join(slides)})")
    parser.add_argument(
        "--split_with_a08",
        action="store_true",
        help=f"train on {' '.join(TRAINING_SLIDES_WITH_A08)}, as for the results in the released code, and validate on "
        f"{' '.join(VALIDATION_SLIDES_WITH_A08)}, unless --train or --val is given",
    )
    parser.add_argument("--size_px", type=COUNT, default=128, help="side of a patch in pixels at --mpp (default 128)")
    mpp = SLIDE_DOWNSAMPLE * SLIDE_MPP
    parser.add_argument("--mpp", type=PIXEL_SIZE, default=mpp, help=f"micrometres per pixel (default {mpp:g}: 1.25x)")
    parser.add_argument(
        "--num_background", type=COUNT_FROM_0, default=0, help="patches without lesion per slide (default 0, as in the paper)"
    )
    parser.add_argument("--seed", type=SEED, default=0, help="seed of k-means and of the background patches (default 0)")


def prepare(arguments: Namespace) -> Iterator[str]:
    output: Path = arguments.output
    tissue = TissueCache(output / "tissue", method="saturation")
    images, remarks = bach_photos(arguments.source, arguments.allow_missing)
    train, val = TRAINING_SLIDES, VALIDATION_SLIDES
    if arguments.split_with_a08:
        train, val = TRAINING_SLIDES_WITH_A08, VALIDATION_SLIDES_WITH_A08
    annotated, slide_remarks = bach_slides(
        arguments.source, output / "annotations", arguments.train or train, arguments.val or val, arguments.allow_missing
    )
    patches = []
    for record in tqdm(annotated, desc="patches", unit="slide", disable=None):
        patches += slide_patches(
            record,
            arguments.size_px,
            arguments.mpp,
            len(BACH_CLASSES),
            BACH_CLASSES,
            tissue=tissue,
            num_background=arguments.num_background,
            seed=arguments.seed,
        )
    for name, records in (("images", images), ("slides", annotated), ("patches", patches + images)):
        write_manifest(records, output / f"{name}.csv")
    for remark in remarks + slide_remarks:
        yield f"note: {remark}"
    yield f"{output / 'images.csv'}: {len(images)} photos (400 were published): {_classes(images)}"
    for split in ("train", "val", "test"):
        in_split = [record for record in annotated if record["split"] == split]
        named = ", ".join(record["case_id"] or "" for record in in_split)
        own = [record for record in patches if record["split"] == split]
        yield f"{output / 'slides.csv'}: {len(in_split)} {split} slides ({named}): {len(own)} patches: {_classes(own)}"
    yield f"{output / 'patches.csv'}: {len(patches)} patches with masks and {len(images)} photos with labels"


def _classes(records: Sequence[Record]) -> str:
    counts = Counter(record["label"] for record in records)
    return ", ".join(f"{counts[index]} {name}" for index, name in enumerate(BACH_CLASSES))
