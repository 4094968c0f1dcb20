"""Check the files of PatchCamelyon and count their patches; nothing is written, because the bundles read these files directly.

python scripts/prepare.py patch_camelyon data/patch_camelyon

Download: https://zenodo.org/records/2546921 (CC0 1.0), unpacked with gunzip: camelyonpatch_level_2_split_<split>_x.h5 and
..._y.h5 of the splits train, valid and test. patch_camelyon.json of alpha_beta_mil reads only the test split.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from shared.data import PatchCamelyonDataset
from shared.data.public.patch_camelyon import PUBLISHED_PATCHES, SPLITS

# Patches of one read: as many as lie in one run of chunks.
_READ_PATCHES = 1024


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="folder with the .h5 files in it")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS, help="splits that must be present (default: all)")
    parser.add_argument("--read", action="store_true", help="also read every patch, to find damage (takes minutes)")


def prepare(arguments: Namespace) -> Iterator[str]:
    for split in arguments.splits:
        dataset = PatchCamelyonDataset(arguments.source, split)
        if arguments.read:
            starts = range(0, len(dataset), _READ_PATCHES)
            for start in tqdm(starts, desc=split, unit="read", disable=None):
                dataset.__getitems__(range(start, min(start + _READ_PATCHES, len(dataset))))
        tumour = int(dataset.labels.sum())
        counts = f"{len(dataset)} patches ({PUBLISHED_PATCHES[split]} were published)"
        yield f"{split}: {counts}: {len(dataset) - tumour} normal, {tumour} tumour"
