"""The proof that CAMEL's train.json works: whole, killed twice, and shared by two processes."""

import csv
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from monai.bundle import ConfigParser
from PIL import Image

from shared.handlers.runs.files import LINKED_BYTES

from .runs import files_of, files_of_training, metrics_of, weights_of

STAGES = ("max_max", "max_min", "retrain", "segmentation")
# Stages that train nothing, and what they leave.
MADE = {"construct": "picks.csv", "relabel": "instance_labels.csv"}
RESULTS = files_of_training(*STAGES) | {"construct/picks.csv", "relabel/instance_labels.csv", "calibration.json"}

pytestmark = pytest.mark.slow


def runs_of(database: str, folder: Path) -> tuple[list, dict]:
    """(parent runs named after the folder, name of the stage -> its child run)."""
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("camel")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if run.info.run_name == folder.name and "mlflow.parentRunId" not in run.data.tags]
    ids = {run.info.run_id for run in parents}
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") in ids]
    by_stage = {run.info.run_name.removeprefix(f"{folder.name}/"): run for run in children}
    assert len(by_stage) == len(children), "a stage has more than one run"
    return parents, by_stage


def test_the_whole_pipeline_leaves_its_files(trained):
    assert files_of(trained.folder) == RESULTS
    assert (trained.folder / "mlruns.db").is_file()
    assert weights_of(trained.folder / "model.pt").keys() == weights_of(trained.folder / "segmentation/model.pt").keys()
    with Image.open(trained.folder / "evaluation/examples.png") as figure:
        assert min(figure.size) > 200
    for stage in STAGES:
        rows = list(csv.DictReader((trained.folder / stage / "history.csv").open()))
        assert [float(row["epoch"]) for row in rows] == [1, 2, 3, 4]


def test_the_whole_pipeline_learns_what_is_easy(trained):
    metrics = metrics_of(trained.folder)
    assert metrics["num_images"] == 8
    assert metrics["instances"].keys() == {"Max-Max", "Max-Min", "Retrain"}
    assert metrics["pixels"].keys() == {"CAMEL", "Everything is tumour"}
    assert metrics["images"]["Max-Max"]["accuracy"] >= 0.75


def test_the_threshold_stands_beside_the_weights(trained):
    """Four validation images of each label are too few to choose it on."""
    found = json.loads((trained.folder / "calibration.json").read_text())
    assert (found["threshold"], found["num_normal_images"], found["num_tumour_images"]) == (0.5, 4, 4)
    assert "at least 5 of each" in found["reason"]
    assert metrics_of(trained.folder)["threshold"] == 0.5


def test_the_closing_table_is_printed_once(trained):
    lines = trained.process.stdout.splitlines()
    start = [number for number, line in enumerate(lines) if line.startswith("Instance labels (%)")]
    assert len(start) == 1
    table = lines[start[0] :]
    assert [line.split("  ")[0] for line in table[1:4]] == ["Max-Max", "Max-Min", "Retrain"]
    assert any(line.startswith("Everything is tumour") for line in table)
    assert "metrics.json, images.csv and examples.png are in" in table[-1]


def test_the_recorded_configuration_holds_what_ran(trained):
    config = json.loads((trained.folder / "config.json").read_text())
    recorded = ConfigParser(config)
    assert {name: recorded[name] for name in trained.options} == trained.options
    assert str(Path(__file__).parents[2]) not in json.dumps(config), "a path of this machine"


