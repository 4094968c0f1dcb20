"""MLflow: one parent run a training, a child run a stage, and the same runs again after an interruption.

A sweep has a run too, whose children its trainings are.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from mlflow.exceptions import MlflowException
from monai.handlers import MLFlowHandler

from ..writers import atomic_path

logger = logging.getLogger(__name__)

PARENT_TAG = "mlflow.parentRunId"


class Tracking:
    """The MLflow runs of one output folder.

    The parent run's id is kept in ``<folder>/mlflow.json``, so that a re-run of the same folder goes on in the same runs. Only
    rank 0 of a distributed training tracks; on the others every method does nothing.

    Args:
        folder: the output folder; the default database ``mlruns.db`` and the artefacts lie in it.
        experiment: name of the MLflow experiment.
        tracking_uri: of a server or database; None for ``sqlite:///<folder>/mlruns.db``. The environment variable
            ``MLFLOW_TRACKING_URI`` goes before both, as in MONAI's handler.
        run_name: of the parent run; None for the folder's name.
        enabled: False turns tracking off.
        parent_run_id: of a run in the same database below which MLflow shows the parent run: a sweep's. None for no such run.
    """

    def __init__(
        self,
        folder: str | Path,
        experiment: str,
        tracking_uri: str | None = None,
        run_name: str | None = None,
        enabled: bool = True,
        parent_run_id: str | None = None,
    ) -> None:
        self.folder = Path(folder).resolve()
        self.experiment = experiment
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking_uri or f"sqlite:///{self.folder}/mlruns.db"
        self.run_name = run_name or self.folder.name
        self.enabled = enabled and not (dist.is_available() and dist.is_initialized() and dist.get_rank() > 0)
        self.parent_run_id = parent_run_id
        self._client: Any = None
        self._experiment_id = ""

    def start(self, parameters: Mapping[str, Any], config_file: str | Path | None = None) -> None:
        """Open the parent run, or the one of an earlier, interrupted run; log hyper-parameters and the executed configuration."""
        if not self.enabled:
            return
        run_id = self.parent_run()
        if self.parent_run_id is not None:
            self._client.set_tag(run_id, PARENT_TAG, self.parent_run_id)
        # A folder that goes on after it was finished is not finished.
        self._client.update_run(run_id, "RUNNING")
        self._log_parameters(run_id, parameters)
        if config_file is not None:
            self._client.log_artifact(run_id, str(config_file))

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

    def log_stage(self, stage: str, metrics: Mapping[str, float], artifacts: list[Path] | None = None) -> None:
        """Log final metrics (dots for nested names) and files to the child run of `stage`."""
        if not self.enabled:
            return
        run_id = self.stage_run(stage)
        for name, value in metrics.items():
            if value == value:  # MLflow's databases refuse NaN on some backends
                self._client.log_metric(run_id, name, float(value))
        for path in artifacts or []:
            self._client.log_artifact(run_id, str(path))

    def finish_stage(self, stage: str) -> None:
        """Mark the child run of `stage` as finished."""
        if self.enabled:
            self._client.set_terminated(self.stage_run(stage), "FINISHED")

    def finish(self) -> None:
        """Mark the parent run as finished."""
        if self.enabled:
            self._client.set_terminated(self.parent_run(), "FINISHED")

    def parent_run(self) -> str:
        """Id of the parent run, made on first use."""
        self._connect()
        note = self.folder / "mlflow.json"
        if note.is_file():
            saved = json.loads(note.read_text())
            if saved["tracking_uri"] == self.uri and self._exists(saved["run_id"]):
                return str(saved["run_id"])
        run = self._client.create_run(self._experiment_id, run_name=self.run_name)
        with atomic_path(note) as temporary:
            temporary.write_text(json.dumps({"tracking_uri": self.uri, "run_id": run.info.run_id}))
        return str(run.info.run_id)

    def stage_run(self, stage: str) -> str:
        """Id of the child run of `stage`, made on first use."""
        parent = self.parent_run()
        name = self._stage_name(stage)
        # Names are compared here: in MLflow's filter an apostrophe would end them.
        for child in self._client.search_runs([self._experiment_id], f"tags.`{PARENT_TAG}` = '{parent}'"):
            if child.info.run_name == name:
                return str(child.info.run_id)
        run = self._client.create_run(self._experiment_id, run_name=name, tags={PARENT_TAG: parent})
        return str(run.info.run_id)

    def _stage_name(self, stage: str) -> str:
        return f"{self.run_name}/{stage}"

    def _exists(self, run_id: str) -> bool:
        try:
            return bool(self._client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException:
            return False

    def _connect(self) -> None:
        """The client and the experiment, once; MONAI's handler makes the experiment's artefact folder beside the database."""
        if self._client is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        first = MLFlowHandler(tracking_uri=self.uri, experiment_name=self.experiment)
        first._set_experiment()
        experiment: Any = first.experiment
        self._client, self._experiment_id = first.client, experiment.experiment_id

    def _log_parameters(self, run_id: str, parameters: Mapping[str, Any]) -> None:
        logged = self._client.get_run(run_id).data.params
        for name, value in parameters.items():
            # A parameter is logged once in a run's life: MLflow refuses a second value.
            if name not in logged:
                self._client.log_param(run_id, name, value)


class _StageHandler(MLFlowHandler):
    """An MLFlowHandler whose run is the child run that `Tracking` keeps for a stage, finished or not."""

    def __init__(self, tracking: Tracking, stage: str, **options: Any) -> None:
        super().__init__(**options)
        self._tracking, self._stage = tracking, stage

    def start(self, engine: Any) -> None:
        if self.cur_run is None:
            self.cur_run = self.client.get_run(self._tracking.stage_run(self._stage))
        super().start(engine)
