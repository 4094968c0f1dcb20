"""Opens every slide of a manifest once and lists all those that no training or map could use in problems.csv.

python scripts/check_slides.py --manifest slides.csv --out checked
python scripts/check_slides.py --manifest slides.csv --out checked --skip             also writes checked/slides.csv without them
python scripts/check_slides.py --manifest slides.csv --out checked --skip --app_mag   and takes pixel sizes from magnifications

A slide with the same content as one of another split is listed too, as is one that splits or folds may part from its copy: one
without a split and of another case, or without one. Only a sample of each file is read for that, at most 1 MiB.

A second run opens only slides that are new, have changed or could not be read. checked/slides.csv is a manifest for trainings
and maps: the rows of the given one that can be used, with all its columns, and "mpp" where --app_mag fills it.

Exit status: 0 when every slide is usable or the others are skipped, 1 when some are not usable, 2 when the manifest cannot be
read or its rows contradict each other.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.options.numbers import COUNT
from shared.front_door import begin_script

PROBLEMS, CACHE, MANIFEST = "problems.csv", "headers.json", "slides.csv"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True, help="manifest (.csv)")
    parser.add_argument("--out", type=Path, required=True, help="folder for problems.csv and the checked manifest")
    parser.add_argument("--skip", action="store_true", help="write a manifest of the usable slides only")
    parser.add_argument(
        "--app_mag", action="store_true", help="take 10 um / magnification as the pixel size of slides that state none"
    )
    parser.add_argument("--num_threads", type=COUNT, default=4, help="threads that open slides (default 4)")
    return parser.parse_args()


def run(arguments: argparse.Namespace) -> int:
    from shared.data.manifest import check_rows_agree, stated_rows
    from shared.data.manifest_file import read_manifest_file
    from shared.data.own.slide_survey import problem_table, survey_slides
    from shared.writers.atomic import contended_path

    out = arguments.out
    if arguments.skip and arguments.manifest.resolve() == (out / MANIFEST).resolve():
        raise ValueError(f"{arguments.manifest} would be replaced by the manifest of its usable slides: give another --out")
    manifest = read_manifest_file(arguments.manifest)
    records, unreadable = stated_rows(manifest)
    survey = survey_slides(records, out / CACHE, arguments.app_mag, arguments.num_threads)
    problems = sorted([*unreadable, *survey.problems], key=lambda problem: problem["row"])
    # Two of these commands may share a folder.
    with contended_path(out / PROBLEMS) as temporary:
        temporary.write_text(problem_table(problems), encoding="utf-8")
    # Of one region in pixels and in micrometres it is known only now.
    check_rows_agree(survey.usable, arguments.manifest)
    print(f"{len(survey.usable)} of {len(manifest.rows)} rows are usable", end="")
    print(f"; the problems of the others are listed in {out / PROBLEMS}" if problems else "")
    if problems and not arguments.skip:
        return 1
    if not survey.usable:
        raise ValueError(f"{arguments.manifest}: no slide is usable, see {out / PROBLEMS}")
    if arguments.skip:
        manifest.write_rows(out / MANIFEST, {record["row"]: record["mpp"] for record in survey.usable})
        print(f"manifest of the usable slides: {out / MANIFEST}")
    return 0


def main() -> None:
    begin_script()
    try:
        sys.exit(run(parsed()))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
