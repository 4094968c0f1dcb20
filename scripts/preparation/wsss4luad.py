"""Write the manifest of WSSS4LUAD, patches of lung adenocarcinoma at 10x, from its unpacked folder.

python scripts/prepare.py wsss4luad WSSS4LUAD data/wsss4luad --train_masks 0.5

Download: https://wsss4luad.grand-challenge.org, after registration, under its terms. In the folder data/wsss4luad:

classes.csv    regions of training patches of a single tissue, and of the images with masks of background, tumour, stroma, normal
masks          these masks; a second run reuses them

No images are copied: the patches have many sizes, so regions of one size are read from them. In a patch of several tissues the
label of a region is unknown, so such patches are left out. --train_masks uses some of the validation images and their masks
for training.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from scripts.options.numbers import COUNT, SEED, SHARE
from scripts.preparation.folder_options import add_folder_options
from shared.data.public.releases import write_manifests
from shared.data.public.tissue_patches import WSSS4LUAD, of_one_tissue, tissue_patches


def add_arguments(parser: ArgumentParser) -> None:
    add_folder_options(parser, "WSSS4LUAD, with 1.training, 2.validation and 3.testing in it")
    parser.add_argument("--size_px", type=COUNT, default=128, help="side of a region in pixels (default 128)")
    parser.add_argument("--train_masks", type=SHARE, default=0.0, help="share of the validation images to train on (default 0)")
    parser.add_argument(
        "--official",
        action="store_true",
        help="keep the official split, in which some patients are in several splits; no patient is named",
    )
    parser.add_argument("--seed", type=SEED, default=0, help="seed of the choice for --train_masks (default 0)")


def prepare(arguments: Namespace) -> list[str]:
    data = tissue_patches(
        arguments.source,
        arguments.output / "masks",
        WSSS4LUAD,
        arguments.size_px,
        arguments.train_masks,
        arguments.official,
        arguments.allow_missing,
        arguments.seed,
    )
    manifests = {"classes.csv": (of_one_tissue(data.records), WSSS4LUAD.classes)}
    return write_manifests(data, arguments.output, manifests)
