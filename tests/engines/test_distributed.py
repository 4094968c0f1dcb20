"""Two real processes, forked so that they need not import everything again."""

import re
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Events
from torch import nn

from shared.data import RegionDataset, RegionLoader
from shared.engines import LatticeScorer, initialize_distributed, region_validator
from shared.engines.distributed import (
    average,
    average_buffers,
    barrier,
    broadcast_from_first,
    gather_in_order,
    gather_on_first,
    num_processes,
    rank,
    unwrap,
)

from .conftest import in_processes


def test_one_process():
    assert (rank(), num_processes()) == (0, 1)
    barrier()
    assert gather_in_order([3, 1]) == gather_on_first([3, 1]) == [3, 1]
    assert broadcast_from_first("a") == "a"
    network = nn.BatchNorm2d(2)
    average_buffers(network)
    assert unwrap(network) is network


@pytest.mark.parametrize("world", [2, 3])
def test_lists_and_buffers(world):
    def work(number):
        assert (rank(), num_processes()) == (number, world)
        for length in (0, 1, 2, 7):
            share = list(range(number, length, world))
            assert gather_in_order(share) == list(range(length))
            assert gather_on_first(share) == ([] if number else list(range(length)))
        assert broadcast_from_first({"rank": number}) == {"rank": 0}
        network = nn.BatchNorm2d(2)
        network.running_mean += number
        network.num_batches_tracked += 5
        average_buffers(network)
        assert torch.allclose(network.running_mean, torch.full((2,), (world - 1) / 2))
        assert network.num_batches_tracked == 5

    in_processes(work, world)


def test_a_training_shared_by_two(tmp_path, make_stage, make_classifier, records):
    """Equal shares and group normalisation: the mean of the gradients is the gradient of the mean."""

    def train(folder, _rank=0):
        loader = RegionLoader(RegionDataset(records), 4)
        network = make_classifier("group")
        # SGD: Adam would turn rounding errors of tiny gradients into steps.
        stage = make_stage(folder, network=network, train_data_loader=loader, optimizer=partial(torch.optim.SGD, lr=0.1))
        stage.run()
        expected = torch.load(folder / "model.pt", weights_only=True)
        # Every process ends with the same weights, and the network is usable without its wrapper.
        assert all(torch.equal(values, expected[name]) for name, values in stage.plain_network.state_dict().items())
        scores = LatticeScorer(RegionDataset(records), 2, "cpu", batch_size=2)(stage.network)
        if _rank == 0:
            torch.save(scores, folder / "scores.pt")
        assert scores.shape == (len(records), 4)

    train(tmp_path / "one")
    in_processes(partial(train, tmp_path / "two"))
    one, two = (torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-5)
    one, two = (torch.load(tmp_path / name / "scores.pt", weights_only=True) for name in ("one", "two"))
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
    assert not (tmp_path / "two/resume.pt").exists()


OWN = "cpu:gloo,cuda:nccl"
SHARED = "cpu:gloo,cuda:gloo"


@pytest.mark.parametrize(
    ("visible", "devices", "backend", "said"),
    [
        (["", ""], ["cpu", "cpu"], "gloo", None),
        (["ab", "ab"], ["cuda:0", "cuda:1"], OWN, None),
        (["abc", "abc"], ["cuda:0", "cuda:1"], OWN, None),
        # SLURM shows each task its own.
        (["a", "b"], ["cuda:0", "cuda:0"], OWN, None),
        (["a", "a"], ["cuda:0", "cuda:0"], SHARED, r"2 processes share 1 GPU\(s\), .* \(--nproc_per_node=1\)"),
        (["ab", "ab", "ab"], ["cuda:0", "cuda:1", "cuda:0"], SHARED, r"3 processes share 2 GPU\(s\)"),
        (["a", ""], ["cpu", "cpu"], "gloo", "1 of 2 processes see no GPU, so all processes compute on the CPU"),
    ],
)
def test_devices_and_how_they_are_joined(visible, devices, backend, said, monkeypatch, caplog):
    """The GPUs that each process sees, a letter each; all processes choose the same backend."""

    def work(number):
        chosen = {}
        seen = visible[number]

        def join(backend, **options):
            """Without the processes' devices, but not before all are there."""
            chosen.update(options, backend=backend)
            options["store"].set(str(number), "")
            for other in range(len(visible) if number == 0 else 0):
                options["store"].get(str(other))

        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(seen))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(seen))
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.update(current=device))
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=seen[device.index]))
        monkeypatch.setattr(dist, "init_process_group", join)
        device = initialize_distributed()
        assert (device, chosen["backend"]) == (torch.device(devices[number]), backend)
        assert chosen["device_id"] == (device if backend == OWN else None)
        assert chosen.get("current") == (device if device.type == "cuda" else None)
        assert (chosen["rank"], chosen["world_size"]) == (number, len(visible))
        assert chosen["timeout"].total_seconds() > 3600
        expected = [said] if said and number == 0 else []
        assert len(caplog.messages) == len(expected)
        assert all(re.match(pattern, message) for pattern, message in zip(expected, caplog.messages, strict=True))

    in_processes(work, len(visible), join=False)


def test_objects_and_tensors_of_a_group_with_two_backends():
    """As on GPUs, where the one is NCCL."""

    def work(number):
        dist.init_process_group("cpu:gloo,cuda:gloo")
        barrier()
        assert gather_in_order([number]) == [0, 1]
        assert broadcast_from_first(number) == 0
        assert average(torch.tensor([2.0 * number])) == 1
        dist.destroy_process_group()

    in_processes(work, join=False)


def test_validation_of_fewer_images_than_processes(records):
    """Five processes and four images: the last one has none, and all have the metrics of one process."""
    datasets = [RegionDataset(records[:number], pixel_labels="mask") for number in (4, 12)]

    def metrics_of(dataset):
        network = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(network.weight, 0.01)
        validator = region_validator(dataset, FloatOf(network), "cpu", batch_size=4)
        validator.run(3)
        validator.run(4)
        return validator.state.metrics

    alone = [metrics_of(dataset) for dataset in datasets]
    assert all(len(metrics) > 8 for metrics in alone)

    def work(_):
        for dataset, expected in zip(datasets, alone, strict=True):
            assert metrics_of(dataset) == pytest.approx(expected, nan_ok=True)

    in_processes(work, 5)


class FloatOf(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return (self.network(images.float()) - 3).sigmoid()


def test_each_process_draws_its_own_augmentation(tmp_path, make_stage):
    """Dropout and the tiles that are augmented on the device draw from torch's generator."""
    drawn = []

    class Draw:
        def attach(self, engine):
            engine.add_event_handler(Events.EPOCH_STARTED, lambda _: drawn.append(torch.rand(3).tolist()))

    def work(number):
        make_stage(tmp_path / "stage", max_epochs=2, train_handlers=[Draw()]).run()
        draws = gather_in_order([drawn])
        epochs = [tuple(draw) for process in draws for draw in process]
        assert len(epochs) == len(set(epochs)) == 4
        # A single process, which has the numbers of the first one, ends as it always did.
        for epoch, draw in enumerate(draws[0]):
            torch.manual_seed(epoch)
            assert torch.rand(3).tolist() == draw

    in_processes(work)
