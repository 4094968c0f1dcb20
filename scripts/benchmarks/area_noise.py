"""Region F of a method that learns from areas (key area_offset), with areas that an annotator gives too small or too large."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from shared.sweeps.sweep import Sweep, parse_value
from shared.sweeps.sweep_table import summarise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config_file", nargs="+", required=True, help="configuration files of the training, the bundle's train.json first"
    )
    parser.add_argument("--offsets", type=float, nargs="+", default=[-0.2, -0.1, 0.0, 0.1, 0.2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="a key that has this value in every run"
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for one subfolder per training")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Region F and predicted area for every bias of the areas, mean and deviation over seeds; trains what is not finished."""
    fixed = {name: parse_value(text) for name, text in arguments.set}
    varied = {"area_offset": arguments.offsets, "seed": arguments.seeds}
    table = Sweep(arguments.config_file, varied, arguments.output_dir, fixed).run()
    # Of the fusion, which the table names last: single outputs stand before it.
    scored = [name for name in map(str, table) if name.startswith("regions.") and name.endswith(".f_all")]
    if not scored:
        raise SystemExit("the runs have no region F: area-noise needs masks of the test images (truth: mask)")
    fusion = scored[-1].removesuffix(".f_all")
    metrics = [f"{fusion}.{score}" for score in ("f_all", "f_ca", "f_nc", "predicted_area_ca", "true_area_ca")]
    summary = summarise(table, list(varied), metrics, over=["seed"])
    print(summary.rename(columns=lambda name: name.removeprefix(f"{fusion}.")).to_string(index=False, float_format="%.4f"))
    rows = summary.to_dict("records")
    return {str(row["area_offset"]): row for row in rows}
