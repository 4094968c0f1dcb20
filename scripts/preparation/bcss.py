"""Write the manifests of BCSS, regions of breast cancer slides at 40x, from its unpacked folder.

python scripts/prepare.py bcss 0_Public-data-Amgad2019_0.25MPP data/bcss

Download: https://github.com/PathologyDataScience/BCSS (CC0 1.0). In the folder data/bcss:

images.csv     regions with any tumour (1) and without (0), with masks of the tumour
classes.csv    the same regions with their main class, with masks of other, tumour, stroma, inflammatory, necrosis
masks          both kinds of masks; a second run reuses them

No images are copied: the regions, all of one size, are read from the images. Unannotated pixels have no class: regions with a
larger share of them than --max_unlabelled are left out. The split is by tissue source site, that is by hospital.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from scripts.options.numbers import COUNT, PIXEL_SIZE, SHARE
from scripts.preparation.folder_options import add_folder_options
from shared.data.public.bcss import BCSS_CLASSES, TEST_SITES, VALIDATION_SITES, bcss, bcss_tumour
from shared.data.public.releases import write_manifests


def add_arguments(parser: ArgumentParser) -> None:
    add_folder_options(parser, "folder with rgbs_colorNormalized (or images) and masks in it")
    parser.add_argument("--size_px", type=COUNT, default=512, help="side of a region in pixels at --mpp (default 512)")
    parser.add_argument("--mpp", type=PIXEL_SIZE, default=0.5, help="micrometres per pixel (default 0.5: 20x)")
    parser.add_argument("--max_unlabelled", type=SHARE, default=0.01, help="largest unannotated share of a region (default 0.01)")
    for split, sites in (("val", VALIDATION_SITES), ("test", TEST_SITES)):
        parser.add_argument(
            f"--{split}", nargs="+", metavar="SITE", default=sites, help=f"sites of the {split} split (default {' '.join(sites)})"
        )
    parser.add_argument(
        "--stored_mpp", type=PIXEL_SIZE, help="micrometres per pixel of files whose names do not state it (_MPP-0.2500)"
    )


def prepare(arguments: Namespace) -> list[str]:
    data = bcss(
        arguments.source,
        arguments.output / "masks",
        arguments.size_px,
        arguments.mpp,
        arguments.max_unlabelled,
        arguments.val,
        arguments.test,
        arguments.stored_mpp,
        arguments.allow_missing,
    )
    binary = bcss_tumour(data.records)
    manifests = {"images.csv": (binary, ("no tumour", "tumour")), "classes.csv": (data.records, BCSS_CLASSES)}
    return write_manifests(data, arguments.output, manifests)
