"""Runs of a bundle's configurations, as processes of their own, as users start them, and within this one; what they leave."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

REPOSITORY = Path(__file__).parents[2]
DEADLINE_S = 1800
# `python -m <module> ...`, which never gives a file the name that is its first argument: it stands still instead.
HELD = """
import os, runpy, sys, time

replace, never, module = os.replace, *sys.argv[1:3]
del sys.argv[1:3]


def replace_others(source, target, **options):
    while os.path.abspath(target) == never:
        time.sleep(0.1)
    replace(source, target, **options)


os.replace = replace_others
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def files_of(folder: Path) -> set[str]:
    """Every file of an output folder but MLflow's own; so no resume point and nothing half written."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if path.parts[0] not in ("mlruns", "mlruns.db")}


def files_of_training(*stages: str) -> set[str]:
    """What every training of these stages leaves that is evaluated on images."""
    evaluation = {f"evaluation/{name}" for name in ("examples.png", "images.csv", "metrics.json")}
    weights = {f"{stage}/{name}" for stage in stages for name in ("history.csv", "model.pt")}
    return {"config.json", "mlflow.json", "model.pt"} | evaluation | weights


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


def metrics_of(folder: Path, evaluation: str = "evaluation") -> dict[str, Any]:
    return json.loads((folder / evaluation / "metrics.json").read_text())


def history_of(folder: Path, stage: str) -> pd.DataFrame:
    return pd.read_csv(folder / stage / "history.csv")


def counts_of(folder: Path) -> dict[str, Any]:
    """Of the classes that a training with class names has seen."""
    return json.loads((folder / "class_counts.json").read_text())


def messages_of(error: BaseException | None) -> str:
    """Of an error and of those that caused it: MONAI wraps them."""
    said = []
    while error is not None:
        said.append(str(error))
        error = error.__cause__
    return "\n".join(said)


def assert_same_results(ours: Path, theirs: Path, names: set[str]) -> None:
    """Both folders hold these files; numbers are the same to the letter, weights to the bit."""
    assert files_of(ours) == files_of(theirs) == names
    for name in sorted(names):
        if name.endswith((".csv", "metrics.json")):
            assert (ours / name).read_text() == (theirs / name).read_text(), name
        elif name.endswith("model.pt"):
            torch.testing.assert_close(weights_of(ours / name), weights_of(theirs / name), rtol=0, atol=0, msg=name)


def mapped_row(folder: Path, name: str) -> dict[str, str]:
    """Of the one slide that a folder has a map of: its files are there and its row says ok; that row."""
    assert {f"{name}{ending}" for ending in (".ome.tif", ".geojson", ".png")} <= files_of(folder)
    (row,) = csv.DictReader((folder / "slides.csv").open())
    assert (row["slide"], row["status"]) == (name, "ok")
    return row


@dataclass(frozen=True)
class Bundle:
    """Starts a bundle's configurations on the tiny data set in `data`; `tiny` makes its training small."""

    name: str
    data: Path
    tiny: dict[str, Any]

    @property
    def root(self) -> Path:
        return REPOSITORY / "bundles" / self.name

    def config_files(self, *names: str) -> list[str]:
        return [str(self.root / "configs" / f"{name}.json") for name in names]

    def manifest(self, name: str = "images.csv") -> pd.DataFrame:
        """A manifest of the data set, whose paths hold from any folder; None where an image has no mask."""
        table = pd.read_csv(self.data / name, dtype={"mask": object})
        for column in ("image", "mask"):
            table[column] = [str(self.data / path) if isinstance(path, str) else None for path in table[column]]
        return table

    def command(self, *names: str, run_id: str | None = None, cwd: Path = REPOSITORY, **overrides: Any) -> list[str]:
        """``python -m monai.bundle run ...`` with the configuration files of these names, as paths relative to `cwd`."""
        files = [os.path.relpath(file, cwd) for file in self.config_files(*names)]
        options = {"config_file": files[0] if len(files) == 1 else str(files), "dataset_dir": self.data, **overrides}
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        return ["-m", "monai.bundle", "run", *([run_id] if run_id else []), *arguments]

    def run(self, command: list[str], cwd: Path = REPOSITORY, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``python <command>`` to its end."""
        return subprocess.run(
            [sys.executable, *command],
            cwd=cwd,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def run_well(self, command: list[str], cwd: Path = REPOSITORY, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``python <command>`` to an end without error."""
        process = self.run(command, cwd, **environment)
        assert process.returncode == 0, process.stdout + process.stderr
        return process

    def kill_when(self, exists: Path, never: Path, command: list[str], log: Path, **environment: str) -> None:
        """Run ``python -m <command>`` until a file is there, then kill it and its children, who can do nothing about it.

        However late that is, the file `never`, which comes later, is not there.
        """
        assert command[0] == "-m"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", HELD, str(never), *command[1:]],
                cwd=REPOSITORY,
                env=self.environment(**environment),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + DEADLINE_S
        try:
            while not exists.exists():
                assert process.poll() is None, f"{process.returncode} before {exists.name} was there: {log.read_text()}"
                assert time.monotonic() < deadline, f"no {exists.name} after {DEADLINE_S} s: {log.read_text()}"
                time.sleep(0.005)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert not never.exists()

    def environment(self, **extra: str) -> dict[str, str]:
        """On the CPU and with one thread: sums in another order would not be the same numbers."""
        inherited = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        return {**inherited, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **extra}

    def map_slide(self, *overlays: str, slide: str, output_dir: Path, **options: Any) -> dict[str, str]:
        """inference.json on a slide of the data set, as a user starts it: the row of its map."""
        source = self.data / f"slides/{slide}.tif"
        self.run_well(self.command("inference", *overlays, source=source, output_dir=output_dir, **options))
        return mapped_row(output_dir, slide)

    def workflow(self, *names: str, workflow_type: str = "train", **overrides: Any) -> ConfigWorkflow:
        """The same within this process, on the CPU unless another device is given."""
        workflow = self._uninitialized(*names, workflow_type=workflow_type, **overrides)
        workflow.initialize()
        return workflow

    def configuration(self, *names: str, **overrides: Any) -> ConfigParser:
        """What inference.json or evaluate.json say, before anything is checked and weights are loaded."""
        return self._uninitialized(*names, workflow_type="infer", **overrides).parser

    def _uninitialized(self, *names: str, workflow_type: str, **overrides: Any) -> ConfigWorkflow:
        return ConfigWorkflow(
            config_file=self.config_files(*names),
            workflow_type=workflow_type,
            logging_file=False,
            bundle_root=str(self.root),
            dataset_dir=str(self.data),
            **{"device": "$torch.device('cpu')", **overrides},
        )

    def train_here(self, *overlays: str, output_dir: Path, **overrides: Any) -> ConfigWorkflow:
        """A tiny training within this process, without MLflow, whose import alone takes seconds."""
        options = {**self.tiny, "output_dir": str(output_dir), "tracking::enabled": False, **overrides}
        workflow = self.workflow("train", *overlays, **options)
        workflow.run()
        workflow.finalize()
        return workflow

    def evaluate_here(self, *overlays: str, output_dir: Path, evaluation_dir: Path, **overrides: Any) -> dict[str, Any]:
        """evaluate.json of the training in `output_dir` within this process: its metrics."""
        folders = {"output_dir": str(output_dir), "evaluation_dir": str(evaluation_dir)}
        self.workflow("evaluate", *overlays, workflow_type="infer", **folders, **overrides).run()
        return metrics_of(evaluation_dir, ".")

    def infer_here(self, **overrides: Any) -> torch.Tensor:
        """The last prediction of MONAI's own run of inference.json, which has the properties that MONAI asks for."""
        workflow = self.workflow("inference", workflow_type="infer", **overrides)
        assert workflow.check_properties() == []
        workflow.evaluator.run()
        (output,) = workflow.evaluator.state.output
        return output["pred"]


@dataclass(frozen=True)
class Training:
    """A training that has ended: of which bundle, how it was started, where, and what it said."""

    bundle: Bundle
    options: dict[str, Any]
    folder: Path
    process: subprocess.CompletedProcess[str]

    @property
    def database(self) -> str:
        return f"sqlite:///{self.folder}/mlruns.db"

    def workflow(self) -> ConfigWorkflow:
        """Its train.json once more, within this process and without MLflow."""
        return self.bundle.workflow("train", **{**self.options, "output_dir": str(self.folder), "tracking::enabled": False})

    def killed(self, folder: Path, kills: Mapping[str, str]) -> str:
        """The same training in another folder, killed once for each of `kills` and started again: what it said in the end.

        Its runs go to the same MLflow database, as on a server.

        Args:
            kills: file that is waited for, in the order of the training, to a later one, before which it is killed.
        """
        database = {"MLFLOW_TRACKING_URI": self.database}
        command = self.bundle.command("train", output_dir=folder, **self.options)
        for moment, later in kills.items():
            log = folder.with_name(f"{folder.name}.log")
            self.bundle.kill_when(folder / moment, folder / later, command, log, **database)
        return self.bundle.run_well(command, **database).stdout

    def assert_same_when_killed(self, folder: Path, stages: Sequence[str], names: set[str]) -> None:
        """Killed in each of these stages it resumes where it stopped, and leaves these files with the same numbers."""
        said = self.killed(folder, {f"{stage}/resume.pt": f"{stage}/model.pt" for stage in stages})
        for stage in stages[:-1]:
            assert f"{stage}: already finished" in said
        assert f"{stages[-1]}: resumes after epoch" in said
        assert_same_results(folder, self.folder, names)

    def assert_evaluated_the_same(self, folder: Path, cwd: Path = REPOSITORY, **options: Any) -> list[str]:
        """evaluate.json, as a user starts it from `cwd`, writes the numbers of the training into `folder`: the whole command."""
        command = self.bundle.command("evaluate", cwd=cwd, output_dir=self.folder, evaluation_dir=folder, **options)
        process = self.bundle.run_well(command, cwd)
        assert "Everything is tumour" in process.stdout
        for name in ("metrics.json", "images.csv"):
            assert (folder / name).read_text() == (self.folder / "evaluation" / name).read_text(), name
        return command

    def by_two_processes(self, folder: Path, title: str, **options: Any) -> None:
        """The bundle's train.json on two processes of torchrun; the table with this title is printed once."""
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        command = self.bundle.command("train", "multi_gpu_train", output_dir=folder, **options)
        process = self.bundle.run_well([*torchrun, *command], MLFLOW_TRACKING_URI=self.database)
        assert process.stdout.count(title) == 1

    def tracked_runs(self) -> tuple["MlflowClient", dict[str, "Run"]]:
        """MLflow's client and the runs of the bundle's experiment by their names; they have all finished."""
        from mlflow import MlflowClient

        client = MlflowClient(self.database)
        runs = client.search_runs([client.get_experiment_by_name(self.bundle.name).experiment_id])
        assert {run.info.status for run in runs} == {"FINISHED"}
        return client, {run.info.run_name: run for run in runs}


def train_once(bundle: Bundle, options: dict[str, Any], parent: Path) -> Training:
    """The bundle's train.json with these options, as a user starts it, in ``parent/run``."""
    folder = parent / "run"
    return Training(bundle, options, folder, bundle.run_well(bundle.command("train", output_dir=folder, **options)))
