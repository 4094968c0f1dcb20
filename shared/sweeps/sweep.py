"""One configuration trained with several values of some of its keys: folds, seeds, weights, annotators' biases."""

from __future__ import annotations

import itertools
import json
import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from monai.bundle import ConfigParser
from tqdm import tqdm

from ..engines.folder_lock import FolderLock
from ..engines.run_record import VOLATILE, VOLATILE_BELOW, changed_files
from ..front_door.check import check_given
from ..front_door.given import Given
from ..handlers.tracking import Tracking
from ..handlers.tracking_address import database_uri
from ..writers.atomic import atomic_path
from .child_process import run_child
from .run_scores import kept_validation, metrics_in
from .sweep_table import summarise

__all__ = ["Sweep", "parse_value", "summarise"]

logger = logging.getLogger(__name__)

TABLE = "sweep.csv"
LOG = "log.txt"
SETTINGS = "sweep.json"
METRICS = Path("evaluation") / "metrics.json"
# There from a training's start until its process has ended well: its scores are not the last that it writes.
UNFINISHED = "unfinished"
# Among the varied keys: whole configuration files, named as in a comparison.
OVERLAYS, NO_OVERLAY = "overlays", "none"
METHOD = "method"
# Given to every run by the sweep.
_OWN = ("config_file", "output_dir")
_WORDS = {"True": True, "False": False, "None": None}


