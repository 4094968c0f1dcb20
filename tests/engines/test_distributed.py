"""Two real processes, forked so that they need not import everything again."""

from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn

from shared.data import RegionDataset, RegionLoader
from shared.engines import LatticeScorer, initialize_distributed
from shared.engines.distributed import (
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


@pytest.mark.parametrize(
    ("num_devices", "kind", "backend"), [(0, "cpu", "gloo"), (1, "cpu", "gloo"), (2, "cuda", "nccl"), (3, "cuda", "nccl")]
)
def test_every_rank_chooses_the_same_backend(num_devices, kind, backend, monkeypatch):
    """Also where there are fewer devices than processes."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_devices)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(dist, "init_process_group", chosen.append)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for local_rank in range(2):
        monkeypatch.setenv("LOCAL_RANK", str(local_rank))
        device = initialize_distributed()
        assert (device.type, device.index) == (kind, local_rank if kind == "cuda" else None)
    assert chosen == [backend, backend]
