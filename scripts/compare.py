"""Compares methods on your data: trains every method that your labels allow, scores all maps alike, writes a table and a report.

python scripts/compare.py --manifest my/images.csv --out report
python scripts/compare.py --manifest my/images.csv --methods camel camel+pixel_fsb cdws_mil --seeds 3 --out report
python scripts/compare.py --manifest my/slides.csv --set all num_workers 4 --set camel cmil::num_epochs 8 --out report

--methods takes bundles, with overlays after a plus sign; by default every bundle is compared. Each bundle declares which
labels it needs. Methods whose labels are missing are listed as skipped, with the reason, and failures are listed with theirs.
Whole slides with masks are also cut into labelled regions, for methods that learn from images; images with masks that are not
all squares of one size are cut into such squares.

Every training is a separate process and an MLflow run; all runs are in one experiment. The same command resumes after an
interruption, even kill -9, and never uses results that were made with another manifest or other settings. --out receives
table.csv, table.md, differences.csv, seeds.csv, cases.csv and report.html (a single file that works offline), all rewritten
after every method, and the data from which they are made; groups.csv too if the manifest's column group divides the test rows,
which are then scored apart as well as together. If you run fewer methods, or fewer seeds, into the same --out, the rows of
the others and the finished seeds are kept, and the report says which call made which; a finished row also stays where another
--set is refused. Methods are compared by their paired differences over the same draws of the same cases: the table has those
to the best method or to --reference, differences.csv those of every pair.

Exit status: 0 when every method that was not skipped has a result, 1 when any failed or was refused, 2 when nothing could be
started or every method was skipped.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.options.annotation import add_annotation_options
from scripts.options.class_names import add_class_names_option
from scripts.options.interruption import exit_with
from scripts.options.numbers import COUNT, COUNT_FROM_0, PIXEL_SIZE, number
from shared.front_door import begin_script


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--manifest", type=Path, required=True, help="manifest of images, regions or whole slides, with masks to score against"
    )
    parser.add_argument(
        "--methods", nargs="+", default=[], metavar="BUNDLE[+OVERLAY]", help="methods to compare (default: every bundle)"
    )
    parser.add_argument("--seeds", type=COUNT, default=3, help="trainings per method (default 3)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the report and everything it is made from")
    parser.add_argument("--bundles", type=Path, default=ROOT / "bundles", help="folder of the bundles")
    parser.add_argument(
        "--set",
        nargs=3,
        action="append",
        default=[],
        metavar=("METHOD", "KEY", "VALUE"),
        help="set a key of a method's training; METHOD all sets it for every method that has it",
    )
    add_class_names_option(parser, ["normal", "tumour"])
    parser.add_argument("--ordered_classes", action="store_true", help="three or more classes are ordered: show BACH's score")
    add_annotation_options(parser)
    parser.add_argument(
        "--mpp", type=PIXEL_SIZE, default=1.0, help="micrometres per pixel at which all maps are scored (default 1)"
    )
    parser.add_argument(
        "--tile_mpp", type=PIXEL_SIZE, help="um per pixel of PNG and JPEG images if the manifest has no column mpp"
    )
    parser.add_argument(
        "--region_size_px", type=COUNT, default=320, help="side of the regions that slides are cut into (default 320)"
    )
    parser.add_argument(
        "--region_mpp", type=PIXEL_SIZE, default=0.5, help="micrometres per pixel of --region_size_px (default 0.5)"
    )
    parser.add_argument(
        "--dataset",
        help="the data set's overlay, which methods whose bundle has it use (default: the one named like the manifest's folder; "
        "none: no overlay). If it is named here, the published results on these data are shown too",
    )
    parser.add_argument(
        "--select",
        choices=("own", "labels"),
        default="own",
        help="how epochs and thresholds are chosen on the validation split: as each bundle does, or by labels alone",
    )
    parser.add_argument(
        "--truth",
        choices=("masks_where_given", "masks_only"),
        help="which test rows are scored: those with a mask or label 0, or only those with a mask (default: as the data set's "
        "overlay says, else masks_where_given)",
    )
    parser.add_argument("--reference", metavar="METHOD", help="method with which the others are compared (default: the best one)")
    parser.add_argument(
        "--no_baselines", action="store_true", help="leave out 'everything is tumour', 'colour only' and the ceilings"
    )
    parser.add_argument("--experiment", default="comparison", help="MLflow experiment for all runs")
    parser.add_argument(
        "--tracking_uri",
        help="tracking URI of MLflow (default: a database in --out); the environment variable MLFLOW_TRACKING_URI goes before it",
    )
    parser.add_argument("--mlflow_url", help="address at which readers of the report reach MLflow, for links to the trainings")
    parser.add_argument("--examples", type=COUNT_FROM_0, default=6, help="test images in the gallery (default 6)")
    for name, seconds, what in (("label", 5.0, "an image"), ("area", 10.0, "a rough area"), ("mask", 240.0, "a mask")):
        parser.add_argument(
            f"--{name}_seconds",
            type=number(0),
            default=seconds,
            help=f"seconds that an annotator needs for {what} (default {seconds:g})",
        )
    return parser.parse_args()


def main() -> None:
    begin_script()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    arguments = parsed()
    # Takes seconds to import, which --help and wrong options need not wait for.
    from scripts.comparison.command import run

    exit_with(lambda: run(arguments))


if __name__ == "__main__":
    main()
