"""The loader's and the network's speed in real trainings on tiny images."""

import logging
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from shared.data import PairedLoader, RegionDataset, RegionLoader, loaders, training_augmentation
from shared.engines import StageTrainer, TrainingDevice, constrained_instances, instance_and_label
from shared.handlers import loading_speed

SPEEDS = re.compile(r"loader gives ([\d.e+]+) samples/s \((\d) workers\), the network takes ([\d.e+]+)")
LONG_S = 0.04


class Clock:
    """Goes on by what takes its time, and by a tenth of a millisecond at each look: a busy machine makes nothing slower."""

    now_s = 0.0

    def perf_counter(self):
        self.now_s += 1e-4
        return self.now_s


# Each process of a loader goes on with its own copy.
CLOCK = Clock()


@pytest.fixture(autouse=True)
def _clock(monkeypatch):
    for module in (loading_speed, loaders):
        monkeypatch.setattr(module, "time", CLOCK)


class Slow:
    """A transform that takes its time."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __call__(self, item):
        CLOCK.now_s += self.seconds
        return item


class Mean(nn.Module):
    """A logistic regression on an image's mean colour, whose steps take their time."""

    def __init__(self, seconds=0.0):
        super().__init__()
        self.linear, self.seconds = nn.Linear(3, 1), seconds

    def forward(self, images):
        CLOCK.now_s += self.seconds
        return self.linear(images.float().mean(dim=(2, 3)) / 255)


@pytest.fixture
def records(tmp_path):
    rng = np.random.default_rng(0)
    records = []
    for index in range(24):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
        records.append({"image": str(tmp_path / f"{index}.png"), "label": index % 2, "row": index})
    return records


def train(folder, loader, network=None, **options):
    torch.manual_seed(0)
    network = network or Mean()
    defaults = {"loss_function": nn.BCEWithLogitsLoss(), "prepare_batch": instance_and_label, "max_epochs": 2}
    stage = StageTrainer(
        folder.parent,
        folder.name,
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        compute=TrainingDevice("cpu", None),
        **{**defaults, **options},
    )
    stage.run()
    return stage


def said(caplog):
    """Level, the loader's speed, its workers and the network's, of each line about them."""
    found = [(record.levelname, SPEEDS.search(record.message)) for record in caplog.records]
    return [(level, float(match[1]), int(match[2]), float(match[3])) for level, match in found if match is not None]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_slow_loader_is_warned_of(tmp_path, records, caplog, monkeypatch, num_workers):
    monkeypatch.setattr(loading_speed, "_num_cores", lambda: 3)
    monkeypatch.setattr(loading_speed, "_LEAST_WAIT_S", 0.0)
    dataset = RegionDataset(records, transform=Slow(LONG_S))
    with caplog.at_level(logging.INFO):
        train(tmp_path / "stage", RegionLoader(dataset, 2, num_workers=num_workers), max_epochs=3)
    lines = said(caplog)
    # Said before the first epoch's own line, and again in the second, but not in the third.
    assert [level for level, *_ in lines] == ["WARNING", "WARNING"]
    assert "epoch 1/3" not in caplog.text[: caplog.text.index("loader gives")]
    for _, loader, workers, network in lines:
        assert workers == num_workers
        assert loader <= max(1, num_workers) / LONG_S
        assert network > loader
    assert "Raise the loader's num_workers, up to the 3 cores" in caplog.text


@pytest.mark.parametrize(("num_workers", "cores"), [(0, 3), (2, 2)], ids=["a short stage", "every core reads"])
def test_a_slow_loader_is_only_reported_where_a_warning_would_not_help(
    tmp_path, records, caplog, monkeypatch, num_workers, cores
):
    monkeypatch.setattr(loading_speed, "_num_cores", lambda: cores)
    if num_workers:
        monkeypatch.setattr(loading_speed, "_LEAST_WAIT_S", 0.0)
    dataset = RegionDataset(records, transform=Slow(LONG_S))
    with caplog.at_level(logging.INFO):
        train(tmp_path / "stage", RegionLoader(dataset, 2, num_workers=num_workers), max_epochs=2)
    assert {level for level, *_ in said(caplog)} == {"INFO"}
    assert "Raise" not in caplog.text
    assert ("although all 2 cores" in caplog.text) == (num_workers == cores)


