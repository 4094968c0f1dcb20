"""Fixed fusion weights by cross-validation: the mean region F on the validation images of finished folds, for a grid of weights.

Nothing is trained: the side outputs of each fold's network are fused with all weights. The network needs side outputs and the key
fusion_weights, which takes the result.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from monai.bundle import ConfigWorkflow

from scripts.options.key_values import key_values
from scripts.options.numbers import number_above
from shared.calibration.fusion_weights import fusion_scores, weight_grid
from shared.engines.run_record import trained_with
from shared.writers.atomic import atomic_path

TABLE = "fusion_weights.csv"
MODEL = "model.pt"
# Keys of each run that define its split.
_OF_RUNS = ("num_folds", "fold")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config_file", nargs="+", required=True, help="the bundle's evaluate.json first, then the overlays of the training"
    )
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="output folders of the folds' trainings")
    parser.add_argument("--step", type=number_above(0), default=0.05, help="grid step of the weights (default 0.05)")
    parser.add_argument(
        "--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="set a key of the evaluation to a value"
    )
    parser.add_argument("--output_dir", type=Path, required=True, help=f"folder for {TABLE}")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Score every fold, write the table, and print the best weights and the score of the networks' own weights.

    Raises:
        ValueError: for a folder without a finished training, or networks with different side outputs.
    """
    given = key_values(arguments.set)
    means, current, weights = [], set(), None
    for folder in arguments.runs:
        if not (folder / MODEL).is_file():
            raise ValueError(f"{folder} contains no {MODEL}: give the output folders of finished trainings")
        evaluation = _evaluation(arguments.config_file, folder, given)
        network: Any = evaluation.get_parsed_content("network")
        weights = weight_grid(len(network.side_outputs), arguments.step) if weights is None else weights
        current.add(tuple(round(weight, 6) for weight in network.fusion_weights.tolist()))
        dataset, device = (evaluation.get_parsed_content(name) for name in ("scored_images", "device"))
        means.append(fusion_scores(dataset, network, weights, device))
    assert weights is not None
    scores = torch.stack(means)
    names = [f"weight_{index + 1}" for index in range(weights.shape[1])]
    table = pd.DataFrame(weights.double().round(decimals=6).numpy(), columns=names)
    table["region_f_mean"], table["region_f_std"] = scores.mean(0).numpy(), scores.std(0, correction=int(len(scores) > 1)).numpy()
    with atomic_path(arguments.output_dir / TABLE) as temporary:
        table.to_csv(temporary, index=False)
    best = table.loc[table["region_f_mean"].idxmax()].to_dict()
    shown = pd.concat([table.nlargest(5, "region_f_mean"), *(table[_is_of(table[names], used)] for used in sorted(current))])
    print(shown.drop_duplicates().to_string(index=False, float_format="%.4f"))
    print(f"{len(scores)} folds; the five best weights and those of the networks; all weights: {arguments.output_dir / TABLE}")
    return {"best": best, "networks": [list(used) for used in sorted(current)]}


def _evaluation(config_files: list[str], folder: Path, given: dict[str, Any]) -> Any:
    """The parsed evaluate.json of a run, on its validation images."""
    own = {name: trained_with(folder, name) for name in _OF_RUNS}
    options = {"output_dir": str(folder), "split": "val", **{name: value for name, value in own.items() if value is not None}}
    options["bundle_root"] = str(Path(config_files[0]).resolve().parents[1])
    workflow = ConfigWorkflow(config_file=config_files, workflow_type="infer", logging_file=False, **{**options, **given})
    workflow.initialize()
    workflow.parser.get_parsed_content("check_training")
    return workflow.parser


def _is_of(weights: pd.DataFrame, used: tuple[float, ...]) -> pd.Series:
    return (weights - list(used)).abs().max(axis=1) < 1e-6
