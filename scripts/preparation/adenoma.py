"""Write the manifest of the colorectal adenoma data of CAMEL's authors from the unpacked images and their table.

python scripts/prepare.py adenoma adenoma data/adenoma

Download: see https://github.com/ThoroughImages/CAMEL (no licence is stated: ask the authors). In the folder data/adenoma:

manifest.csv    the images, 1 adenoma and 0 normal, with a split made by --seed, because the release has none

No pixels are copied. There are no masks, so only image labels are scored.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from scripts.options.numbers import SEED
from scripts.preparation.folder_options import add_folder_options
from shared.data.public.adenoma import ADENOMA_CLASSES, adenoma_images
from shared.data.public.releases import write_manifests


def add_arguments(parser: ArgumentParser) -> None:
    add_folder_options(parser, "folder with the images and their table", "is not there or cannot be used")
    parser.add_argument("--table", type=Path, help="CSV with the columns image_name,label (default: the only CSV in the folder)")
    parser.add_argument(
        "--case_pattern",
        metavar="REGEX",
        help="regular expression whose first group, found in an image's path, names the slide or patient, such as "
        "'([^/_]+)_[^/]*$'; images of one slide or patient stay in one split",
    )
    parser.add_argument("--seed", type=SEED, default=0, help="seed of the split (default 0)")


def prepare(arguments: Namespace) -> list[str]:
    data = adenoma_images(arguments.source, arguments.table, arguments.case_pattern, arguments.allow_missing, arguments.seed)
    lines = write_manifests(data, arguments.output, {"manifest.csv": (data.records, ADENOMA_CLASSES)})
    return [*lines, "177 slides were published, 156 of them with adenoma; the number of images was not published."]
