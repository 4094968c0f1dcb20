"""Write the manifest of the colorectal adenoma data of CAMEL's authors from the unpacked images and their table.

python scripts/prepare_adenoma.py adenoma data/adenoma

Download: https://github.com/ThoroughImages/CAMEL names the place (no licence is named: ask the authors). In the folder
data/adenoma:

manifest.csv    the images, 1 adenoma and 0 normal, in a split that is made by --seed: the release has none

No pixel is copied. There are no masks: image labels alone are scored.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shared.data.public.adenoma import ADENOMA_CLASSES, adenoma_images
from shared.data.public.releases import write_manifests
from shared.front_door import begin_script


def main() -> None:
    begin_script()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of the images and of their table")
    parser.add_argument("output", type=Path, help="folder to write to")
    parser.add_argument("--table", type=Path, help="CSV image_name,label (default: the only one in the folder)")
    parser.add_argument(
        "--case_pattern",
        metavar="REGEX",
        help="its first group, found in an image's path, is the slide or patient, as '([^/_]+)_[^/]*$': these stay whole",
    )
    parser.add_argument("--allow_missing", action="store_true", help="leave out what is not there or cannot be used")
    parser.add_argument("--seed", type=int, default=0, help="of the split (default 0)")
    arguments = parser.parse_args()
    try:
        data = adenoma_images(arguments.source, arguments.table, arguments.case_pattern, arguments.allow_missing, arguments.seed)
        lines = write_manifests(data, arguments.output, {"manifest.csv": (data.records, ADENOMA_CLASSES)})
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(*lines, sep="\n")
    print("177 slides were published, 156 of them with adenoma; how many images, their owners do not say.")


if __name__ == "__main__":
    main()
