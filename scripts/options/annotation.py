"""The options of every command that reads annotation files as masks."""

from __future__ import annotations

from argparse import ArgumentParser

from shared.wsi import ANNOTATION_FRAMES


def add_annotation_options(parser: ArgumentParser) -> None:
    """Add ``--tumour_classes`` and ``--annotation_frame``, for rows of a manifest that leave these columns empty."""
    parser.add_argument(
        "--tumour_classes",
        nargs="+",
        metavar="CLASS",
        help="classes in annotation files that are tumour (default: everything is annotated in one class, which is tumour)",
    )
    parser.add_argument(
        "--annotation_frame",
        choices=ANNOTATION_FRAMES,
        help="coordinate frame of annotation files that do not name theirs (default: qupath for GeoJSON and JSON, level0 for "
        "XML)",
    )
