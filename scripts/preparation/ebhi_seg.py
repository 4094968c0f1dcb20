"""Write the manifests of EBHI-Seg, colorectal biopsies at 400x, from its unpacked class folders.

python scripts/prepare.py ebhi_seg EBHI-SEG data/ebhi_seg

Download: https://doi.org/10.6084/m9.figshare.21540159 (CC BY 4.0). In the folder data/ebhi_seg:

manifest.csv    tumour (1) and normal (0) tiles, by default adenocarcinoma against normal and polyp, with masks as published
classes.csv     the tiles of all six classes, with masks of class indices
masks           these masks; a second run reuses them

No images are copied. The release has no split: cases are split by --seed, in the same way in both manifests.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from scripts.options.numbers import SEED
from scripts.preparation.folder_options import add_folder_options
from shared.data.public.ebhi_seg import EBHI_CLASSES, NORMAL_CLASSES, TUMOUR_CLASSES, ebhi_seg, ebhi_tumour
from shared.data.public.releases import write_manifests


def add_arguments(parser: ArgumentParser) -> None:
    add_folder_options(parser, "EBHI-SEG, with one folder per class in it")
    for name, folders in (("tumour", TUMOUR_CLASSES), ("normal", NORMAL_CLASSES)):
        shown = " ".join(map(repr, folders))
        parser.add_argument(
            f"--{name}", nargs="+", metavar="FOLDER", default=folders, help=f"folders that count as {name} (default {shown})"
        )
    parser.add_argument("--seed", type=SEED, default=0, help="seed of the split (default 0)")


def prepare(arguments: Namespace) -> list[str]:
    ebhi_tumour([], arguments.tumour, arguments.normal)  # fails before the masks are written, not after
    data = ebhi_seg(arguments.source, arguments.output / "masks", arguments.allow_missing, arguments.seed)
    binary = ebhi_tumour(data.records, arguments.tumour, arguments.normal)
    manifests = {"manifest.csv": (binary, ("normal", "tumour")), "classes.csv": (data.records, EBHI_CLASSES)}
    return write_manifests(data, arguments.output, manifests)
