"""Cut the masked slides of a manifest into patches centred on their lesions: a manifest of regions with masks of several classes.

python scripts/prepare.py patches slides.csv patches.csv --size_px 128 --mpp 8 --classes normal benign "in situ" invasive

The column ``mask`` names images of class indices or annotation files (ImageScope, ASAP, QuPath) with these classes. Without
--classes there are two: everything annotated is 1, or only the classes given by --tumour_classes. No images are written:
patches are read from the slides during training.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from scripts.options.annotation import add_annotation_options
from scripts.options.numbers import COUNT, COUNT_FROM_0, PIXEL_SIZE, SEED, SHARE
from scripts.preparation.drawn_splits import notes_on_splits
from scripts.preparation.patch_pictures import check_picture_names, write_patch_pictures
from shared.data import SIZE_MEASURES, TissueCache, label_of, load_manifest, slide_patches, write_manifest
from shared.writers import check_inputs_stay
from shared.wsi import TISSUE_METHODS


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("slides", type=Path, help="manifest of whole slides")
    parser.add_argument("patches", type=Path, help="manifest to write")
    parser.add_argument("--size_px", type=COUNT, default=128, help="side of a patch in pixels at --mpp (default 128)")
    parser.add_argument("--mpp", type=PIXEL_SIZE, default=8.0, help="micrometres per pixel (default 8: 1.25x)")
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="class names in the order of their index, background first")
    parser.add_argument("--min_tissue", type=SHARE, default=0.75, help="smallest share of tissue in a patch (default 0.75)")
    parser.add_argument(
        "--tissue_method",
        choices=TISSUE_METHODS,
        default="saturation",
        help="how tissue is found (default saturation, as in the paper)",
    )
    parser.add_argument("--tissue_folder", type=Path, help="folder for the slides' tissue masks (default: next to the manifest)")
    parser.add_argument(
        "--size_by", choices=SIZE_MEASURES, default="area", help="how the size of a lesion is measured (default area)"
    )
    parser.add_argument(
        "--num_background", type=COUNT_FROM_0, default=0, help="patches without lesion per slide (default 0, as in the paper)"
    )
    parser.add_argument("--seed", type=SEED, default=0, help="seed of k-means and of the background patches (default 0)")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of each slide's foreground, patches and split lesions")
    add_annotation_options(parser)


def prepare(arguments: Namespace) -> list[str]:
    classes = arguments.classes
    num_classes = len(classes) if classes else 2
    folder = arguments.tissue_folder or arguments.patches.parent / "tissue"
    tissue = TissueCache(folder, method=arguments.tissue_method)
    patches = []
    if classes and arguments.tumour_classes:
        raise ValueError(
            "--classes names all classes, --tumour_classes the classes that make up label 1 of two: give only one of them"
        )
    check_inputs_stay(arguments.patches.parent, [arguments.patches.name], [arguments.slides])
    slides = load_manifest(
        arguments.slides,
        require=("mask",),
        num_classes=num_classes,
        tumour_classes=arguments.tumour_classes,
        annotation_frame=arguments.annotation_frame,
    )
    if arguments.pictures is not None:
        check_picture_names([record for record in slides if record.get("mask") is not None])
    for record in tqdm(slides, unit="slide", disable=None):
        if arguments.pictures is not None and record.get("mask") is not None:
            write_patch_pictures(
                record,
                arguments.pictures,
                arguments.size_px,
                arguments.mpp,
                num_classes,
                classes,
                arguments.size_by,
                arguments.seed,
            )
        patches += slide_patches(
            record,
            arguments.size_px,
            arguments.mpp,
            num_classes,
            classes,
            arguments.min_tissue,
            tissue,
            arguments.num_background,
            arguments.size_by,
            arguments.seed,
        )
    if not patches:
        raise ValueError(
            f"{arguments.slides}: no lesion with {arguments.min_tissue:.0%} tissue in the {arguments.size_px} px around it"
        )
    write_manifest(patches, arguments.patches)
    counts = Counter(map(label_of, patches))
    names = classes or ["background", "annotated"]
    shown = ", ".join(f"{counts[index]} {names[index]}" for index in sorted(counts))
    written = f"{arguments.patches}: {len(patches)} patches of {len(slides)} slides: {shown}"
    return [written, *notes_on_splits(arguments.slides, slides)]
