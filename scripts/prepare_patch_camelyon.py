"""Check the files of PatchCamelyon and count their patches; nothing is written, since the bundles read the files themselves.

python scripts/prepare_patch_camelyon.py data/patch_camelyon

Download: https://zenodo.org/records/2546921 (CC0 1.0), unpacked with gunzip: camelyonpatch_level_2_split_<split>_x.h5 and
..._y.h5 of the splits train, valid and test. patch_camelyon.json of alpha_beta_mil reads the test split alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from shared.data import PatchCamelyonDataset
from shared.data.public.patch_camelyon import PUBLISHED_PATCHES, SPLITS
from shared.front_door import begin_script

# Patches of one read: as many as lie in one run of chunks.
_READ_PATCHES = 1024


def main() -> None:
    begin_script()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with the .h5 files in it")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS, help="those that must be there (default all)")
    parser.add_argument("--read", action="store_true", help="read every patch too, so that damage is found (minutes)")
    arguments = parser.parse_args()
    try:
        for split in arguments.splits:
            dataset = PatchCamelyonDataset(arguments.source, split)
            if arguments.read:
                starts = range(0, len(dataset), _READ_PATCHES)
                for start in tqdm(starts, desc=split, unit="read", disable=None):
                    dataset.__getitems__(range(start, min(start + _READ_PATCHES, len(dataset))))
            tumour = int(dataset.labels.sum())
            counts = f"{len(dataset)} patches ({PUBLISHED_PATCHES[split]} were published)"
            print(f"{split}: {counts}: {len(dataset) - tumour} normal, {tumour} tumour")
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
