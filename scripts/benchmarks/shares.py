"""Few masks and many labels (keys mode and masked_share): how many masks buy which score, with and without labelled images."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from scripts.declarations.published import bundle_of, read_published
from shared.data.labels.supervision import MODES
from shared.sweeps.sweep import Sweep, parse_value
from shared.sweeps.sweep_table import summarise
from shared.writers.figures.bands import Band, write_bands

# Name of a line -> share of the masks -> score.
Published = Mapping[str, Mapping[float, float]]
# Ciga and Martel, section 3.3, without 0: a network that was trained with labels alone has seen no mask.
SHARES = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)
SCORES = {
    "BACH score": "bach_score",
    "Foreground accuracy": "foreground_accuracy",
    "Macro F1": "macro_f1",
    "Weighted F1": "weighted_f1",
    "Accuracy": "accuracy",
    "Mean IoU": "mean_iou",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config_file", nargs="+", required=True, help="configuration files of the training, the bundle's train.json first"
    )
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES), help="shares of the masked images, above 0")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="a key that has this value in every run"
    )
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="folder for one subfolder per run, sweep.csv and shares.png"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train what is not finished; draw every score against the share; return means and deviations over seeds.

    In every run the epoch is chosen on validation images, never on those of the evaluation. S+C with all masks is S: it has no
    labelled images left, and is trained once.
    """
    if min(arguments.shares) <= 0 or max(arguments.shares) > 1:
        raise ValueError(f"shares must be above 0 and at most 1; got {arguments.shares}")
    fixed = {name: parse_value(text) for name, text in arguments.set}
    varied = {"seed": arguments.seeds, "masked_share": sorted(arguments.shares), "mode": arguments.modes}
    sweep = Sweep(arguments.config_file, varied, arguments.output_dir, fixed, allowed=lambda values: _is_new(values, varied))
    try:
        sweep.run()
    finally:
        table = sweep.table()
        is_scored = any(str(column).startswith("class_pixels.") for column in table)
        results = _report(table, arguments.output_dir, published_shares(arguments.config_file)) if is_scored else {}
    if not results:
        raise ValueError(
            "the runs have no scores of pixels: shares needs masks of the test images (truth: mask), and the default method"
        )
    return results


def published_shares(config_files: Sequence[str]) -> Published:
    """The published shares of the bundle, unless a configuration is for other data."""
    overlays = {Path(file).stem for file in config_files} - {"train"}
    return {
        f"{mode} (published, {overlay})": {float(share): score for share, score in scores.items()}
        for overlay, data in read_published(bundle_of(config_files)).items()
        if overlays <= {overlay}
        for mode, scores in data.get("shares", {}).items()
    }


def _is_new(values: dict[str, Any], varied: dict[str, list[Any]]) -> bool:
    return not (values["mode"] == "S+C" and values["masked_share"] == 1 and "S" in varied["mode"])


def _report(table: pd.DataFrame, folder: Path, published: Published) -> dict[str, Any]:
    # A run's scores stand under its mode: a column for each.
    scores = {
        name: [f"class_pixels.{mode}.{score}" for mode in MODES if f"class_pixels.{mode}.{score}" in table]
        for name, score in SCORES.items()
    }
    for name, columns in scores.items():
        table[name] = table[columns].bfill(axis=1).iloc[:, 0]
    if "S" in set(table["mode"]) and "S+C" in set(table["mode"]):
        whole = table[(table["mode"] == "S") & (table["masked_share"] == 1)].assign(mode="S+C")
        table = pd.concat([table, whole], ignore_index=True)
    summary = summarise(table, ["mode", "masked_share", "seed"], list(SCORES), over=["seed"])
    write_bands(
        _panels(summary, published), folder / "shares.png", "share of the masked images", title="mean and deviation over seeds"
    )
    print(summary.to_string(index=False, float_format="%.3f"))
    print(folder / "shares.png")
    return {f"{row['mode']}, {row['masked_share']:g}": row for row in summary.to_dict("records")}


def _panels(summary: pd.DataFrame, published: Published) -> dict[str, dict[str, Band]]:
    """Each score as it is, and as a share of what S reaches with all masks, as in the paper's figure 3."""
    panels: dict[str, dict[str, Band]] = {}
    for name in SCORES:
        whole = summary[(summary["mode"] == "S") & (summary["masked_share"] == 1)][f"{name} mean"]
        for title, scale in ((name, 1.0), (f"{name}, of S with all masks", float(whole.iloc[0]) if len(whole) else None)):
            if scale is None:
                continue
            panels[title] = {
                str(mode): Band(*(rows[column].tolist() for column in ("masked_share", "mean", "std")))
                for mode, rows in _scaled(summary, name, scale).groupby("mode", sort=False)
            }
    panels["BACH score"] |= {name: Band(list(scores), list(scores.values())) for name, scores in published.items()}
    return panels


def _scaled(summary: pd.DataFrame, score: str, scale: float) -> pd.DataFrame:
    columns = {part: summary[f"{score} {part}"] / scale for part in ("mean", "std")}
    return summary[["mode", "masked_share"]].assign(**columns).sort_values("masked_share", kind="stable")
