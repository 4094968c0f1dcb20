"""One configuration trained with several values of some of its keys: folds, seeds, weights, annotators' biases."""

from __future__ import annotations

import itertools
import json
import logging
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from ..writers import atomic_path

logger = logging.getLogger(__name__)

TABLE = "sweep.csv"
LOG = "log.txt"
METRICS = Path("evaluation") / "metrics.json"


class Sweep:
    """Trains every combination of values, one after the other, each as a process of its own with a folder of its own.

    A run that is finished (its ``evaluation/metrics.json`` is there) is not repeated, one that was interrupted goes on, and one
    that fails does not stop the others. All runs share one MLflow database, ``<output_dir>/mlruns.db``, unless `fixed` names
    another ``tracking_uri``.

    Args:
        config_files: of the training and its overlays, as for ``python -m monai.bundle run``.
        varied: key of the configuration -> its values; the last key changes fastest.
        output_dir: gets a folder a run, named after its values, and ``sweep.csv``.
        fixed: other keys and their values, the same for every run.
    """

    def __init__(
        self,
        config_files: Sequence[str],
        varied: Mapping[str, Sequence[Any]],
        output_dir: str | Path,
        fixed: Mapping[str, Any] | None = None,
    ) -> None:
        if not varied or not all(varied.values()):
            raise ValueError(f"a sweep needs at least one key with at least one value, got {dict(varied)}")
        self.config_files, self.varied = list(config_files), {name: list(values) for name, values in varied.items()}
        self.output_dir = Path(output_dir).resolve()
        self.fixed = {"tracking_uri": f"sqlite:///{self.output_dir}/mlruns.db", **(fixed or {})}

    @property
    def combinations(self) -> list[dict[str, Any]]:
        """The values of every run."""
        return [dict(zip(self.varied, values, strict=True)) for values in itertools.product(*self.varied.values())]

    def folder(self, values: Mapping[str, Any]) -> Path:
        """Of the run with these values.

        >>> Sweep(["train.json"], {"fold": [0], "etas": [[1, 2]]}, "/out").folder({"fold": 0, "etas": [1, 2]}).name
        'fold=0,etas=1-2'
        """
        names = (f"{name.replace('::', '.')}={_file_name(value)}" for name, value in values.items())
        return self.output_dir / ",".join(names)

    def command(self, values: Mapping[str, Any]) -> list[str]:
        """The command line of one run."""
        files = self.config_files[0] if len(self.config_files) == 1 else str(self.config_files)
        options = {"config_file": files, **self.fixed, **values, "output_dir": self.folder(values)}
        named = (text for name, value in options.items() for text in (f"--{name}", _argument(value)))
        return [sys.executable, "-m", "monai.bundle", "run", *named]

    def run(self) -> pd.DataFrame:
        """Train what is not finished; write and return the table.

        Raises:
            RuntimeError: at the end, naming the runs that failed and where they say why.
        """
        failed = []
        for values in tqdm(self.combinations, desc="sweep", unit="run", disable=None):
            folder = self.folder(values)
            if (folder / METRICS).is_file():
                logger.info(f"{folder.name} is finished: skipped")
                continue
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / LOG).open("a") as log:
                code = subprocess.run(self.command(values), stdout=log, stderr=subprocess.STDOUT, check=False).returncode
            if code or not (folder / METRICS).is_file():
                failed.append(f"{folder.name}: exit status {code}, see {folder / LOG}")
        table = self.table()
        with atomic_path(self.output_dir / TABLE) as temporary:
            table.to_csv(temporary, index=False)
        if failed:
            raise RuntimeError(f"{len(failed)} of {len(self.combinations)} runs failed:\n" + "\n".join(failed))
        return table

    def table(self) -> pd.DataFrame:
        """A row a finished run: its values, and its metrics by their names in ``metrics.json`` joined by dots."""
        rows = []
        for values in self.combinations:
            file = self.folder(values) / METRICS
            if file.is_file():
                shown = {
                    name: value if isinstance(value, (int, float, str)) else json.dumps(value) for name, value in values.items()
                }
                rows.append(shown | _flat(json.loads(file.read_text())))
        return pd.DataFrame(rows)


def summarise(table: pd.DataFrame, keys: Sequence[str], metrics: Sequence[str], over: Sequence[str] = ()) -> pd.DataFrame:
    """Mean and standard deviation of some metrics over the runs that differ in `over` only.

    Args:
        table: of a `Sweep`.
        keys: that were varied.
        metrics: columns of the table.
        over: keys whose runs are repetitions of one another: folds, seeds.

    Returns:
        a row a combination of the other keys, with ``runs``, and each metric's ``mean`` and ``std`` (of a sample; NaN of one).

    Raises:
        ValueError: for a metric that the table does not have, naming those that it has.
    """
    missing = [name for name in metrics if name not in table]
    if missing:
        raise ValueError(
            f"there is no metric {', '.join(missing)}; there are {', '.join(str(c) for c in table if c not in keys)}"
        )
    groups = [name for name in keys if name not in over]
    grouped = table.groupby(groups, sort=False) if groups else table.groupby(lambda _: 0)
    summary = grouped[list(metrics)].agg(["mean", "std"])
    summary.columns = [" ".join(column) for column in summary.columns]
    summary.insert(0, "runs", grouped.size())
    return summary.reset_index() if groups else summary.reset_index(drop=True)


def _argument(value: Any) -> str:
    # MONAI's command line drops a plain None.
    return "$None" if value is None else str(value)


def _file_name(value: Any) -> str:
    text = "-".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return "".join(letter if letter.isalnum() or letter in "-_.+" else "_" for letter in text)


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, value in metrics.items():
        missing_is_nan = math.nan if value is None else value
        rows |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": missing_is_nan}
    return rows
