"""Write the manifests of LUAD-HistoSeg, patches of lung adenocarcinoma at 10x, from its unpacked folder.

python scripts/prepare.py luad_histoseg LUAD-HistoSeg data/luad_histoseg --train_masks 0.5

Download: see https://github.com/ChuHan89/WSSS-Tissue. In the folder data/luad_histoseg:

images.csv     patches with tumour (1) and without (0), from their file names; masks of the tumour for validation and test
classes.csv    training patches of a single tissue, and patches with masks of background, tumour, necrosis, lymphocytes, stroma
masks          both kinds of masks; a second run reuses them

No images are copied. The release has no training masks: --train_masks uses some of the validation images for training.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from scripts.options.numbers import SEED, SHARE
from scripts.preparation.folder_options import add_folder_options
from shared.data.public.releases import write_manifests
from shared.data.public.tissue_patches import LUAD_HISTOSEG, of_one_tissue, tissue_patches, with_tumour


def add_arguments(parser: ArgumentParser) -> None:
    add_folder_options(parser, "LUAD-HistoSeg, with train, val and test in it")
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
        LUAD_HISTOSEG,
        train_masks=arguments.train_masks,
        official=arguments.official,
        allow_missing=arguments.allow_missing,
        seed=arguments.seed,
    )
    binary, single = with_tumour(data.records), of_one_tissue(data.records)
    manifests = {"images.csv": (binary, ("no tumour", "tumour")), "classes.csv": (single, LUAD_HISTOSEG.classes)}
    return write_manifests(data, arguments.output, manifests)
