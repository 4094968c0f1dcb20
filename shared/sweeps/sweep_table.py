"""Means over the runs of a sweep, and the choice among its values."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd


def summarise(table: pd.DataFrame, keys: Sequence[str], metrics: Sequence[str], over: Sequence[str] = ()) -> pd.DataFrame:
    """Mean and standard deviation of some metrics over the runs that differ in `over` only.

    Args:
        table: of a `Sweep`.
        keys: that were varied.
        metrics: columns of the table.
        over: keys whose runs are repetitions of one another: folds, seeds.

    Returns:
        a row per combination of the other keys, with ``runs``, and each metric's ``mean`` and ``std`` (of a sample; NaN of one).
        A metric that some runs do not have is followed by ``of``, the number of runs that its mean and std are of.

    Raises:
        ValueError: for a metric that the table does not have, naming those that it has, or a key that was not varied.
    """
    check_over(keys, over)
    missing = [name for name in metrics if name not in table]
    if missing:
        raise ValueError(
            f"there is no metric {', '.join(missing)}; the columns are {', '.join(str(c) for c in table if c not in keys)}"
        )
    groups = [name for name in keys if name not in over]
    grouped = table.groupby(groups, sort=False) if groups else table.groupby(lambda _: 0)
    summary = pd.DataFrame({"runs": grouped.size()})
    for name in dict.fromkeys(metrics):
        summary[[f"{name} mean", f"{name} std"]] = grouped[name].agg(["mean", "std"])
        known = grouped[name].count()
        if (known < summary["runs"]).any():
            summary[f"{name} of"] = known
    return summary.reset_index() if groups else summary.reset_index(drop=True)


def check_over(keys: Sequence[str], over: Sequence[str]) -> None:
    """Check that means are taken over keys that were varied.

    Raises:
        ValueError: naming a key that was not.
    """
    unknown = [name for name in over if name not in keys]
    if unknown:
        raise ValueError(f"cannot average over {', '.join(unknown)}: the varied keys are {', '.join(keys)}")


def varied_alone(table: pd.DataFrame, keys: Sequence[str], key: str, over: Sequence[str] = ()) -> pd.DataFrame:
    """The runs of a table in which `key` alone differs from the first run: all others have their values of that run.

    Args:
        table: of a `Sweep`.
        keys: that were varied.
        key: one of them.
        over: keys whose runs are repetitions of one another, which differ as they like.

    >>> runs = pd.DataFrame({"a": [1, 2, 1], "b": [5, 5, 6]})
    >>> varied_alone(runs, ["a", "b"], "b")["b"].tolist()
    [5, 6]
    """
    others = [name for name in keys if name not in (key, *over)]
    kept = pd.Series(True, index=table.index)
    for name in others:
        kept &= table[name] == table[name].iloc[0]
    return table[kept]


def best_row(summary: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The row of a summary whose mean of a metric is largest, the first of equal ones, of those in which all runs have it.

    Raises:
        ValueError: if there is no such row.
    """
    means = summary[f"{metric} mean"]
    if means.isna().all():
        raise ValueError(f"{metric} has no value in any run, so nothing can be chosen by it")
    whole = ~_is_known_in_part(summary, metric)
    if not whole.any():
        raise ValueError(f"some runs of every row have no {metric}, so the means are of different runs and none can be chosen")
    return summary.loc[[means[whole].idxmax()]]


def left_out(summary: pd.DataFrame, metric: str) -> list[str]:
    """The rows of a summary that `best_row` leaves out, a line each.

    >>> left_out(pd.DataFrame({"a": [1, 2], "runs": [3, 3], "val_f mean": [0.6, 0.9], "val_f of": [3, 1]}), "val_f")
    ['left out: a 2, of which only 1 of 3 runs have val_f']
    """
    keys = list(summary)[: list(summary).index("runs")]
    return [
        f"left out: {', '.join(f'{key} {row[key]}' for key in keys)}, of which only {row[f'{metric} of']} of {row['runs']} runs "
        f"have {metric}"
        for row in summary[_is_known_in_part(summary, metric)].to_dict("records")
    ]


def _is_known_in_part(summary: pd.DataFrame, metric: str) -> pd.Series:
    """Which rows of a summary have runs without a metric: their mean is of other runs than that of the others."""
    return summary.get(f"{metric} of", summary["runs"]) < summary["runs"]


def print_rows(rows: pd.DataFrame) -> None:
    """Print a table for a person."""
    print(rows.to_string(index=False, float_format="%.4f"), flush=True)
