"""The paper's grid: 15 trainings with different values of alpha and beta, plotted next to the published numbers.

Test slides of several groups, such as those of the training's locations and of others, have a panel each; pooled they have
none, because the published numbers are of one group or the other.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from scripts.declarations.published import bundle_of, read_published
from shared.sweeps.sweep import Sweep, parse_value
from shared.sweeps.sweep_table import summarise
from shared.writers.figures.matrices import write_matrices

STEP = 0.2
METRICS = {
    "AUC, tissue": "pixels_tissue.{method}.auc",
    "AUC with background": "pixels_all.{method}.auc",
    "Precision": "pixels_tissue.{method}.precision",
    "Recall": "pixels_tissue.{method}.sensitivity",
    "Slide AUC": "slides.{method}.auc",
}


def grid(step: float = STEP) -> list[tuple[float, float]]:
    """Pairs of alpha and beta from 0 to 1 with alpha + beta <= 1, those with alpha 0 left out.

    >>> len(grid()), grid(0.5)
    (15, [(0.5, 0.0), (0.5, 0.5), (1.0, 0.0)])
    """
    count = round(1 / step)
    return [(round(a * step, 6), round(b * step, 6)) for a in range(1, count + 1) for b in range(count - a + 1)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config_file", nargs="+", required=True, help="configuration files of the training, the bundle's train.json first"
    )
    parser.add_argument("--step", type=float, default=STEP, help="grid step of alpha and beta")
    parser.add_argument("--alphas", type=float, nargs="+", help="only these alphas of the grid")
    parser.add_argument("--betas", type=float, nargs="+", help="only these betas of the grid")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="a key that has this value in every run"
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for one subfolder per run, sweep.csv and grid.png")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train what is not finished, one pair after the other; draw the matrices; return means and deviations over seeds."""
    pairs = [
        (alpha, beta)
        for alpha, beta in grid(arguments.step)
        if alpha in (arguments.alphas or [alpha]) and beta in (arguments.betas or [beta])
    ]
    varied = {"alpha": sorted({a for a, _ in pairs}), "beta": sorted({b for _, b in pairs}), "seed": arguments.seeds}
    fixed = {name: parse_value(text) for name, text in arguments.set}
    sweep = Sweep(
        arguments.config_file, varied, arguments.output_dir, fixed, allowed=lambda run: (run["alpha"], run["beta"]) in pairs
    )
    try:
        sweep.run()
    finally:
        table = sweep.table()
        results = _report(table, arguments.output_dir, bundle_of(arguments.config_file)) if len(table) else {}
    return results


def _report(table: pd.DataFrame, folder: Path, bundle: Path) -> dict[str, Any]:
    method = next(name.split(".")[1] for name in map(str, table) if name.startswith("slides."))
    groups = groups_of(table, method)
    columns = {
        (score, group): name.format(method=method + (f", {group}" if group else ""))
        for score, name in METRICS.items()
        for group in groups
    }
    columns = {key: name for key, name in columns.items() if name in table}
    summary = summarise(table, ["alpha", "beta", "seed"], list(columns.values()), over=["seed"])
    # Of each score and source: alpha -> the value for each beta from 0 in steps of 0.2.
    grids = [data["grid"] for data in read_published(bundle).values() if "grid" in data]
    panels: dict[str, dict[str, Any]] = {}
    for (score, group), column in columns.items():
        ours = {(row["alpha"], row["beta"]): row[f"{column} mean"] for row in summary.to_dict("records")}
        panels.setdefault(score, {})[f"measured, {group.replace('_', ' ')}" if group else "measured"] = ours
    for score, measured in panels.items():
        for source, rows in (item for found in grids for item in found.get(score, {}).items()):
            measured[source] = {
                (float(alpha), round(STEP * i, 6)): value for alpha, row in rows.items() for i, value in enumerate(row)
            }
    write_matrices(panels, folder / "grid.png", title=f"{method}: measured here and published (on other data)")
    names = {
        f"{column} {part}": f"{score}{f', {group}' if group else ''} {part}"
        for (score, group), column in columns.items()
        for part in ("mean", "std")
    }
    print(summary.rename(columns=names).to_string(index=False, float_format="%.3f"))
    print(f"{folder / 'grid.png'}")
    return {f"alpha {row['alpha']:g}, beta {row['beta']:g}": row for row in summary.rename(columns=names).to_dict("records")}


def groups_of(table: pd.DataFrame, method: str) -> list[str]:
    """Groups of test slides that have their own scores; a single empty name where there are none.

    >>> groups_of(pd.DataFrame(columns=["slides.MIL.auc", "slides.MIL, in.auc", "slides.MIL, out.auc"]), "MIL")
    ['in', 'out']
    >>> groups_of(pd.DataFrame(columns=["slides.MIL.auc"]), "MIL")
    ['']
    """
    start, end = f"slides.{method}, ", ".auc"
    return [name.removeprefix(start).removesuffix(end) for name in map(str, table) if name.startswith(start)] or [""]
