"""MLflow: one parent run per training, one child run per stage, and the same runs again after an interruption.

A sweep has a run too, whose children its trainings are.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist
from mlflow.exceptions import MlflowException
from monai.handlers import MLFlowHandler

from ..writers.atomic import atomic_path
from .runs.code import code_tags
from .runs.end import EndWatch
from .runs.entries import apply_entry, halves, names_of
from .runs.files import dataset_of, sha256
from .runs.outage import REFUSALS, impatient, is_outage, one_line
from .runs.system import start_system_metrics
from .runs.watchdog import PARENT_TAG, PROCESS_TAG
from .tracking_address import artifact_uri, database_file, database_of_note, database_uri, follow_move, make_database
from .tracking_backlog import Backlog, Entry

logger = logging.getLogger(__name__)

NOTE = "mlflow.json"
# A server that does not answer at all costs this timeout at every call: after such a call it is left alone for this many times
# as long, which is a few percent of a training.
_SLOW_S, _REST = 1.0, 20


class Tracking:
    """The MLflow runs of one output folder.

    The parent run's id is kept in ``<folder>/mlflow.json``, so that a re-run of the same folder continues in the same runs,
    also where the folder and its database have been moved. Only rank 0 of a distributed training tracks; on the others every
    method does nothing.

    A server that cannot be reached ends no training: a warning says so, once, and what the server misses is kept in
    ``<folder>/mlflow_missed.jsonl`` (see `Backlog`). It is sent, before anything else, when there is more to log, when the run
    is finished and when it is started again. A server that lets its callers wait is asked more seldom.

    A run whose process ends before it is finished is marked ``FAILED``, or ``KILLED`` after a signal, see `EndWatch`; started
    again it is ``RUNNING``.

    Args:
        folder: the output folder; the default database ``mlruns.db`` and the artefacts lie in it.
        experiment: name of the MLflow experiment.
        tracking_uri: of a server or database; None for ``mlruns.db`` in `folder`. The environment variable
            ``MLFLOW_TRACKING_URI`` goes before both, as in MONAI's handler.
        run_name: of the parent run; None for the folder's name.
        enabled: False turns tracking off.
        parent_run_id: of a run in the same database below which MLflow shows the parent run: a sweep's. None for no such run.
        system_metrics: also log how much of CPU, memory, disk, network and GPUs the machine uses, see `start_system_metrics`.
    """

    def __init__(
        self,
        folder: str | Path,
        experiment: str,
        tracking_uri: str | None = None,
        run_name: str | None = None,
        enabled: bool = True,
        parent_run_id: str | None = None,
        system_metrics: bool = False,
    ) -> None:
        self.folder = Path(folder).resolve()
        self.experiment = experiment
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking_uri or database_uri(self.folder)
        self.run_name = run_name or self.folder.name
        self.enabled = enabled and not (dist.is_available() and dist.is_initialized() and dist.get_rank() > 0)
        self.parent_run_id, self.system_metrics = parent_run_id, system_metrics
        self.backlog = Backlog(self.folder)
        self._client: Any = None
        self._experiment_id = ""
        self._runs: dict[str | None, str] = {}
        self._is_reached, self._asked_again_s = True, 0.0
        self._open_stages: dict[str, None] = {}
        self._end = EndWatch(self._log_end)
        self._is_watched = False
        self._refused: set[tuple[str, ...]] = set()
        self._monitor: Any = None

    def start(
        self,
        parameters: Mapping[str, Any],
        config_file: str | Path | None = None,
        tags: Mapping[str, str] | None = None,
        manifests: Sequence[str | Path] = (),
    ) -> None:
        """Open the parent run, or the one of an earlier, interrupted run; log what it is made from and with.

        Args:
            parameters: hyper-parameters. A parameter keeps the first value that it was given.
            config_file: the executed configuration.
            tags: in addition to those of `code_tags`.
            manifests: tables of the training's data, which become data set inputs; ``manifest_sha256`` is that of the first.

        Raises:
            MlflowException, ValueError: if a database or server is there and will not take the run.
        """
        if not self.enabled:
            return
        try:
            with impatient():
                self.parent_run()
        except Exception as error:
            if not is_outage(error):
                raise
            self._miss(error)
        below = {} if self.parent_run_id is None else {PARENT_TAG: self.parent_run_id}
        hashes = {"manifest_sha256": sha256(manifests[0])} if manifests else {}
        self._watch(is_closed_by_its_run=True, tags={**code_tags(), **(tags or {}), **hashes, **below})
        # A folder that is resumed after it was finished is not finished.
        self._log({"status": "RUNNING"})
        self._log({"params": {name: str(value) for name, value in parameters.items()}})
        if config_file is not None:
            self._log({"artifact": self._stored(config_file)})
        for manifest in manifests:
            self._log({"dataset": dataset_of(manifest, "training")})
        if self.system_metrics and None in self._runs:
            self._monitor = start_system_metrics(self.uri, self._runs[None])

    def begin_stage(self, stage: str) -> None:
        """Mark the child run of `stage` as running, also where it has been interrupted before."""
        if not self.enabled:
            return
        if not self._is_watched:
            self._watch(is_closed_by_its_run=False, tags={})
        self._log({"stage": stage, "status": "RUNNING"})

    def handler(self, stage: str, **options: Any) -> MLFlowHandler | None:
        """A MONAI MLFlowHandler that logs a trainer's or evaluator's metrics to the child run of `stage`; None if disabled."""
        if not self.enabled:
            return None
        name = self._stage_name(stage)
        return _StageHandler(
            self,
            stage,
            tracking_uri=self.uri,
            experiment_name=self.experiment,
            run_name=name,
            iteration_log=False,
            **options,
        )

    def log_stage(self, stage: str, metrics: Mapping[str, float], artifacts: Sequence[Path] | None = None) -> None:
        """Log final metrics (dots for nested names) and files to the child run of `stage`."""
        if not self.enabled:
            return
        if metrics:
            self.log_metrics(stage, metrics)
        for path in artifacts or []:
            self._log({"stage": stage, "artifact": self._stored(path)})

    def log_metrics(self, stage: str, metrics: Mapping[str, Any], step: int = 0) -> None:
        """Log metrics to the child run of `stage`."""
        # MLflow's databases refuse NaN on some backends.
        kept = {name: float(value) for name, value in metrics.items() if value == value}
        if self.enabled:
            self._log({"stage": stage, "metrics": kept, "step": step})

    def log_headline(self, metrics: Mapping[str, Any]) -> None:
        """Log metrics to the parent run, by which MLflow sorts trainings."""
        kept = {name: float(value) for name, value in metrics.items() if value is not None and value == value}
        if self.enabled and kept:
            self._log({"metrics": kept, "step": 0})

    def log_parameters(self, stage: str, parameters: Mapping[str, Any]) -> None:
        """Log parameters of the child run of `stage`, of those that it does not have yet."""
        if self.enabled:
            self._log({"stage": stage, "params": {name: str(value) for name, value in parameters.items()}})

    def finish_stage(self, stage: str) -> None:
        """Mark the child run of `stage` as finished."""
        if self.enabled:
            self._log({"stage": stage, "status": "FINISHED"})

    def finish(self) -> None:
        """Mark the parent run as finished."""
        if not self.enabled:
            return
        self._stop_monitor()
        self._log({"status": "FINISHED"})
        self._end.close()
        if self.backlog:
            logger.warning(
                f"MLflow at {self.uri} has not received all of this run: the rest is kept in {self.backlog.file}, and the same "
                "command sends it when the server is available again"
            )

    def parent_run(self) -> str:
        """Id of the parent run, made on first use."""
        if None not in self._runs:
            self._connect()
            self._runs[None] = self._noted_run() or self._new_parent_run()
        return self._runs[None]

    def known_parent_run(self) -> str | None:
        """Id of the parent run, or None where none is known and the server cannot be reached."""
        try:
            with impatient():
                return self.parent_run()
        except Exception as error:
            self._miss(error)
            saved = self._note()
            return str(saved["run_id"]) if saved.get("tracking_uri") == self.uri else None

    def stage_run(self, stage: str) -> str:
        """Id of the child run of `stage`, made on first use."""
        if stage not in self._runs:
            parent, name = self.parent_run(), self._stage_name(stage)
            # Names are compared here: in MLflow's filter an apostrophe would end them.
            children = self._client.search_runs([self._experiment_id], f"tags.`{PARENT_TAG}` = '{parent}'")
            found = next((child for child in children if child.info.run_name == name), None)
            run = found or self._client.create_run(self._experiment_id, run_name=name, tags={PARENT_TAG: parent})
            self._runs[stage] = str(run.info.run_id)
        return self._runs[stage]

    def _watch(self, is_closed_by_its_run: bool, tags: Mapping[str, str]) -> None:
        """Have the end of this process recorded, if it comes before the run's; and log which process has the run, and tags."""
        self._is_watched = True
        self._log({"tags": {**tags, PROCESS_TAG: self._end.process}})
        self._end.open(is_closed_by_its_run)
        if None in self._runs:
            self._end.watch(self.uri, self._runs[None], database_file(self.uri))

    def _log_end(self, status: str) -> None:
        """Mark the parent run and the stages that have not finished; not where another process has taken over."""
        database = database_file(self.uri)
        if not self.folder.is_dir() or (database is not None and not database.is_file()):
            return
        self._stop_monitor()
        with suppress(Exception), impatient():
            if self._client.get_run(self.parent_run()).data.tags.get(PROCESS_TAG) != self._end.process:
                return
        for stage in list(self._open_stages):
            self._log({"stage": stage, "status": status})
        self._log({"status": status})

    def _stop_monitor(self) -> None:
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None

    def _stage_name(self, stage: str) -> str:
        return f"{self.run_name}/{stage}"

    def _note(self) -> dict[str, Any]:
        note = self.folder / NOTE
        return dict(json.loads(note.read_text())) if note.is_file() else {}

    def _noted_run(self) -> str | None:
        """The run of an earlier start, if this database or server has it; a database that has moved learns its new place."""
        saved = self._note()
        if not saved or not self._exists(saved["run_id"]):
            return None
        if saved["tracking_uri"] != self.uri:
            before, now = (database_of_note(saved["tracking_uri"]), database_file(self.uri))
            if before is not None and now is not None and before != now:
                follow_move(now, before)
            self._write_note(saved["run_id"])
        return str(saved["run_id"])

    def _new_parent_run(self) -> str:
        run = self._client.create_run(self._experiment_id, run_name=self.run_name)
        self._write_note(run.info.run_id)
        return str(run.info.run_id)

    def _write_note(self, run_id: str) -> None:
        with atomic_path(self.folder / NOTE) as temporary:
            temporary.write_text(json.dumps({"tracking_uri": self.uri, "run_id": run_id}))

    def _exists(self, run_id: str) -> bool:
        try:
            return bool(self._client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    def _connect(self) -> None:
        """The client and the experiment, once; MLflow makes the experiment's artefact folder next to a database."""
        if self._client is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        database = database_file(self.uri)
        if database is not None and not database.parent.is_dir():
            raise ValueError(f"MLflow's database {database} cannot be created: the folder {database.parent} does not exist")
        if database is not None:
            make_database(database)
        # MONAI would take the quoted path for the path.
        location = None if database is None else artifact_uri(database)
        first = MLFlowHandler(tracking_uri=self.uri, experiment_name=self.experiment, artifact_location=location)
        first._set_experiment()
        experiment: Any = first.experiment
        self._client, self._experiment_id = first.client, experiment.experiment_id

    def _stored(self, path: str | Path) -> str:
        """A file's path as it is kept: from the folder on where it lies in it, which may be moved."""
        path = Path(path).absolute()
        return str(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else str(path)

    def _log(self, entry: Entry) -> None:
        """Bring an entry to the server, after those that it has missed; or keep it, whatever the reason."""
        entry = {**entry, "time_ms": int(time.time() * 1000)}
        self._note_stage(entry)
        begun_s = time.monotonic()
        if begun_s < self._asked_again_s and "status" not in entry:
            self.backlog.append(entry)
            return
        try:
            with impatient():
                if self.backlog:
                    sent = self.backlog.send(self._apply_or_drop)
                    logger.info(f"MLflow at {self.uri} is available again: {sent} entries that it had missed were sent")
                self._apply_or_drop(entry)
        except Exception as error:
            waited_s = time.monotonic() - begun_s
            self._asked_again_s = time.monotonic() + _REST * waited_s if waited_s >= _SLOW_S else 0.0
            self._runs.clear()
            self.backlog.append(entry)
            self._miss(error)
            return
        self._is_reached, self._asked_again_s = True, 0.0

    def _note_stage(self, entry: Entry) -> None:
        stage = entry.get("stage")
        if stage is not None and entry.get("status", "RUNNING") == "RUNNING":
            self._open_stages[stage] = None
        elif stage is not None:
            self._open_stages.pop(stage, None)

    def _miss(self, error: Exception) -> None:
        if self._is_reached:
            logger.warning(
                f"MLflow at {self.uri} cannot be reached; the run continues, and entries for MLflow are kept in "
                f"{self.backlog.file} and sent when it is available again: {one_line(error)}"
            )
        self._is_reached = False

    def _apply_or_drop(self, entry: Entry) -> None:
        """Bring an entry to the server; what it refuses for good is left out, with a warning."""
        for is_last in (False, True):
            try:
                self._apply(entry)
                return
            except (MlflowException, FileNotFoundError) as error:
                if isinstance(error, MlflowException) and error.error_code not in REFUSALS:
                    raise
                # Somebody may have deleted the run: another one is found or made.
                self._runs.clear()
                if is_last:
                    self._part_or_drop(entry, error)

    def _part_or_drop(self, entry: Entry, error: Exception) -> None:
        """Leave out of an entry what is refused of it, and warn once of each name."""
        parts, names = halves(entry), names_of(entry)
        if len(parts) > 1:
            for part in parts:
                self._apply_or_drop(part)
        elif not names or not names <= self._refused:
            logger.warning(f"MLflow at {self.uri} does not accept {str(entry)[:200]}: {one_line(error)}")
            self._refused |= names

    def _apply(self, entry: Entry) -> None:
        stage = entry.get("stage")
        run_id = self.parent_run() if stage is None else self.stage_run(stage)
        apply_entry(self._client, run_id, entry, self.folder)


class _StageHandler(MLFlowHandler):
    """An MLFlowHandler whose run is the child run that `Tracking` keeps for a stage, finished or not."""

    def __init__(self, tracking: Tracking, stage: str, **options: Any) -> None:
        with impatient():
            super().__init__(**options)
        self._tracking, self._stage = tracking, stage

    def start(self, engine: Any) -> None:
        self._log_params({name: getattr(engine.state, name, None) for name in self.default_tracking_params})

    def _log_params(self, params: dict[str, Any]) -> None:
        self._tracking.log_parameters(self._stage, params)

    def _log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        self._tracking.log_metrics(self._stage, metrics, step or 0)
