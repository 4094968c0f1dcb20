"""The paper's grid: 15 trainings with different values of alpha and beta, plotted next to the published numbers.

If the test slides are of several groups, such as locations seen and not seen in training, grid.png has a panel for each group but
none for all slides, because each published number is for one group. locations.png has a panel for each location, if there are
several. maps.png shows the maps of two test slides for every pair, like the paper's figure 3. With --patch_camelyon every
training is also scored on PatchCamelyon.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from scripts.benchmarks.alpha_beta_maps import draw_maps
from scripts.benchmarks.alpha_beta_patches import patch_auc, score_on_patches
from scripts.declarations.published import bundle_of, published_rows, read_published
from scripts.options.key_values import key_values
from scripts.options.numbers import SEED, SHARE, number_above
from shared.data.public.patch_camelyon import PatchCamelyonDataset
from shared.sweeps.sweep import Sweep
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
PATCH_SCORE = "PatchCamelyon AUC"
# Of the metrics those that papers' rows have, as the rows call them.
PUBLISHED_SCORES = {"AUC, tissue": "auc_tissue", "AUC with background": "auc_all"}
LOCATION = "location "


def grid(step: float = STEP) -> list[tuple[float, float]]:
    """Pairs of alpha and beta from 0 to 1 with alpha + beta <= 1, without those with alpha 0.

    >>> len(grid()), grid(0.5)
    (15, [(0.5, 0.0), (0.5, 0.5), (1.0, 0.0)])
    """
    count = round(1 / step)
    return [(round(a * step, 6), round(b * step, 6)) for a in range(1, count + 1) for b in range(count - a + 1)]


def chosen_pairs(
    step: float = STEP, alphas: Sequence[float] | None = None, betas: Sequence[float] | None = None
) -> list[tuple[float, float]]:
    """The pairs of a grid with these alphas and betas; None for all of them.

    Raises:
        ValueError: for a value that is not on the grid.

    >>> chosen_pairs(0.5, betas=[0.5])
    [(0.5, 0.5)]
    """
    pairs = grid(step)
    for index, (name, values) in enumerate((("alphas", alphas), ("betas", betas))):
        known = sorted({pair[index] for pair in pairs})
        unknown = [value for value in values or () if value not in known]
        if unknown:
            raise ValueError(f"--{name}: expected values of the grid of step {step:g}, {known}; found {unknown[0]:g}")
    return [(alpha, beta) for alpha, beta in pairs if alpha in (alphas or [alpha]) and beta in (betas or [beta])]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config_file", nargs="+", required=True, help="configuration files of the training, the bundle's train.json first"
    )
    parser.add_argument("--step", type=number_above(0), default=STEP, help="grid step of alpha and beta")
    parser.add_argument("--alphas", type=SHARE, nargs="+", help="use only these alphas of the grid")
    parser.add_argument("--betas", type=SHARE, nargs="+", help="use only these betas of the grid")
    parser.add_argument("--seeds", type=SEED, nargs="+", default=[0])
    parser.add_argument(
        "--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="set a key to this value in every run"
    )
    parser.add_argument(
        "--patch_camelyon", type=Path, metavar="FOLDER", help="folder of PatchCamelyon's files, on which the runs are scored"
    )
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="folder for one subfolder per run, sweep.csv and the figures"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train the unfinished pairs one after the other, draw the matrices, and return means and deviations over seeds.

    Raises:
        ValueError: before anything is trained, for an alpha or beta that is not on the grid, and for a folder without patches.
    """
    pairs = chosen_pairs(arguments.step, arguments.alphas, arguments.betas)
    varied = {"alpha": sorted({a for a, _ in pairs}), "beta": sorted({b for _, b in pairs}), "seed": arguments.seeds}
    fixed = key_values(arguments.set)
    sweep = Sweep(
        arguments.config_file, varied, arguments.output_dir, fixed, allowed=lambda run: (run["alpha"], run["beta"]) in pairs
    )
    bundle = bundle_of(arguments.config_file)
    if arguments.patch_camelyon is not None:
        PatchCamelyonDataset(arguments.patch_camelyon)
    try:
        sweep.run()
        if arguments.patch_camelyon is not None:
            score_on_patches(_finished(sweep), bundle, arguments.patch_camelyon)
    finally:
        table, runs = sweep.table(), _finished(sweep)
        results = {}
        if runs:
            table[PATCH_SCORE] = [patch_auc(run) for run in runs]
            results = _report(table, arguments.output_dir, bundle)
            # With several seeds, the first finished one.
            of_pairs = dict(reversed(list(zip(zip(table["alpha"], table["beta"], strict=True), runs, strict=True))))
            draw_maps(of_pairs, arguments.output_dir / "maps.png")
            print(arguments.output_dir / "maps.png")
    return results


