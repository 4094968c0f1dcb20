"""Write the manifests of CAMELYON16 from the unpacked data set.

python scripts/prepare.py camelyon16 CAMELYON16 data/camelyon16

Download: https://camelyon17.grand-challenge.org/Data (CC0). In the folder data/camelyon16:

slides.csv    the slides; those with tumour have their annotations as masks
regions.csv   CAMEL's training data: regions of 1280 px at 20x, labelled by the annotations; for validation and test all regions
              with tumour and as many without
tissue        tissue masks of the slides; a second run reuses them

No pixels are copied, and masks are drawn region by region from the annotations, in training too.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from scripts.options.numbers import COUNT, PIXEL_SIZE, SEED, SHARE
from scripts.preparation.folder_options import add_folder_options
from shared.data import TissueCache
from shared.data.problems import first_names
from shared.data.public.camelyon16 import PARTLY_ANNOTATED, camelyon16_slides
from shared.data.public.camelyon16_regions import (
    PAPER_TRAINING_SLIDES,
    SPLIT_READINGS,
    assign_camelyon16_splits,
    balanced_regions,
    camelyon16_regions,
)
from shared.data.public.releases import write_manifests

# A region of 1280 px at 0.5 um has 20 x 20 px of it. At 8 um the thumbnail of a slide of 100 000 x 200 000 px would have 20
# million pixels, which are float numbers while tissue is looked for.
TISSUE_MPP = 32.0
CLASSES = ("normal", "tumour")


def add_arguments(parser: ArgumentParser) -> None:
    add_folder_options(parser, "folder of CAMELYON16, with training and testing in it", "is not there or cannot be read")
    parser.add_argument(
        "--split", choices=SPLIT_READINGS, default="paper", help="how slides are split (default paper: 240 slides to train on)"
    )
    parser.add_argument(
        "--training_slides",
        type=COUNT,
        default=PAPER_TRAINING_SLIDES,
        help="number of training slides with --split paper (default 240)",
    )
    parser.add_argument(
        "--val_share",
        type=SHARE,
        default=0.1,
        help="share of the training slides to validate on (default 0.1; the paper has none)",
    )
    parser.add_argument("--size_px", type=COUNT, default=1280, help="side of a region in pixels at --mpp (default 1280)")
    parser.add_argument("--mpp", type=PIXEL_SIZE, default=0.5, help="micrometres per pixel (default 0.5: 20x)")
    parser.add_argument("--min_tissue", type=SHARE, default=0.5, help="smallest share of tissue in a region (default 0.5)")
    parser.add_argument("--slide_mpp", type=PIXEL_SIZE, help="micrometres per level-0 pixel of slides that do not state it")
    parser.add_argument(
        "--all_regions", action="store_true", help="keep all normal regions instead of drawing as many as there are with tumour"
    )
    parser.add_argument(
        "--keep_unsure",
        action="store_true",
        help=f"also take regions without annotated tumour from the {len(PARTLY_ANNOTATED)} slides that are only partly annotated",
    )
    parser.add_argument("--seed", type=SEED, default=0, help="seed of the split and of the drawn normal regions (default 0)")


def prepare(arguments: Namespace) -> list[str]:
    output: Path = arguments.output
    tissue = TissueCache(output / "tissue", mpp=TISSUE_MPP)
    data = camelyon16_slides(arguments.source, arguments.allow_missing, arguments.slide_mpp)
    slides = data.records
    assign_camelyon16_splits(slides, arguments.split, arguments.val_share, arguments.seed, arguments.training_slides)
    regions = camelyon16_regions(slides, arguments.size_px, arguments.mpp, arguments.min_tissue, tissue, arguments.keep_unsure)
    with_tumour = {region["case_id"] for region in regions if region["label"]}
    without = [slide["case_id"] or "" for slide in slides if slide["label"] and slide["case_id"] not in with_tumour]
    if without:
        data.remarks.append(f"{len(without)} slides with tumour have no region with tumour: {first_names(without)}")
    chosen = regions if arguments.all_regions else balanced_regions(regions, arguments.seed)
    lines = write_manifests(data, output, {"slides.csv": (slides, CLASSES), "regions.csv": (chosen, CLASSES)})
    published = "The paper trained on 96,496 normal and 5,011 tumour regions of 240 slides and tested on 3,392 of each of 160."
    return [*lines, published]
