"""Compares methods on your data: trains what its labels allow, scores all maps alike, writes one table and one report.

python scripts/compare.py --manifest my/images.csv --out report
python scripts/compare.py --manifest my/images.csv --methods camel camel+pixel_fsb cdws_mil --seeds 3 --out report
python scripts/compare.py --manifest my/slides.csv --set all num_workers 4 --set camel cmil::num_epochs 8 --out report

--methods takes bundles, with overlays behind a plus; without it every bundle is compared. Each bundle declares which labels it
needs; one that the manifest cannot serve is a row of the table that says which label it lacks, and so is one
that fails. Whole slides with masks are also cut into labelled regions, for the methods that learn from images; images with masks
that are not all squares of one size are cut into such squares.

Every training is a process of its own and an MLflow run of one experiment; the same command again goes on where it was
interrupted, by kill -9 too, and takes nothing that was made with another manifest or other settings. Into --out go table.csv,
table.md and report.html (one file that needs nothing else), written anew after every method, and what they were made from.

Exit status: 0 when every method that was not skipped has a result, 1 when any failed, 2 when nothing could be started or every
method was skipped.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.preparation.annotation_options import add_annotation_options
from shared.front_door import begin_script


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True, help="of images, regions or whole slides, with masks to score")
    parser.add_argument("--methods", nargs="+", default=[], metavar="BUNDLE[+OVERLAY]", help="(default: every bundle)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings a method (default 3)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report and all that it is made from")
    parser.add_argument("--bundles", type=Path, default=ROOT / "bundles", help="folder of the bundles")
    parser.add_argument(
        "--set",
        nargs=3,
        action="append",
        default=[],
        metavar=("METHOD", "KEY", "VALUE"),
        help="a key of a training; METHOD all: of every one that has it",
    )
    parser.add_argument("--class_names", nargs="+", default=["normal", "tumour"], help="of labels and masks, background first")
    add_annotation_options(parser)
    parser.add_argument("--mpp", type=float, default=1.0, help="micrometres per pixel at which all maps are scored (default 1)")
    parser.add_argument("--tile_mpp", type=float, help="of PNG and JPEG images in a manifest without the column mpp")
    parser.add_argument("--region_size_px", type=int, default=320, help="of the regions that slides are cut into (default 320)")
    parser.add_argument("--region_mpp", type=float, default=0.5, help="micrometres per pixel of their size (default 0.5)")
    parser.add_argument("--dataset", help="the data are those of this overlay of the bundles: show what was published on them")
    parser.add_argument("--no_baselines", action="store_true", help="without 'everything is tumour' and 'colour only'")
    parser.add_argument("--experiment", default="comparison", help="MLflow experiment of all runs")
    parser.add_argument("--tracking_uri", help="of MLflow (default: MLFLOW_TRACKING_URI, else a database in --out)")
    parser.add_argument("--mlflow_url", default="http://127.0.0.1:5000", help="where `mlflow ui` will show it, for the links")
    parser.add_argument("--examples", type=int, default=6, help="test images in the gallery (default 6)")
    for name, seconds, what in (("label", 5.0, "an image"), ("area", 10.0, "a rough area"), ("mask", 240.0, "a mask")):
        parser.add_argument(
            f"--{name}_seconds", type=float, default=seconds, help=f"an annotator's, for {what} (default {seconds:g})"
        )
    arguments = parser.parse_args()
    if arguments.seeds < 1 or arguments.mpp <= 0:
        parser.error("--seeds is at least 1 and --mpp above 0")
    return arguments


if __name__ == "__main__":
    # Before torch and MONAI are imported, which takes seconds: --help, and what is wrong with the options.
    begin_script()
    parsed()

from scripts.comparison.data import prepare_data
from scripts.comparison.methods import check_given, find_methods
from scripts.comparison.report import Report
from scripts.comparison.runs import FAILED, SKIPPED, Comparison, Tracker
from scripts.declarations.published import PublishedData, published_data
from shared.engines.folder_lock import FolderLock
from shared.handlers import database_uri
from shared.sweeps.sweep import parse_value

logger = logging.getLogger("compare")


def run(arguments: argparse.Namespace) -> int:
    """Compare, unless another process does so in the same folder; the exit status."""
    lock = FolderLock(arguments.out.resolve())
    try:
        lock.acquire()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        return compare(arguments)
    finally:
        lock.release()


def compare(arguments: argparse.Namespace) -> int:
    """Compare; the exit status."""
    out = arguments.out.resolve()
    # Bundles are run from the checkout.
    bundles, manifest = arguments.bundles.resolve(), arguments.manifest.resolve()
    os.chdir(ROOT)
    given: dict[str, dict[str, Any]] = {}
    for method, key, value in arguments.set:
        given.setdefault(method, {})[key] = parse_value(value)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or arguments.tracking_uri or database_uri(out)
    try:
        published = _published(bundles, arguments.dataset)
        methods = find_methods(bundles, arguments.methods)
        check_given(methods, given)
        data = prepare_data(
            manifest,
            out / "data",
            arguments.class_names,
            arguments.tile_mpp,
            arguments.region_size_px,
            arguments.region_mpp,
            arguments.tumour_classes,
            arguments.annotation_frame,
        )
        comparison = Comparison(
            data, out, methods, range(arguments.seeds), arguments.mpp, given, Tracker(uri, arguments.experiment)
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    seconds = {name: getattr(arguments, f"{name.removesuffix('s')}_seconds") for name in ("labels", "areas", "masks")}
    report = Report(
        data,
        mpp=arguments.mpp,
        seconds=seconds,
        published=published,
        tracking_uri=uri,
        mlflow_url=arguments.mlflow_url,
        num_examples=arguments.examples,
        experiment=arguments.experiment,
    )
    # After every method: what is known can be read while the next one trains.
    rows = comparison.run(baselines=not arguments.no_baselines, tell=partial(report.write, out))
    print((out / "table.md").read_text())
    print(out / "report.html")
    skipped = [row for row in rows if row.status == SKIPPED and not row.is_baseline]
    if len(skipped) == len(methods):
        print(f"error: every method was skipped, nothing was compared on {manifest}:", file=sys.stderr)
        print(*(f"  {row.key} {row.reason}" for row in skipped), sep="\n", file=sys.stderr)
        return 2
    return int(any(row.status == FAILED for row in rows))


def _published(bundles: Path, dataset: str | None) -> PublishedData | None:
    """What the bundles say was published on a data set; None for no data set."""
    if dataset is None:
        return None
    known = published_data(bundles)
    if dataset not in known:
        raise ValueError(
            f"--dataset {dataset}: expected a data set on which a bundle of {bundles} has docs/published.json: "
            f"{', '.join(sorted(known)) or 'there is none'}"
        )
    return known[dataset]


def main() -> None:
    begin_script()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    try:
        sys.exit(run(parsed()))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
