"""Trains a bundle with several values of some keys - folds, seeds, weights - and tabulates the results. Resumable.

python scripts/sweep.py --config_file bundles/cdws_mil/configs/train.json --vary seed 0 1 2 --over seed --output_dir runs/seeds
python scripts/sweep.py --config_file bundles/cdws_mil/configs/train.json bundles/cdws_mil/configs/five_fold.json \\
    --one_at_a_time --vary eta_3 10 5 20 --vary eta_fuse 10 5 20 --vary fold 0 1 2 3 4 --over fold \\
    --set keep_best null --choose segmentation.val_region_f --output_dir runs/etas

A validation metric is that of the epoch whose weights a stage kept (keep_best), or else of its last one. A mean that is not of
all runs of a row says of how many it is, and no such row is chosen. Runs on a manifest that has changed since are refused.

With --one_at_a_time each key is varied alone: the others keep the first of their values, and --choose reports the best value
of each key; overlays count as one. --overlays trains with each of several configurations of the bundle, such as the variants in
a paper's table:

python scripts/sweep.py --config_file bundles/cdws_mil/configs/train.json --overlays none dws dws+superpixels \\
    --vary training_share 0.2 1 --output_dir runs/variants
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.options.key_values import key_values
from shared.front_door import begin_script

# How the names of the columns end that are summarised if none are named: of the first line with any.
DEFAULT_METRICS = ((".f_all", ".ods", ".iou"), (".auc",))


def parsed() -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config_file", nargs="+", required=True, help="train.json and its overlays")
    parser.add_argument(
        "--vary", nargs="+", action="append", default=[], metavar=("KEY", "VALUE"), help="a key and the values to try"
    )
    parser.add_argument(
        "--overlays", nargs="+", help="overlays to give after --config_file, joined by plus signs, or none; they are varied too"
    )
    parser.add_argument(
        "--one_at_a_time",
        action="store_true",
        help="vary each key, and the overlays, alone, with the others at the first of their values",
    )
    parser.add_argument(
        "--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="a key that has this value in every run"
    )
    parser.add_argument("--over", nargs="+", default=[], metavar="KEY", help="keys to average over, such as fold or seed")
    parser.add_argument(
        "--metric", nargs="+", default=[], help="columns of sweep.csv to summarise (default: F and IoU, or else AUC)"
    )
    parser.add_argument(
        "--choose",
        metavar="METRIC",
        help="report which values have the largest mean of this validation metric (<stage>.val_<name>)",
    )
    parser.add_argument("--output_dir", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.choose is not None and ".val_" not in arguments.choose:
        parser.error(
            "--choose expects a validation metric, <stage>.val_<name>, because nothing may be chosen on test images; got "
            f"{arguments.choose}"
        )
    for option, names in (("vary", [name for name, *_ in arguments.vary]), ("set", [name for name, _ in arguments.set])):
        repeated = [name for name, times in Counter(names).items() if times > 1]
        if repeated:
            parser.error(f"--{option} names the key {repeated[0]!r} several times, and only the last would count: give it once")
    both = [name for name, _ in arguments.set if name in {name for name, *_ in arguments.vary}]
    if both:
        parser.error(f"--set {both[0]} would have no effect, because --vary {both[0]} changes this key: leave out one of them")
    if not arguments.vary and not arguments.overlays:
        parser.error("nothing varies: give --vary KEY VALUE ..., or --overlays")
    return arguments, parser


def one_at_a_time(varied: dict[str, list[Any]], over: list[str]) -> Callable[[dict[str, Any]], bool]:
    """Whether at most one key of a run, those of `over` aside, has another value than its first."""

    def is_allowed(values: dict[str, Any]) -> bool:
        return sum(values[name] != all_values[0] for name, all_values in varied.items() if name not in over) <= 1

    return is_allowed


def main() -> None:
    begin_script()
    arguments, parser = parsed()
    # Takes seconds to import, which --help and wrong options need not wait for.
    from shared.sweeps.sweep import OVERLAYS, Sweep, parse_value
    from shared.sweeps.sweep_table import best_row, check_over, left_out, print_rows, summarise, varied_alone

    varied = {name: [parse_value(text) for text in values] for name, *values in arguments.vary}
    try:
        fixed = key_values(arguments.set)
        overlays = {OVERLAYS: arguments.overlays} if arguments.overlays else {}
        allowed = one_at_a_time({**overlays, **varied}, arguments.over) if arguments.one_at_a_time else None
        sweep = Sweep(arguments.config_file, varied, arguments.output_dir, fixed, allowed, overlays=arguments.overlays)
        keys = list(sweep.varied)
        check_over(keys, arguments.over)
        sweep.check()
    except ValueError as error:
        parser.error(str(error))
    try:
        sweep.run()
    except BaseException:
        # What ended the sweep is its error, also where the runs so far cannot be shown.
        try:
            show(sweep.table(), keys, arguments.metric, arguments.over)
        except ValueError as problem:
            print(f"the finished runs cannot be shown: {problem}", file=sys.stderr)
        raise
    table = sweep.table()
    metrics = show(table, keys, arguments.metric, arguments.over)
    if arguments.choose is not None:
        names = [arguments.choose, *(name for name in metrics if name != arguments.choose)]
        print(f"\nLargest {arguments.choose} on validation images; the other scores are measured on the test images:")
        for key in [key for key in keys if key not in arguments.over] if arguments.one_at_a_time else [None]:
            compared = table if key is None else varied_alone(table, keys, key, arguments.over)
            if key is not None:
                print(f"{key}:")
            summary = summarise(compared, keys, names, arguments.over)
            print_rows(best_row(summary, arguments.choose))
            for line in left_out(summary, arguments.choose):
                print(line)


def show(table: pd.DataFrame, keys: list[str], metrics: list[str], over: list[str]) -> list[str]:
    """Print the means of some metrics of the finished runs, or those of `DEFAULT_METRICS`; return their names.

    Raises:
        ValueError: for a metric that the runs do not have, naming those that they have.
    """
    from shared.sweeps.sweep_table import print_rows, summarise

    if not len(table):
        return metrics
    columns = [name for name in map(str, table) if name not in keys]
    found = [[name for name in columns if name.endswith(endings)] for endings in DEFAULT_METRICS]
    metrics = metrics or next(filter(None, found), [])
    if metrics:
        print_rows(summarise(table, keys, metrics, over))
    else:
        print_rows(table[keys])
        print(f"no column of sweep.csv is an F, IoU or AUC; give --metric, of {', '.join(columns)}", flush=True)
    return metrics


if __name__ == "__main__":
    main()