def _finished(sweep: Sweep) -> list[Path]:
    """Folders of the finished trainings, in the order of the table's rows."""
    return [sweep.folder(values) for values in sweep.combinations if sweep.is_finished(values)]


def _report(table: pd.DataFrame, folder: Path, bundle: Path) -> dict[str, Any]:
    method = next(name.split(".")[1] for name in map(str, table) if name.startswith("slides."))
    parts = parts_of(table, method)
    groups = [part for part in parts if part and not part.startswith(LOCATION)] or [""]
    columns = {
        (score, part): name.format(method=method + (f", {part}" if part else ""))
        for score, name in METRICS.items()
        for part in (*groups, *(part for part in parts if part.startswith(LOCATION)))
    }
    if table[PATCH_SCORE].notna().any():
        columns[PATCH_SCORE, ""] = PATCH_SCORE
    columns = {key: name for key, name in columns.items() if name in table}
    summary = summarise(table, ["alpha", "beta", "seed"], list(columns.values()), over=["seed"])
    published = published_grids(bundle)
    panels: dict[str, dict[str, Any]] = {}
    of_locations: dict[str, dict[str, Any]] = {}
    for (score, part), column in columns.items():
        ours = {(row["alpha"], row["beta"]): row[f"{column} mean"] for row in summary.to_dict("records")}
        if part.startswith(LOCATION):
            of_locations.setdefault(score, {})[part.removeprefix(LOCATION)] = ours
        else:
            panels.setdefault(score, {})[f"measured, {part.replace('_', ' ')}" if part else "measured"] = ours
    for score, measured in panels.items():
        measured |= published.get(score, {})
    write_matrices(panels, folder / "grid.png", title=f"{method}: measured here and published (on other data)")
    if of_locations:
        write_matrices(of_locations, folder / "locations.png", title=f"{method}: test slides of each location")
    names = {
        f"{column} {statistic}": f"{score}{f', {part}' if part else ''} {statistic}"
        for (score, part), column in columns.items()
        for statistic in ("mean", "std")
    }
    print(summary.rename(columns=names).to_string(index=False, float_format="%.3f"))
    print(_over_pairs(summary, columns))
    for name in ("grid.png", *(["locations.png"] if of_locations else [])):
        print(folder / name)
    return {f"alpha {row['alpha']:g}, beta {row['beta']:g}": row for row in summary.rename(columns=names).to_dict("records")}


def published_grids(bundle: Path) -> dict[str, dict[str, dict[tuple[float, float], float]]]:
    """Score -> source -> pair of alpha and beta -> the published value."""
    found: dict[str, dict[str, dict[tuple[float, float], float]]] = {}
    for data in read_published(bundle).values():
        for score, source, pair, value in _published_pairs(data, bundle):
            found.setdefault(score, {}).setdefault(source, {})[pair] = value
        for score, sources in data.get("grid", {}).items():
            # Source -> alpha -> values for beta from 0 in steps of 0.2.
            for source, rows in sources.items():
                pairs = found.setdefault(score, {}).setdefault(source, {})
                pairs |= {(float(alpha), round(STEP * i, 6)): value for alpha, row in rows.items() for i, value in enumerate(row)}
    return found


def _published_pairs(data: Mapping[str, Any], bundle: Path) -> Iterator[tuple[str, str, tuple[float, float], float]]:
    """Score, source, pair of alpha and beta, and value, of the papers' rows that say their pair."""
    for row in published_rows(data, bundle.name):
        if "alpha" in row.settings and "beta" in row.settings:
            pair = (float(row.settings["alpha"]), float(row.settings["beta"]))
            source = f"published, {row.group.replace('_', ' ')}" if row.group else "published"
            yield from ((title, source, pair, row.scores[name]) for title, name in PUBLISHED_SCORES.items() if name in row.scores)


def _over_pairs(summary: pd.DataFrame, columns: Mapping[tuple[str, str], str]) -> str:
    """Mean and population standard deviation of each score over the pairs, as in the paper's section 4."""
    lines = [f"over {len(summary)} pairs of alpha and beta:"]
    for (score, part), column in columns.items():
        values = summary[f"{column} mean"]
        lines.append(f"  {score}{f', {part}' if part else ''}: {values.mean():.3f} +- {values.std(ddof=0):.3f}")
    return "\n".join(lines)


def parts_of(table: pd.DataFrame, method: str) -> list[str]:
    """Groups and locations of test slides that have their own scores.

    >>> parts_of(pd.DataFrame(columns=["slides.MIL.auc", "slides.MIL, in.auc", "slides.MIL, location lung.auc"]), "MIL")
    ['in', 'location lung']
    """
    start, end = f"slides.{method}, ", ".auc"
    return [name.removeprefix(start).removesuffix(end) for name in map(str, table) if name.startswith(start)]