def test_a_gpu_that_waits_for_all_cores_is_worth_a_warning(tmp_path, records, caplog, monkeypatch):
    monkeypatch.setattr(loading_speed, "_num_cores", lambda: 2)
    monkeypatch.setattr(loading_speed, "_LEAST_WAIT_S", 0.0)
    monkeypatch.setattr(loading_speed, "_is_on_cpu", lambda engine: False)
    dataset = RegionDataset(records, transform=Slow(LONG_S))
    with caplog.at_level(logging.INFO):
        train(tmp_path / "stage", RegionLoader(dataset, 2, num_workers=2), max_epochs=1)
    assert [level for level, *_ in said(caplog)] == ["WARNING"]
    assert "give it more cores" in caplog.text


def test_the_time_that_a_slow_loader_will_cost(tmp_path, records, caplog, monkeypatch):
    monkeypatch.setattr(loading_speed, "_num_cores", lambda: 3)
    # Of 3 epochs of 12 steps, 26 are left when the first 10 have been measured; each waits for 2 samples.
    monkeypatch.setattr(loading_speed, "_LEAST_WAIT_S", 26 * 2 * LONG_S)
    dataset = RegionDataset(records, transform=Slow(LONG_S))
    with caplog.at_level(logging.INFO):
        train(tmp_path / "stage", RegionLoader(dataset, 2), max_epochs=3)
    # In the second epoch fewer steps are left than that.
    assert [level for level, *_ in said(caplog)] == ["WARNING", "INFO"]
    minutes = float(re.search(r"wait for the loader for about ([\d.e+-]+) min", caplog.text)[1])
    assert minutes >= 0.99 * 26 * 2 * LONG_S / 60


def test_a_slow_network_is_not(tmp_path, records, caplog):
    with caplog.at_level(logging.INFO):
        train(tmp_path / "stage", RegionLoader(RegionDataset(records), 2), Mean(5 * LONG_S), max_epochs=1)
    ((level, loader, _, network),) = said(caplog)
    assert level == "INFO"
    assert network <= 2 / (5 * LONG_S) < loader


def test_of_loaders_side_by_side_the_slower_counts(tmp_path, records, caplog):
    loaders = {
        "instances": RegionLoader(RegionDataset(records, transform=Slow(LONG_S)), 2),
        "images": RegionLoader(RegionDataset(records), 4),
    }

    def infer(inputs, network, *_, **__):
        return {"logits": network(inputs["instances"])[:, 0]}

    def loss(logits, instance_labels, image_labels):
        return nn.functional.binary_cross_entropy_with_logits(logits, instance_labels)

    options = {"inferer": infer, "loss_function": loss, "prepare_batch": constrained_instances, "max_epochs": 1}
    with caplog.at_level(logging.INFO):
        train(tmp_path / "stage", PairedLoader(loaders, leading="instances"), **options)
    ((_, loader, _, _),) = said(caplog)
    # A step takes 2 samples of the slow one and 4 of the other.
    assert loader <= (2 + 4) / (2 * LONG_S)


def test_a_training_of_few_steps_says_what_it_has_seen(tmp_path, records, caplog):
    with caplog.at_level(logging.INFO):
        train(tmp_path / "stage", RegionLoader(RegionDataset(records[:2], transform=Slow(LONG_S)), 2), max_epochs=1)
    ((level, loader, _, network),) = said(caplog)
    # Too few steps for a warning.
    assert level == "INFO"
    assert loader < network


def test_the_training_is_the_same_without(tmp_path, records, monkeypatch):
    def histories(name):
        dataset = RegionDataset(records, size_px=8, transform=training_augmentation(stain_jitter=0.1))
        torch.manual_seed(0)
        network = nn.Sequential(Mean(), nn.Dropout(0.5), nn.Linear(1, 1))
        stage = train(tmp_path / name, RegionLoader(dataset, 5, balance=True, num_workers=2), network, max_epochs=3)
        return stage.history, stage.trained().state_dict()

    history, weights = histories("with")
    monkeypatch.setattr("shared.handlers.training.LoadingSpeed.attach", lambda *_: None)
    history_without, weights_without = histories("without")
    assert history == history_without
    assert all(torch.equal(values, weights_without[name]) for name, values in weights.items())