def test_mlflow_has_a_run_with_a_child_for_each_stage(trained):
    client = MlflowClient(trained.database)
    (parent,), children = runs_of(trained.database, trained.folder)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["cmil.lr"] == "0.003"
    # What follows from others, null, and arguments of components that were given.
    assert parent.data.params.items() >= {"max_min.norm": "frozen", "crop_size_px": "48", "threshold": "None"}.items()
    scores = metrics_of(trained.folder)["pixels"]["CAMEL"]
    assert parent.data.metrics["test.pixels.iou"] == pytest.approx(scores["iou"])
    assert parent.data.tags.keys() >= {"bundle", "bundle_version", "shared_version", "manifest_sha256", "process"}
    assert [found.dataset.name for found in parent.inputs.dataset_inputs] == ["images.csv"]
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["config.json"]
    assert children.keys() == {*STAGES, *MADE, "calibration", "evaluation"}
    assert {run.info.status for run in children.values()} == {"FINISHED"}
    for stage in STAGES:
        run_id = children[stage].info.run_id
        for metric in ("train_loss", "val_pixel_iou" if stage == "segmentation" else "val_instance_accuracy"):
            assert [point.step for point in client.get_metric_history(run_id, metric)] == [1, 2, 3, 4], (stage, metric)
        assert {file.path for file in client.list_artifacts(run_id)} == {"history.csv", "model.pt"}
        rates = [point.value for point in client.get_metric_history(run_id, "learning_rate")]
        assert len(rates) == 4
        assert rates == sorted(rates, reverse=True)
    for stage, name in MADE.items():
        assert [file.path for file in client.list_artifacts(children[stage].info.run_id)] == [name]
    assert children["construct"].data.metrics["num_tumour_picks"] > 0
    evaluation = children["evaluation"]
    assert evaluation.data.metrics.keys() >= {"images.max_max.accuracy", "pixels.camel.accuracy"}
    logged = {file.path for file in client.list_artifacts(evaluation.info.run_id)}
    assert logged == {"metrics.json", "images.csv", "examples.png"}


def test_the_weights_of_each_stage_are_on_the_disk_once(trained):
    """MLflow has those of all stages under other names of the same files; those that are published also carry the threshold."""
    files = [path for path in trained.folder.rglob("*.pt") if path.stat().st_size >= LINKED_BYTES]
    assert len(files) == 2 * len(STAGES) + 1
    assert len({path.stat().st_ino for path in files}) == len(STAGES) + 1


def test_killed_in_two_stages_it_ends_with_the_same_numbers(trained, tmp_path):
    folder = tmp_path / "killed"
    trained.assert_same_when_killed(folder, ["max_min", "segmentation"], RESULTS)
    parents, children = runs_of(trained.database, folder)
    assert [run.info.status for run in parents] == ["FINISHED"]
    assert children.keys() == {*STAGES, *MADE, "calibration", "evaluation"}
    assert {run.info.status for run in children.values()} == {"FINISHED"}


def test_two_processes_train_as_one(camel, trained, tmp_path):
    """Gradients are averaged over halves of a batch: with normalisation that looks at single images, a mere reordering."""
    # Not Adam, whose first steps follow the sign of gradients that may be all rounding.
    options = trained.options | {"norm": "group", "max_max::optimizer::_target_": "torch.optim.SGD", "cmil::num_epochs": 1}
    options |= {"cmil::lr": 0.01}
    folder = tmp_path / "two"
    trained.by_two_processes(folder, "Instance labels (%)", **options)
    assert files_of(folder) == RESULTS
    parents, children = runs_of(trained.database, folder)
    assert [run.info.status for run in parents] == ["FINISHED"]
    assert children.keys() == {*STAGES, *MADE, "calibration", "evaluation"}
    camel.train_here(output_dir=tmp_path / "one", run="$@max_max::trainer.run()", **options)
    two, one = folder / "max_max", tmp_path / "one/max_max"
    torch.testing.assert_close(weights_of(two / "model.pt"), weights_of(one / "model.pt"), rtol=1e-4, atol=1e-5)
    # Loss and scores are those of all images, too.
    pd.testing.assert_frame_equal(pd.read_csv(two / "history.csv"), pd.read_csv(one / "history.csv"), rtol=1e-4)


def test_a_stage_that_was_killed_before_its_last_step_is_closed(camel, trained, tmp_path):
    stage = tmp_path / "max_max"
    shutil.copytree(trained.folder / "max_max", stage)
    before = files_of(stage)
    (stage / "resume.pt").touch()
    camel.train_here(output_dir=tmp_path, run="$@max_max::trainer.run()", **trained.options)
    assert files_of(stage) == before
