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
    summary = grouped[list(metrics)].agg(["mean", "std"])
    summary.columns = [" ".join(column) for column in summary.columns]
    summary.insert(0, "runs", grouped.size())
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
    """The row of a summary whose mean of a metric is largest, the first of equal ones.

    Raises:
        ValueError: if no row has a mean.
    """
    means = summary[f"{metric} mean"]
    if means.isna().all():
        raise ValueError(f"{metric} has no value in any run, so nothing can be chosen by it")
    return summary.loc[[means.idxmax()]]


def print_rows(rows: pd.DataFrame) -> None:
    """Print a table for a person."""
    print(rows.to_string(index=False, float_format="%.4f"), flush=True)