class Sweep:
    """Trains every combination of values, one after the other, each as a separate process with its own folder.

    A run that is finished (see `is_finished`) is not repeated, one that was interrupted resumes, and one that fails does not
    stop the others. A training ends with the sweep that started it. All runs share one MLflow database,
    ``<output_dir>/mlruns.db``, unless `fixed` names another ``tracking_uri``, and are shown there
    below a run of the sweep.

    Args:
        config_files: of the training and its overlays, as for ``python -m monai.bundle run``.
        varied: key of the configuration -> its values; the last key changes fastest.
        output_dir: gets a folder per run, named after its values, ``sweep.csv`` and ``mlflow.json``.
        fixed: other keys and their values, the same for every run.
        allowed: whether a combination is trained; None for all of them.
        notes: names and values that the runs depend on and that are no keys, such as the hash of a file: a folder that was
            trained with others is refused like one with other settings, unless an older version did not note them.
        overlays: configurations of the same folder that stand after `config_files`, the overlays of a run joined by a plus
            (``"dws+superpixels"``), or ``"none"``; they vary as a key ``overlays`` would that changes slowest. None to vary
            keys alone.

    Raises:
        ValueError: if there is nothing to vary, an overlay does not exist, two combinations would share a folder, or a key is
            given that would have no effect: a varied one among the fixed, or one that the sweep itself sets.
    """

    def __init__(
        self,
        config_files: Sequence[str],
        varied: Mapping[str, Sequence[Any]],
        output_dir: str | Path,
        fixed: Mapping[str, Any] | None = None,
        allowed: Callable[[dict[str, Any]], bool] | None = None,
        notes: Mapping[str, Any] | None = None,
        overlays: Sequence[str] | None = None,
    ) -> None:
        _check_effect(varied, fixed or {}, overlays)
        varied = varied if overlays is None else {OVERLAYS: overlays, **varied}
        if not varied or not all(varied.values()):
            raise ValueError(f"a sweep needs at least one key with at least one value, got {dict(varied)}")
        self.config_files, self.varied = list(config_files), {name: list(values) for name, values in varied.items()}
        self.has_overlays = overlays is not None
        self.output_dir = Path(output_dir).resolve()
        self.fixed = {"tracking_uri": database_uri(self.output_dir), **(fixed or {})}
        self.allowed, self.notes = allowed, dict(notes or {})
        self._check_folders()

    @property
    def combinations(self) -> list[dict[str, Any]]:
        """The values of every run."""
        runs = [dict(zip(self.varied, values, strict=True)) for values in itertools.product(*self.varied.values())]
        return [values for values in runs if self.allowed is None or self.allowed(values)]

    def folder(self, values: Mapping[str, Any]) -> Path:
        """Folder of the run with these values.

        >>> Sweep(["train.json"], {"fold": [0], "etas": [[1, 2]]}, "/out").folder({"fold": 0, "etas": [1, 2]}).name
        'fold=0,etas=1-2'
        """
        names = (f"{name.replace('::', '.')}={_file_name(value)}" for name, value in values.items())
        return self.output_dir / ",".join(names)

    def command(self, values: Mapping[str, Any], parent_run_id: str | None = None) -> list[str]:
        """The command line of one run, which MLflow shows below that of the given id."""
        files, keys = self._files(values), self._keys(values)
        file = files[0] if len(files) == 1 else str(files)
        parent = {} if parent_run_id is None else {"tracking::parent_run_id": parent_run_id}
        options = {"config_file": file, **self.fixed, **parent, **keys, "output_dir": self.folder(values)}
        named = (text for name, value in options.items() for text in (f"--{name}", _argument(value)))
        return [sys.executable, "-m", "monai.bundle", "run", *named]

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of the run with these values: every entry of the files, `fixed` and the values, except where and how
        it is computed (`shared.engines.run_record.VOLATILE`, ``VOLATILE_BELOW``) and descriptions."""
        leaves = {**self._config(values), **self._keys(values), **self.notes}
        return dict(json.loads(json.dumps({name: value for name, value in leaves.items() if _decides(name)}, default=str)))

    def is_finished(self, values: Mapping[str, Any]) -> bool:
        """Whether the run with these values has reached its end: its scores are there, and its process ended well after them."""
        folder = self.folder(values)
        return (folder / METRICS).is_file() and not (folder / UNFINISHED).exists()

    def check(self) -> None:
        """Check keys and values of what is to be trained, and that the folders hold nothing that was trained with others, nor on
        a manifest of another content.

        Raises:
            ValueError: naming the keys; or the first such folder and what differs.
        """
        for values in self.combinations:
            folder = self.folder(values)
            if not self.is_finished(values):
                options = {**self.fixed, **self._keys(values), "output_dir": str(folder)}
                named = {name: "$None" if value is None else value for name, value in options.items()}
                check_given(Given(tuple(map(Path, self._files(values))), named))
            differences = [*self._differences(values), *(f"the content of {file} has changed" for file in changed_files(folder))]
            if differences:
                raise ValueError(
                    f"{folder} contains a run of another sweep ({'; '.join(differences[:8])}). Give another --output_dir, or "
                    "delete the folder to train again; nothing was changed."
                )

    def _differences(self, values: Mapping[str, Any]) -> list[str]:
        """What a folder was trained with, and the run with these values would not be."""
        folder = self.folder(values)
        if not (folder / SETTINGS).is_file():
            is_trained = (folder / METRICS).is_file()
            return [f"it has no {SETTINGS}, which states what it was trained with"] if is_trained else []
        before, now = _settings_in(folder), self.settings(values)
        names = filter(_decides, sorted({*before, *now}))  # an older version may have recorded more
        # An older version may not have noted what it was trained on as fully.
        unknown = self.notes.keys() - before.keys()
        differing = [name for name in names if before.get(name) != now.get(name) and name not in unknown]
        return [f"{name}: {before.get(name)!r} before, {now.get(name)!r} now" for name in differing]

    def run(self) -> pd.DataFrame:
        """Train what is not finished; write and return the table.

        Raises:
            ValueError: before anything is trained, see `check`; or if another sweep is at work in the folder.
            RuntimeError: at the end, naming the runs that failed and where they say why.
        """
        with FolderLock(self.output_dir):
            return self._run()

    def _run(self) -> pd.DataFrame:
        self.check()
        tracking = self._tracking()
        tracking.start({f"vary {name.replace('::', '.')}": str(values) for name, values in self.varied.items()})
        parent_run_id = tracking.known_parent_run() if tracking.enabled else None
        failed = []
        for values in tqdm(self.combinations, desc="sweep", unit="run", disable=None):
            folder = self.folder(values)
            if self.is_finished(values):
                logger.info(f"{folder.name} is already finished and skipped")
                continue
            folder.mkdir(parents=True, exist_ok=True)
            (folder / UNFINISHED).touch()
            with atomic_path(folder / SETTINGS) as temporary:
                temporary.write_text(json.dumps(self.settings(values), indent=2) + "\n")
            with (folder / LOG).open("a") as log:
                code = run_child(self.command(values, parent_run_id), log)
            if code or not (folder / METRICS).is_file():
                failed.append(f"{folder.name}: exit status {code}, see {folder / LOG}{_remedy(folder)}")
            else:
                (folder / UNFINISHED).unlink()
        table = self.table()
        with atomic_path(self.output_dir / TABLE) as temporary:
            table.to_csv(temporary, index=False)
        if failed:
            raise RuntimeError(f"{len(failed)} of {len(self.combinations)} runs failed:\n" + "\n".join(failed))
        tracking.finish()
        return table

    def table(self) -> pd.DataFrame:
        """One row for each finished run: its values, its metrics by their names in ``metrics.json`` joined by dots, and each
        stage's validation in the epoch that it kept as ``<stage>.val_<name>``. Where overlays vary, which name the method, its
        metrics stand under ``method``."""
        rows = []
        for values in self.combinations:
            if self.is_finished(values):
                shown = {
                    name: value if isinstance(value, (int, float, str)) else json.dumps(value) for name, value in values.items()
                }
                metrics = metrics_in(self.folder(values) / METRICS)
                metrics = _leaves(self._under_method(metrics, values) if self.has_overlays else metrics, ".")
                rows.append(shown | {name: math.nan if score is None else score for name, score in metrics.items()})
                rows[-1] |= kept_validation(self.folder(values))
        return pd.DataFrame(rows)

    def _files(self, values: Mapping[str, Any]) -> list[str]:
        """The configuration files of one run."""
        overlays = values[OVERLAYS] if self.has_overlays else NO_OVERLAY
        folder = Path(self.config_files[0]).parent
        after = [] if overlays == NO_OVERLAY else [folder / f"{name}.json" for name in overlays.split("+")]
        return [*self.config_files, *map(str, after)]

    def _keys(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What varies of one run, without its overlays."""
        return {name: value for name, value in values.items() if not (self.has_overlays and name == OVERLAYS)}

    def _config(self, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The entries of the configuration files, those of one run with its overlays, overlaid by `fixed`."""
        files = self.config_files if values is None else self._files(values)
        return _leaves(ConfigParser.load_config_files(files), "::") | self.fixed

    def _under_method(self, metrics: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """The metrics of a run, those of its method under the same name as in every other run."""
        config = self._config(values) | self._keys(values)
        name = config.get(f"evaluation::{METHOD}", config.get(METHOD))
        while isinstance(name, str) and name.removeprefix("$").startswith("@"):
            name = config.get(name.removeprefix("$")[1:])
        return {
            kind: {METHOD if key == name else key: scores for key, scores in named.items()}
            if isinstance(named, Mapping)
            else named
            for kind, named in metrics.items()
        }

    def _tracking(self) -> Tracking:
        """The sweep's own run, in the database and experiment of its trainings; disabled where these are not tracked."""
        config, uri = self._config(), self.fixed["tracking_uri"]
        experiment = config.get("tracking::experiment")
        is_tracked = bool(experiment and uri and config.get("tracking::enabled", True))
        return Tracking(self.output_dir, str(experiment), uri, enabled=is_tracked)

    def _check_folders(self) -> None:
        missing = [file for values in self.combinations for file in self._files(values) if not Path(file).is_file()]
        if self.has_overlays and missing:
            raise ValueError(f"{missing[0]} does not exist: overlays are named as the files of {Path(missing[0]).parent} are")
        if not self.combinations:
            raise ValueError(f"no combination of {self.varied} is allowed")
        first: dict[Path, dict[str, Any]] = {}
        for values in self.combinations:
            other = first.setdefault(self.folder(values), values)
            if other is not values:
                raise ValueError(f"{other} and {values} would share the folder {self.folder(values).name}: leave out one of them")


def parse_value(text: str) -> Any:
    """A JSON value or one of Python's words where the text is one, else the text.

    >>> [parse_value(text) for text in ("[1, 2]", "null", "False", "mini")]
    [[1, 2], None, False, 'mini']
    """
    if text in _WORDS:
        return _WORDS[text]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _check_effect(varied: Mapping[str, Any], fixed: Mapping[str, Any], overlays: Sequence[str] | None) -> None:
    """Refuse keys that would have no effect."""
    own = [name for name in (*varied, *fixed) if name in _OWN]
    if own:
        raise ValueError(f"the sweep sets {own[0]} of every run itself: leave out the key {own[0]!r}")
    both = [name for name in fixed if name in varied]
    if both:
        raise ValueError(
            f"the key {both[0]!r} has one value in every run ({fixed[both[0]]!r}) and varies too ({varied[both[0]]!r}): one of "
            "them would have no effect, so leave out one"
        )
    if overlays is not None and OVERLAYS in varied:
        raise ValueError(f"the key {OVERLAYS!r} varies, and overlays are given too: one of them would have no effect")


def _settings_in(folder: Path) -> dict[str, Any]:
    """The settings with which a run was trained."""
    try:
        return dict(json.loads((folder / SETTINGS).read_text()))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / SETTINGS}: expected the settings of a run as a JSON object; found something else ({error}). Delete the "
            "folder to train again; nothing was changed."
        ) from error


def _remedy(folder: Path) -> str:
    """What can be done with a run that failed after its scores were written; nothing of another."""
    if not (folder / METRICS).is_file():
        return ""
    return f". Its scores are written: delete {folder / UNFINISHED} to take them as they are, or give the command again to end it"


def _decides(name: str) -> bool:
    """Whether an entry affects what a run learns; ``::`` separates the names of nested entries."""
    parts = name.split("::")
    return parts[0] not in VOLATILE and not {*parts} & {*VOLATILE_BELOW} and "_desc_" not in name


def _argument(value: Any) -> str:
    # MONAI's command line drops a plain None.
    return "$None" if value is None else str(value)


def _file_name(value: Any) -> str:
    text = "-".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return "".join(letter if letter.isalnum() or letter in "-_.+" else "_" for letter in text)


def _leaves(nested: Mapping[str, Any], separator: str, prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in nested.items():
        is_nested = isinstance(value, Mapping)
        leaves |= _leaves(value, separator, f"{prefix}{name}{separator}") if is_nested else {f"{prefix}{name}": value}
    return leaves
