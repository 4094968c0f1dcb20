"""Networks and images so small that a training takes a fraction of a second."""

import os
from functools import partial

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from torch import nn

from shared.data import RegionDataset, RegionLoader, training_augmentation
from shared.engines import StageTrainer, TrainingDevice, initialize_distributed, instance_and_label
from shared.networks import PixelNormalization, replace_batch_norm
from tests.free_port import free_port

SIZE_PX = 8
ADAM = partial(torch.optim.Adam, lr=0.01, fused=True)


@pytest.fixture
def make_classifier():
    """A classifier with one logit, ``(B, 1)``, and everything that a resumed training could get wrong."""

    def make(norm="batch", seed=0, width=8, dropout=0.0):
        torch.manual_seed(seed)
        layers = [PixelNormalization(), nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.Conv2d(width, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(dropout)]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1)]
        return replace_batch_norm(nn.Sequential(*layers), norm)

    return make


@pytest.fixture
def records(tmp_path):
    """Twelve images of 8 x 8 px, labels 0 and 1 in turn: tumour is red and fills a quarter or more, as the masks say."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    made = []
    for index in range(12):
        mask = np.zeros((SIZE_PX, SIZE_PX), bool)
        if index % 2:
            row, column = rng.integers(0, 2, 2) * 4
            mask[row : row + 4, column : column + 4] = True
        image = rng.integers(90, 130, (SIZE_PX, SIZE_PX, 3))
        image[mask, 0] += 100
        Image.fromarray(np.uint8(image)).save(folder / f"{index:02d}.png")
        Image.fromarray(np.uint8(mask) * 255).save(folder / f"{index:02d}_mask.png")
        mask_path = str(folder / f"{index:02d}_mask.png")
        made.append({"image": str(folder / f"{index:02d}.png"), "label": index % 2, "mask": mask_path, "row": index + 2})
    return made


@pytest.fixture
def make_stage(records, make_classifier):
    """A StageTrainer of image labels in ``folder``; every argument can be replaced, the optimizer by what makes one."""

    def make(folder, num_workers=0, optimizer=ADAM, **options):
        dataset = RegionDataset(records, transform=training_augmentation(stain_jitter=0.1))
        network = options["network"] if "network" in options else make_classifier(dropout=0.3)
        defaults = {
            "max_epochs": 4,
            "train_data_loader": RegionLoader(dataset, 5, balance=True, num_workers=num_workers),
            "network": network,
            "optimizer": optimizer(network.parameters()),
            "loss_function": nn.BCEWithLogitsLoss(),
            "compute": TrainingDevice("cpu", None),
            "prepare_batch": instance_and_label,
        }
        return StageTrainer(folder.parent, folder.name, **(defaults | options))

    return make


class Interruption(Exception):
    """What a test kills a training with."""


class InterruptAt:
    """Raises an `Interruption` in an epoch, at an Ignite event."""

    def __init__(self, epoch, event):
        self.epoch, self.event = epoch, event

    def attach(self, engine):
        engine.add_event_handler(self.event, self)

    def __call__(self, engine):
        if engine.state.epoch == self.epoch:
            raise Interruption


@pytest.fixture
def interrupt_at():
    return InterruptAt


@pytest.fixture
def interruption():
    return Interruption


def _process(number, world, port, work, join):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    if not join:
        work(number)
        return
    assert initialize_distributed("gloo") == torch.device("cpu")
    try:
        work(number)
    finally:
        dist.destroy_process_group()


def in_processes(work, world=2, join=True):
    """Call ``work(rank)`` in real processes, forked so that they need not import everything again; of one group, if they join."""
    process = partial(_process, world=world, port=free_port(), work=work, join=join)
    mp.start_processes(process, nprocs=world, start_method="fork")
