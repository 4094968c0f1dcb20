"""Cut the slides of a manifest into labelled tissue regions: a manifest from which CAMEL and CDWS-MIL train directly.

python scripts/prepare.py regions slides.csv regions.csv --size_px 1280 --mpp 0.5

No images are written: the regions are read from the slides during training. Slides with tumour need the column ``mask``.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from tqdm import tqdm

from scripts.options.annotation import add_annotation_options
from scripts.options.numbers import COUNT, COUNT_FROM_0, PIXEL_SIZE, SHARE
from scripts.preparation.drawn_splits import notes_on_splits
from shared.data import label_of, load_manifest, slide_regions, write_manifest
from shared.writers import check_inputs_stay


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("slides", type=Path, help="manifest of whole slides")
    parser.add_argument("regions", type=Path, help="manifest to write")
    parser.add_argument("--size_px", type=COUNT, required=True, help="side of a region in pixels at --mpp")
    parser.add_argument("--mpp", type=PIXEL_SIZE, default=0.5, help="micrometres per pixel (default 0.5: 20x)")
    parser.add_argument("--min_tissue", type=SHARE, default=0.5, help="smallest share of tissue in a region (default 0.5)")
    parser.add_argument("--stride_px", type=COUNT_FROM_0, default=0, help="step between regions (default 0: side by side)")
    add_annotation_options(parser)


def prepare(arguments: Namespace) -> list[str]:
    regions = []
    meaning = {"tumour_classes": arguments.tumour_classes, "annotation_frame": arguments.annotation_frame}
    check_inputs_stay(arguments.regions.parent, [arguments.regions.name], [arguments.slides])
    slides = load_manifest(arguments.slides, **meaning)
    for record in tqdm(slides, unit="slide", disable=None):
        regions += slide_regions(record, arguments.size_px, arguments.mpp, arguments.min_tissue, arguments.stride_px)
    if not regions:
        raise ValueError(f"{arguments.slides}: no region of {arguments.size_px} px contains {arguments.min_tissue:.0%} tissue")
    write_manifest(regions, arguments.regions)
    tumour = sum(map(label_of, regions))
    written = f"{arguments.regions}: {len(regions)} regions, {tumour} with tumour, {len(regions) - tumour} without"
    return [written, *notes_on_splits(arguments.slides, slides)]
