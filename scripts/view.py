"""Opens slides, their tumour maps and the truth in a browser on this machine, and trains from the labels that are given there.

python scripts/view.py maps/                                  what infer.py wrote
python scripts/view.py report/                                methods of a comparison side by side
python scripts/view.py maps/ other_maps/ --manifest my/slides.csv     with the truth, where the manifest names masks
python scripts/view.py --manifest my/slides.csv --features features/ --bundle bundles/alpha_beta_mil     label, train, look

A table of all slides; behind it each slide as deep as its pixels, the map over it with its outlines at any threshold, up to four
methods side by side, a link to every view. Needs requirements-viewer.txt. Nothing leaves this machine: the page is served on
127.0.0.1, to whoever gives the token in its address. Nothing is written either, except with --bundle: labels, strokes, trained
versions and their maps then lie in --work_dir, each saved as it is made. labels.csv in it is the manifest of what is labelled.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from filelock import FileLock, Timeout

from scripts.options.interruption import exit_with
from scripts.options.values import json_values
from shared.front_door import begin_script


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="of maps, or of a comparison")
    parser.add_argument("--manifest", type=Path, help="with masks, labels, and slides that are not mapped")
    learning = parser.add_argument_group("label and learn")
    learning.add_argument("--bundle", type=Path, help="folder of the bundle whose head is trained from the labels")
    learning.add_argument("--features", type=Path, help="of the slides, as embed.py stores them")
    learning.add_argument("--checkpoint", type=Path, help="to begin with (default: the bundle's, else new weights)")
    learning.add_argument("--work_dir", type=Path, help="(default: my/slides.labelled beside --manifest my/slides.csv)")
    learning.add_argument(
        "--train_set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="a key of train.json, as JSON"
    )
    parser.add_argument("--port", type=int, default=0, help="(default: a free one)")
    parser.add_argument("--no_browser", action="store_true", help="print the address alone")
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
        raise ValueError(f"another page uses --work_dir {work}: end it, or give this one a folder of its own") from None
    return 0


def check_learning(arguments: argparse.Namespace) -> None:
    """Refuse options of label and learn without those that they need.

    Raises:
        ValueError: naming them.
    """
    if arguments.bundle is None:
        given = [name for name in ("features", "checkpoint", "work_dir", "train_set") if getattr(arguments, name)]
        if given:
            raise ValueError(f"--{given[0]} needs --bundle: the bundle whose head is trained from labels")
        return
    missing = [f"--{name}" for name in ("manifest", "features") if getattr(arguments, name) is None]
    if missing:
        raise ValueError(f"--bundle needs {' and '.join(missing)}: the slides to be labelled, and their stored features")


def work_dir(arguments: argparse.Namespace) -> Path:
    """For labels, versions and maps."""
    given: Path = arguments.work_dir or arguments.manifest.with_name(f"{arguments.manifest.stem}.labelled")
    return given.expanduser().resolve()


if __name__ == "__main__":
    exit_with(main)
