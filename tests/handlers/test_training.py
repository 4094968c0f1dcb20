"""The handlers in a real training on tiny images."""

import logging
from functools import partial
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from monai.handlers import ValidationHandler
from PIL import Image
from torch import nn

from shared.data import RegionDataset, RegionLoader
from shared.engines import RunFolder, StageTrainer, TrainingDevice, instance_and_label, lattice_validator
from shared.handlers import StageProgress, Tracking, training_handlers
from shared.handlers.loading_speed import LoadingSpeed


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    records = []
    for index in range(4):
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
        records.append({"image": str(tmp_path / f"{index}.png"), "label": index % 2, "row": index})
    return RegionDataset(records)


class Mean(nn.Module):
    """A logistic regression on an image's mean colour."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, images):
        return self.linear(images.float().mean(dim=(2, 3)) / 255)


def make_stage(folder, dataset, tracking, **options):
    network = Mean()
    return StageTrainer(
        folder.parent,
        folder.name,
        3,
        RegionLoader(dataset, 2),
        network,
        torch.optim.SGD(network.parameters(), lr=0.1),
        nn.BCEWithLogitsLoss(),
        TrainingDevice("cpu", None),
        prepare_batch=instance_and_label,
        validator=partial(lattice_validator, dataset, instances_per_side=2, device="cpu"),
        tracking=tracking,
        **options,
    )


def history(client, run_id, name):
    found = client.get_metric_history(run_id, name)
    steps = {metric.step: metric.value for metric in found}
    assert len(steps) == len(found)
    return steps


def test_a_stage_in_mlflow(tracked_folder, make_tracking, client, dataset, runs_of):
    tracking = make_tracking()
    tracking.start({})
    stage = make_stage(tracked_folder / "max_max", dataset, tracking)
    assert sorted(runs_of()) == ["output"]
    stage.run()
    run = runs_of()["output/max_max"]
    assert run.data.tags["mlflow.parentRunId"] == runs_of()["output"].info.run_id
    assert run.info.status == "FINISHED"
    files = Path(urlparse(run.info.artifact_uri).path)
    assert sorted(path.name for path in files.iterdir()) == ["history.csv", "model.pt"]
    for name in ("train_loss", "val_image_accuracy", "val_image_sensitivity"):
        assert history(client, run.info.run_id, name) == {row["epoch"]: pytest.approx(row[name]) for row in stage.history}
    assert run.data.params["max_epochs"] == "3"
    # A finished stage opens nothing again.
    make_stage(tracked_folder / "max_max", dataset, make_tracking()).run()
    assert len(runs_of()) == 2


def test_an_interrupted_stage_goes_on_in_its_run(tracked_folder, make_tracking, client, dataset, runs_of):
    class Interrupt:
        def attach(self, engine):
            engine.add_event_handler(Events.EPOCH_STARTED(once=3), self)

        def __call__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_stage(tracked_folder / "max_max", dataset, make_tracking(), train_handlers=[Interrupt()]).run()
    before = runs_of()["output/max_max"]
    assert sorted(history(client, before.info.run_id, "train_loss")) == [1, 2]
    assert before.info.status == "RUNNING"
    stage = make_stage(tracked_folder / "max_max", dataset, make_tracking())
    stage.run()
    runs = runs_of()
    assert sorted(runs) == ["output", "output/max_max"]
    after = runs["output/max_max"]
    assert (after.info.run_id, after.info.status) == (before.info.run_id, "FINISHED")
    assert history(client, after.info.run_id, "train_loss") == {
        row["epoch"]: pytest.approx(row["train_loss"]) for row in stage.history
    }


def test_disabled_tracking_trains_all_the_same(tmp_path, dataset):
    stage = make_stage(tmp_path / "stage", dataset, Tracking(tmp_path / "out", "test", enabled=False))
    stage.run()
    assert stage.is_finished
    assert not (tmp_path / "out").exists()


def test_a_run_folder_opens_and_closes_the_parent(tracked_folder, make_tracking, runs_of):
    from monai.bundle import ConfigParser

    items = {
        "learning_rate": 0.25,
        "expression": "$1 + 1",
        "tracking": {"_target_": "shared.handlers.Tracking", "folder": str(tracked_folder), "experiment": "test"},
        "folder": {"_target_": "shared.engines.RunFolder", "path": str(tracked_folder), "tracking": "@tracking"},
        "run": ["$@folder.open()", "$@folder.close()"],
    }
    ConfigParser(items).get_parsed_content("run")
    run = runs_of()["output"]
    assert run.data.params == {"learning_rate": "0.25", "expression": "2"}
    assert run.info.status == "FINISHED"
    assert (Path(urlparse(run.info.artifact_uri).path) / "config.json").read_text() == (
        tracked_folder / "config.json"
    ).read_text()
    RunFolder(tracked_folder).close()


def test_the_list_of_handlers(dataset):
    validator = lattice_validator(dataset, Mean(), 2, "cpu")
    assert isinstance(validator, SupervisedEvaluator)
    kinds = [type(handler) for handler in training_handlers("x", validator=validator)]
    assert kinds == [LoadingSpeed, ValidationHandler, StageProgress]
    assert [type(handler) for handler in training_handlers("x")] == [LoadingSpeed, StageProgress]


def test_a_log_line_after_every_epoch(caplog):
    validator = Engine(lambda engine, batch: None)
    validator.state.metrics = {"val_iou": 0.25}
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: engine.state.metrics.update(train_loss=0.5, other=1.0))
    StageProgress("max_max", validator, ("train_loss", "val_iou", "missing")).attach(engine)
    with caplog.at_level(logging.INFO, logger="shared.handlers.progress"):
        engine.run([0], max_epochs=2)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(" (")[0] for line in lines] == [f"max_max: epoch {n}/2: train_loss 0.5000, val_iou 0.2500" for n in (1, 2)]


def test_quiet_on_other_ranks(caplog):
    engine = Engine(lambda engine, batch: None)
    StageProgress("max_max", quiet=True).attach(engine)
    with caplog.at_level(logging.INFO, logger="shared.handlers.progress"):
        engine.run([0], max_epochs=1)
    assert not caplog.records
