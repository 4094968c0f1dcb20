"""Scores finished maps against masks or annotation files.

python scripts/evaluate.py --maps maps --manifest slides.csv --split test

--maps is a folder written by scripts/infer.py, with any bundle. The manifest's column `mask` names an image or an annotation
file of ImageScope, ASAP or QuPath; slides with label 0 need none. If annotations have several classes, --tumour_classes (or
the column of that name) says which are tumour. Writes metrics.json and slides.csv to --out.

Maps of tumour get scores of pixels, AUC with and without background, and FROC of lesions. As in CAMELYON16, regions of
isolated tumour cells (longest axis below 200 um) do not count as lesions; the table shows how many there are. Without any
lesion there is no FROC.

Maps of several classes (class_names in their settings.json) get accuracies, F1, IoU and BACH score of the likeliest class,
over pooled pixels and as means over slides; scores of each class, the confusion matrix, and the AUC of all other classes
against the first one. Annotations must have these class names, and pixels of a mask image their indices. Glass always counts
as the first class, whatever the map shows, and only in the scores "with background".

With --compare_with the maps of tumour are compared with those of another program, given as pictures in a folder: 8-bit grey,
where 255 is probability 1, or encoded as those that the authors of alpha/beta MIL have released, of the whole slide and with the
same name. The agreement of both in tissue, and the score of each where there is a mask or label 0, are written to comparison.json
and compared_slides.csv.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.options.annotation import add_annotation_options
from scripts.options.numbers import PIXEL_SIZE, SHARE
from shared.front_door import begin_script


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=Path, required=True, help="folder of the maps")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest of whole slides with masks")
    parser.add_argument("--split", help="split of the manifest: train, val or test (default: all rows)")
    parser.add_argument("--out", type=Path, help="folder to write to (default: evaluation, in --maps)")
    parser.add_argument(
        "--threshold", type=SHARE, help="probability from which a pixel counts as tumour (default: that of the maps)"
    )
    parser.add_argument("--froc_mpp", type=PIXEL_SIZE, help="micrometres per pixel at which lesions are found (default 16)")
    add_annotation_options(parser)
    parser.add_argument(
        "--tissue",
        type=Path,
        help="existing folder of tissue masks, found as for the maps (default: the maps' own, or tissue in --out)",
    )
    parser.add_argument("--allow_missing", action="store_true", help="leave out slides that have no finished map")
    parser.add_argument("--compare_with", type=Path, metavar="FOLDER", help="folder with maps of another program, as pictures")
    parser.add_argument(
        "--compare_threshold", type=SHARE, help="probability from which their pixels count as tumour (default 0.5)"
    )
    arguments = parser.parse_args()
    if arguments.compare_with is None and arguments.compare_threshold is not None:
        parser.error("--compare_threshold is that of other maps: give their folder with --compare_with")
    if arguments.compare_with is not None and arguments.froc_mpp is not None:
        parser.error("--froc_mpp is for lesions, which --compare_with does not look for: leave it out")
    if arguments.compare_threshold is None:
        arguments.compare_threshold = 0.5
    return arguments


def main() -> None:
    begin_script()
    arguments = parsed()
    # Takes seconds to import, which --help and wrong options need not wait for.
    from scripts.evaluation.finished_maps import evaluate

    try:
        print(evaluate(arguments))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
