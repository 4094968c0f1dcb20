"""Opens slides, their tumour maps and the truth in a browser on this machine.

python scripts/view.py maps/                                  what infer.py wrote
python scripts/view.py report/                                methods of a comparison side by side
python scripts/view.py maps/ other_maps/ --manifest my/slides.csv     with the truth, if the manifest names masks

The page has a table of all slides and a view of each slide at up to full resolution, with its map and outlines at any
threshold, up to four methods side by side, and a link to every view. It needs requirements-viewer.txt. Nothing is written and
nothing leaves this machine: the page is served on 127.0.0.1, to anyone who has the token in its address.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.options.interruption import exit_with
from shared.front_door import begin_script


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="folder of maps, or of a comparison")
    parser.add_argument("--manifest", type=Path, help="manifest with masks and labels, and with slides that have no map yet")
    parser.add_argument("--port", type=int, default=0, help="port of the page (default: any free port)")
    parser.add_argument("--no_browser", action="store_true", help="only print the address, do not open a browser")
    return parser.parse_args()


def main() -> int:
    begin_script()
    arguments = parsed()
    if importlib.util.find_spec("bokeh") is None:
        raise ValueError("the page needs Bokeh: pip install -r requirements-viewer.txt -c constraints.txt")
    from scripts.viewer.cohort import open_cohort
    from scripts.viewer.server import serve

    serve(open_cohort(arguments.folders, arguments.manifest), arguments.port, opens_browser=not arguments.no_browser)
    return 0


if __name__ == "__main__":
    exit_with(main)
