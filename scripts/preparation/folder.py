"""Write the manifest of your own images: from one folder per class, or from slides and their annotation files.

python scripts/prepare.py folder images mine --classes normal tumour
python scripts/prepare.py folder slides mine --annotations geojson --classes "Other|Stroma" Tumor

The first command takes slides or tiles in images/normal and images/tumour, or in images/train/normal and so on, and masks or
annotation files of the same names with --masks. The second takes slides and annotations exported from a QuPath project, one
GeoJSON file per slide (or drawn in ImageScope or ASAP); in QuPath: Automate, Script editor, Run for project:

    mkdirs(buildFilePath(PROJECT_BASE_DIR, "geojson"))
    def path = buildFilePath(PROJECT_BASE_DIR, "geojson", getProjectEntry().getImageName() + ".geojson")
    exportObjectsToGeoJson(getAnnotationObjects(), path, "FEATURE_COLLECTION")

--classes lists the classes in the order of their index, background first; names that belong to one class are joined by |. In
the folder mine:

manifest.csv    the images; a split is made by --seed unless the folders give one
annotations     with --annotations and --classes: the drawn areas, with one name per class and background cut out

No pixels are copied.
"""

from __future__ import annotations

import logging
from argparse import ArgumentError, ArgumentParser, Namespace
from pathlib import Path

from scripts.options.annotation import add_annotation_options
from scripts.options.numbers import PIXEL_SIZE, SEED
from scripts.preparation.folder_options import add_folder_options
from shared.data.own.annotated_slides import annotated_slides
from shared.data.own.class_folders import class_folder_images
from shared.data.public.releases import write_manifests


def add_arguments(parser: ArgumentParser) -> None:
    add_folder_options(parser, "folder with the class folders, or with the slides", "is not there or cannot be used")
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="CLASS",
        help="class folders or drawn classes in the order of their index, background first",
    )
    parser.add_argument(
        "--annotations", type=Path, help="folder of annotation files: slides are labelled by what is drawn in them"
    )
    parser.add_argument(
        "--project", type=Path, help="QuPath's project.qpproj, needed if images in QuPath have other names than their files"
    )
    parser.add_argument(
        "--masks",
        type=Path,
        help="with class folders: folder of masks or annotation files, named like the images; of those with one "
        "name, in folders named like theirs",
    )
    parser.add_argument(
        "--case_pattern",
        metavar="REGEX",
        help="regular expression whose first group, found in an image's path, names the patient, such as '([^/_]+)_[^/]*$'; "
        "images of one patient stay in one split",
    )
    parser.add_argument("--mpp", type=PIXEL_SIZE, help="micrometres per level-0 pixel of files that do not state it")
    add_annotation_options(parser)
    parser.add_argument("--seed", type=SEED, default=0, help="seed of the split (default 0)")


def prepare(arguments: Namespace) -> list[str]:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    if arguments.annotations and arguments.masks:
        raise ArgumentError(None, "--masks is for class folders, --annotations replaces them: give one of the two")
    if arguments.project and not arguments.annotations:
        raise ArgumentError(None, "--project is only valid with --annotations")
    if arguments.tumour_classes and not arguments.masks:
        raise ArgumentError(None, "--tumour_classes is for annotation files in --masks; for those in --annotations use --classes")
    if arguments.annotation_frame and not (arguments.annotations or arguments.masks):
        raise ArgumentError(None, "--annotation_frame is only valid with --annotations or --masks")
    common = (arguments.case_pattern, arguments.mpp, arguments.allow_missing, arguments.seed)
    if arguments.annotations:
        folder = arguments.output / "annotations"
        data = annotated_slides(
            arguments.source,
            arguments.annotations,
            folder,
            arguments.classes,
            arguments.project,
            *common,
            arguments.annotation_frame,
        )
    else:
        data = class_folder_images(
            arguments.source,
            arguments.classes,
            arguments.masks,
            *common,
            arguments.tumour_classes,
            arguments.annotation_frame,
        )
    return write_manifests(data, arguments.output, {"manifest.csv": (data.records, list(data.found))})
