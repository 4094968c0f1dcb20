"""Write the manifest of the colorectal adenoma data of CAMEL's authors from the unpacked images and their table.

python scripts/prepare.py adenoma adenoma data/adenoma

Download: https://github.com/ThoroughImages/CAMEL names the place (no licence is named: ask the authors). In the folder
data/adenoma:

manifest.csv    the images, 1 adenoma and 0 normal, in a split that is made by --seed: the release has none

No pixel is copied. There are no masks: image labels alone are scored.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from scripts.preparation.folder_options import add_folder_options
from shared.data.public.adenoma import ADENOMA_CLASSES, adenoma_images
from shared.data.public.releases import write_manifests


def add_arguments(parser: ArgumentParser) -> None:
    add_folder_options(parser, "folder of the images and of their table", "is not there or cannot be used")
    parser.add_argument("--table", type=Path, help="CSV image_name,label (default: the only one in the folder)")
    parser.add_argument(
        "--case_pattern",
        metavar="REGEX",
        help="its first group, found in an image's path, is the slide or patient, as '([^/_]+)_[^/]*$': these stay whole",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split (default 0)")


def prepare(arguments: Namespace) -> list[str]:
    data = adenoma_images(arguments.source, arguments.table, arguments.case_pattern, arguments.allow_missing, arguments.seed)
    lines = write_manifests(data, arguments.output, {"manifest.csv": (data.records, ADENOMA_CLASSES)})
    return [*lines, "177 slides were published, 156 of them with adenoma; how many images, their owners do not say."]
