"""Write the manifests of GlaS (Warwick-QU), glands of the colon at 20x, from its unpacked folder.

python scripts/prepare.py glas Warwick_QU_Dataset data/glas

Download: https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest (for research only). In the folder data/glas:

images.csv     regions of malignant (1) and benign (0) images; the mask of a malignant image is its annotated glands, as published
classes.csv    the same regions, with masks of background, benign gland, malignant gland
masks          these masks; a second run reuses them

No images are copied: the regions, all of one size, are read from the images. In the official split patients are in several
parts, so patients are split again by --seed; --official keeps its test images and names no patients.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from scripts.options.numbers import COUNT, SEED
from scripts.preparation.folder_options import add_folder_options
from shared.data.public.glas import GLAS_CLASSES, glas, glas_malignancy
from shared.data.public.releases import write_manifests


def add_arguments(parser: ArgumentParser) -> None:
    add_folder_options(parser, "Warwick_QU_Dataset, with Grade.csv in it")
    parser.add_argument("--size_px", type=COUNT, default=416, help="side of a region in pixels of the images (default 416)")
    parser.add_argument(
        "--official", action="store_true", help="test on the official test images, which are of the same patients"
    )
    parser.add_argument("--seed", type=SEED, default=0, help="seed of the split (default 0)")


def prepare(arguments: Namespace) -> list[str]:
    data = glas(
        arguments.source,
        arguments.output / "masks",
        arguments.size_px,
        arguments.official,
        arguments.allow_missing,
        arguments.seed,
    )
    binary = glas_malignancy(data.records)
    manifests = {"images.csv": (binary, ("benign", "malignant")), "classes.csv": (data.records, GLAS_CLASSES)}
    return write_manifests(data, arguments.output, manifests)
