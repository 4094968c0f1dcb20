"""Opens slides, their tumour maps and the truth in a browser on this machine, and trains on labels that are given there.

python scripts/view.py maps/                                  maps that infer.py wrote
python scripts/view.py report/                                methods of a comparison, side by side
python scripts/view.py maps/ other_maps/ --manifest my/slides.csv     with the truth, if the manifest names masks
python scripts/view.py --manifest my/slides.csv --features features/ --bundle BUNDLE     label slides, train, view the maps

The page has a table of all slides, and a view of each slide at up to full resolution with its map and outlines at any
threshold, up to four methods side by side, and a link to every view. It needs requirements-viewer.txt. Nothing leaves this
machine: the page is served on 127.0.0.1, and only to those who have the token in its address. Files are written only with
--bundle: labels, strokes, trained versions and their maps are then saved immediately in --work_dir, where labels.csv is the
manifest of the labelled slides.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from filelock import FileLock, Timeout

from scripts.options.interruption import exit_with
from scripts.options.numbers import PORT
from scripts.options.values import json_values
from shared.front_door import begin_script


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="folder of maps, or of a comparison")
    parser.add_argument("--manifest", type=Path, help="manifest with masks and labels; it may name slides without a map")
    learning = parser.add_argument_group("label and learn")
    learning.add_argument("--bundle", type=Path, help="folder of the bundle whose head is trained on the labels")
    learning.add_argument("--features", type=Path, help="folder of the slides' features, as written by embed.py")
    learning.add_argument(
        "--checkpoint", type=Path, help="initial weights (default: those of the bundle, or new ones if it has none)"
    )
    learning.add_argument(
        "--work_dir",
        type=Path,
        help="folder for labels and trainings (default: my/slides.labelled next to --manifest my/slides.csv)",
    )
    learning.add_argument(
        "--train_set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="key of train.json and its JSON value"
    )
    parser.add_argument("--port", type=PORT, default=0, help="port of the page (default: any free port)")
    parser.add_argument("--no_browser", action="store_true", help="print the address without opening a browser")
    return parser.parse_args()


def main() -> int:
    begin_script()
    arguments = parsed()
    if importlib.util.find_spec("bokeh") is None:
        raise ValueError("the page needs Bokeh: pip install -r requirements-viewer.txt -c constraints.txt")
    from scripts.viewer.cohort import open_cohort
    from scripts.viewer.server import serve

    check_learning(arguments)
    cohort = open_cohort(arguments.folders, arguments.manifest)
    if arguments.bundle is None:
        serve(cohort, arguments.port, opens_browser=not arguments.no_browser)
        return 0
    from scripts.viewer.labelling.learner import Learner, LearnerConfig

    work = work_dir(arguments)
    training = json_values(arguments.train_set)
    config = LearnerConfig(arguments.bundle, arguments.features.resolve(), work, arguments.checkpoint, training)
    work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(work / ".lock", timeout=0):
            learner = Learner(cohort, arguments.manifest, config)
            print(f"labels: {learner.labels.path}")
            serve(cohort, arguments.port, opens_browser=not arguments.no_browser, learner=learner)
    except Timeout:
        raise ValueError(f"another page uses --work_dir {work}: stop that page, or give this one another folder") from None
    return 0


def check_learning(arguments: argparse.Namespace) -> None:
    """Check that the options for labelling and learning come with those that they need.

    Raises:
        ValueError: naming the options that are missing or have no effect.
    """
    if arguments.bundle is None:
        given = [name for name in ("features", "checkpoint", "work_dir", "train_set") if getattr(arguments, name)]
        if given:
            raise ValueError(f"--{given[0]} needs --bundle, the folder of the bundle whose head is trained on the labels")
        return
    missing = [f"--{name}" for name in ("manifest", "features") if getattr(arguments, name) is None]
    if missing:
        raise ValueError(f"--bundle needs {' and '.join(missing)}: the slides to label, and their stored features")


def work_dir(arguments: argparse.Namespace) -> Path:
    """The folder for labels, versions and maps."""
    given: Path = arguments.work_dir or arguments.manifest.with_name(f"{arguments.manifest.stem}.labelled")
    return given.expanduser().resolve()


if __name__ == "__main__":
    exit_with(main)
