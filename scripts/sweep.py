"""Trains a bundle with several values of some keys - folds, seeds, weights - and tabulates the results. Restartable.

python scripts/sweep.py --config_file bundles/cdws_mil/configs/train.json --vary seed 0 1 2 --over seed --output_dir runs/seeds
python scripts/sweep.py --config_file bundles/cdws_mil/configs/train.json bundles/cdws_mil/configs/five_fold.json \\
    --vary etas "[1, 2, 4]" "[2.5, 5, 10]" "[5, 10, 20]" --vary fold 0 1 2 3 4 --over fold --output_dir runs/etas
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shared.engines.sweep import Sweep, summarise


def value(text: str) -> Any:
    """A JSON value where the text is one, else the text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config_file", nargs="+", required=True, help="train.json and its overlays")
    parser.add_argument(
        "--vary", nargs="+", action="append", required=True, metavar=("KEY", "VALUE"), help="a key and its values"
    )
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="the same for every run")
    parser.add_argument("--over", nargs="+", default=[], metavar="KEY", help="keys to take means over: folds, seeds")
    parser.add_argument("--metric", nargs="+", default=[], help="columns of sweep.csv to summarise; default: F and IoU")
    parser.add_argument("--output_dir", type=Path, required=True)
    arguments = parser.parse_args()
    varied = {name: [value(text) for text in values] for name, *values in arguments.vary}
    sweep = Sweep(arguments.config_file, varied, arguments.output_dir, {name: value(text) for name, text in arguments.set})
    try:
        sweep.run()
    finally:
        table = sweep.table()
        if len(table):
            metrics = arguments.metric or [name for name in map(str, table) if name.endswith((".f_all", ".ods", ".iou"))]
            print(summarise(table, list(varied), metrics, arguments.over).to_string(index=False, float_format="%.4f"))


if __name__ == "__main__":
    main()
