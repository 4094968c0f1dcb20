"""Region F of a method that learns from areas, if these are stated too small or too large, or with random errors.

The keys are area_offset, the error of every image, and area_noise, the standard deviation of errors that differ by image.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.options.key_values import key_values
from scripts.options.numbers import SEED, number
from shared.sweeps.sweep import Sweep
from shared.sweeps.sweep_table import summarise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config_file", nargs="+", required=True, help="configuration files of the training, the bundle's train.json first"
    )
    parser.add_argument("--offsets", type=number(), nargs="+", default=[-0.2, -0.1, 0.0, 0.1, 0.2])
    parser.add_argument(
        "--noises", type=number(0), nargs="+", default=[0.0], help="standard deviations of random errors (default 0)"
    )
    parser.add_argument("--seeds", type=SEED, nargs="+", default=[0])
    parser.add_argument(
        "--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="set a key to this value in every run"
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for one subfolder per training")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train the unfinished runs; return means and deviations over seeds of region F and predicted area for every error.

    Offsets are tried without random errors, and random errors without an offset.
    """
    fixed = key_values(arguments.set)
    varied = {"area_offset": arguments.offsets, "area_noise": arguments.noises, "seed": arguments.seeds}
    if arguments.noises == [0.0]:
        del varied["area_noise"]
    elif 0 not in arguments.offsets:
        raise SystemExit(f"--noises needs the offset 0: add it to --offsets, found {arguments.offsets}")
    table = Sweep(arguments.config_file, varied, arguments.output_dir, fixed, allowed=_is_one_error).run()
    # The fusion is the last in the table, after the single outputs.
    scored = [name for name in map(str, table) if name.startswith("regions.") and name.endswith(".f_all")]
    if not scored:
        raise SystemExit("the runs have no region F: area-noise needs masks of the test images (truth: mask)")
    fusion = scored[-1].removesuffix(".f_all")
    metrics = [f"{fusion}.{score}" for score in ("f_all", "f_ca", "f_nc", "predicted_area_ca", "true_area_ca")]
    summary = summarise(table, list(varied), metrics, over=["seed"])
    print(summary.rename(columns=lambda name: name.removeprefix(f"{fusion}.")).to_string(index=False, float_format="%.4f"))
    return {_name(row): row for row in summary.to_dict("records")}


def _is_one_error(values: dict[str, Any]) -> bool:
    return not (values["area_offset"] and values.get("area_noise"))


def _name(row: Mapping[Any, Any]) -> str:
    return f"noise {row['area_noise']}" if row.get("area_noise") else str(row["area_offset"])
