"""What a finished run of a sweep has scored: on the test images, and on the validation images in the epochs that it kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from monai.bundle import ConfigParser

from ..engines.run_record import CONFIG
from ..engines.stage import HISTORY


def metrics_in(file: Path) -> dict[str, Any]:
    """The scores in a ``metrics.json``.

    Raises:
        ValueError: naming the file, if it holds no JSON object.
    """
    try:
        return dict(json.loads(file.read_text()))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: expected the scores of a run as a JSON object; found something else ({error}). Delete the run's folder to "
            "train again"
        ) from error


def kept_validation(folder: Path) -> dict[str, float]:
    """Each stage's validation in the epoch whose weights it kept, as ``<stage>.val_<name>``.

    That is the last epoch, unless the run's ``config.json`` names a metric as the stage's ``keep_best``.
    """
    metrics: dict[str, float] = {}
    kept_by = _kept_by(folder / CONFIG)
    for file in sorted(folder.glob(f"*/{HISTORY}")):
        stage = file.parent.name
        row = kept_epoch(pd.read_csv(file, float_precision="round_trip"), kept_by.get(stage))
        metrics |= {f"{stage}.{name}": score for name, score in row.items() if str(name).startswith("val_")}
    return metrics


def kept_epoch(history: pd.DataFrame, keep_best: str | None) -> pd.Series:
    """The row of the epoch that a stage kept, as `shared.engines.Weights` says: of epochs that are equally good the last.

    >>> history = pd.DataFrame({"epoch": [1, 2, 3, 4], "val_iou": [0.5, 0.9, 0.9, float("nan")]})
    >>> int(kept_epoch(history, "val_iou")["epoch"]), int(kept_epoch(history, None)["epoch"])
    (3, 4)
    """
    if keep_best is None or keep_best not in history or history[keep_best].isna().all():
        return history.iloc[-1]
    return history[history[keep_best] == history[keep_best].max()].iloc[-1]


def _kept_by(config_file: Path) -> dict[str, str | None]:
    """Stage -> the validation metric by which it kept an epoch."""
    if not config_file.is_file():
        return {}
    config = json.loads(config_file.read_text())
    parser = ConfigParser(config)
    return {name: parser.get_parsed_content(f"{path}::weights::keep_best") for path, name in _stages(config)}


def _stages(items: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Path and name of each stage of a configuration that may keep another epoch than its last."""
    for key, item in items.items() if isinstance(items, Mapping) else ():
        inner = f"{path}::{key}" if path else key
        weights = item.get("weights") if isinstance(item, Mapping) else None
        if isinstance(weights, Mapping) and "keep_best" in weights and "name" in item:
            yield inner, str(item["name"])
        else:
            yield from _stages(item, inner)
