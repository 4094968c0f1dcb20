"""The paper's grid: alpha/beta MIL trained with 15 pairs of alpha and beta, drawn beside the published numbers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

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
# Lerousseau et al., MICCAI 2020, table 1: alpha -> AUC of each beta from 0 in steps of 0.2.
PUBLISHED = {
    "AUC, tissue": {
        "published, in distribution": {
            0.2: (0.786, 0.804, 0.749, 0.681, 0.566),
            0.4: (0.720, 0.726, 0.767, 0.685),
            0.6: (0.766, 0.758, 0.650),
            0.8: (0.589, 0.619),
            1.0: (0.256,),
        },
        "published, out of location": {
            0.2: (0.866, 0.732, 0.709, 0.583, 0.257),
            0.4: (0.783, 0.710, 0.762, 0.658),
            0.6: (0.790, 0.787, 0.673),
            0.8: (0.785, 0.695),
            1.0: (0.404,),
        },
    },
    "AUC with background": {
        "published, in distribution": {
            0.2: (0.964, 0.952, 0.960, 0.930, 0.874),
            0.4: (0.967, 0.953, 0.959, 0.935),
            0.6: (0.957, 0.960, 0.940),
            0.8: (0.946, 0.946),
            1.0: (0.926,),
        },
        "published, out of location": {
            0.2: (0.984, 0.974, 0.972, 0.958, 0.917),
            0.4: (0.980, 0.972, 0.978, 0.966),
            0.6: (0.981, 0.980, 0.968),
            0.8: (0.980, 0.970),
            1.0: (0.933,),
        },
    },
}


def grid(step: float = STEP) -> list[tuple[float, float]]:
    """Pairs of alpha and beta from 0 to 1 with alpha + beta <= 1, those with alpha 0 left out.

    >>> len(grid()), grid(0.5)
    (15, [(0.5, 0.0), (0.5, 0.5), (1.0, 0.0)])
    """
    count = round(1 / step)
    return [(round(a * step, 6), round(b * step, 6)) for a in range(1, count + 1) for b in range(count - a + 1)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config_file", nargs="+", default=["bundles/alpha_beta_mil/configs/train.json"])
    parser.add_argument("--step", type=float, default=STEP, help="of alpha and beta")
    parser.add_argument("--alphas", type=float, nargs="+", help="of the grid, only these")
    parser.add_argument("--betas", type=float, nargs="+", help="of the grid, only these")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="the same for every run")
    parser.add_argument("--output_dir", type=Path, required=True, help="gets a folder a run, sweep.csv and grid.png")


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
        results = _report(table, arguments.output_dir) if len(table) else {}
    return results


def _report(table: pd.DataFrame, folder: Path) -> dict[str, Any]:
    method = next(name.split(".")[1] for name in map(str, table) if name.startswith("slides."))
    columns = {score: name.format(method=method) for score, name in METRICS.items() if name.format(method=method) in table}
    summary = summarise(table, ["alpha", "beta", "seed"], list(columns.values()), over=["seed"])
    panels: dict[str, dict[str, Any]] = {}
    for score, column in columns.items():
        ours = {(row["alpha"], row["beta"]): row[f"{column} mean"] for row in summary.to_dict("records")}
        published = {
            source: {(alpha, round(STEP * index, 6)): value for alpha, row in rows.items() for index, value in enumerate(row)}
            for source, rows in PUBLISHED.get(score, {}).items()
        }
        panels[score] = {"ours": ours, **published}
    write_matrices(panels, folder / "grid.png", title="Alpha/beta MIL: ours beside Lerousseau et al. 2020 (other data)")
    names = {f"{column} {part}": f"{score} {part}" for score, column in columns.items() for part in ("mean", "std")}
    print(summary.rename(columns=names).to_string(index=False, float_format="%.3f"))
    print(f"{folder / 'grid.png'}")
    return {f"alpha {row['alpha']:g}, beta {row['beta']:g}": row for row in summary.rename(columns=names).to_dict("records")}
