import numpy as np
import pytest
import torch
from tqdm import tqdm

from shared.inference import MapGrid, ProbabilityMap
from shared.inference.stopwatch import Stopwatch
from shared.inference.tiles.network_map import fill_map
from shared.inference.tiles.stitching import CroppedCores
from shared.inference.tiles.tile_network import TileNetwork


class Columns(torch.nn.Module):
    def forward(self, images):
        return torch.logit(images[:, :1] / 255)


class Table:
    def __init__(self):
        self.rows = {}

    def add(self, tile, probabilities):
        self.rows[tile] = probabilities


def test_every_batch_is_stored_with_its_cores_and_their_means(tmp_path):
    grid = MapGrid.of_image((1000, 1000), tile_size_px=64, margin_px=8, map_downsample=4)
    tiles = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    tiles[:, :, :, 0] = torch.arange(64) * 2
    batches = [([(0, 0), (3, 4)], tiles), ([(20, 20)], tiles[:1])]
    table = Table()
    with ProbabilityMap(tmp_path / "map", grid) as probability_map, tqdm(total=3, disable=True) as progress:
        stitching = CroppedCores(probability_map, grid)
        fill_map(stitching, grid, batches, TileNetwork(Columns()), progress, Stopwatch(), table)
        stored = probability_map.read_rows(0, 250)
    # Map pixel k of the core is the mean of columns 8 + 4k .. 11 + 4k, which hold twice their index.
    core = [2 * (8 + 4 * k) + 3 for k in range(12)]
    for row, column in ((0, 0), (3, 4), (20, 20)):
        assert stored[12 * row + 5, 12 * column : 12 * column + 12].tolist() == core[: 250 - 12 * column]
        assert abs(table.rows[row, column][0] - np.mean(core) / 255) < 1e-4
    assert np.count_nonzero(stored) == (12 * 12 * 2) + 10 * 10


def columns_of(tmp_path, device, move=lambda tensor: tensor):
    """The map of three batches of columns, made on a device."""
    grid = MapGrid.of_image((256, 192), tile_size_px=64, margin_px=0, map_downsample=1)
    tiles = torch.zeros(4, 64, 64, 3, dtype=torch.uint8)
    tiles[:, :, :, 0] = torch.arange(64) * 3 + 20
    batches = [([(row, column) for column in range(4)], tiles.to(device)) for row in range(3)]
    network = TileNetwork(Columns())
    with ProbabilityMap(tmp_path / "map", grid) as probability_map, tqdm(disable=True) as progress:
        stitching = CroppedCores(probability_map, grid)
        fill_map(stitching, grid, batches, lambda *args: move(network(*args)), progress, Stopwatch())
        return probability_map.read_rows(0, 192)


class Queue:
    """Copies that have been ordered on one device's stream and are made when someone waits for them."""

    def __init__(self):
        self.orders = []


QUEUES = {"cuda:0": Queue(), "cuda:1": Queue()}


class OnSecondDevice(torch.Tensor):
    """A tensor of the CPU that says that it is of cuda:1: a copy to the host that nobody waits for leaves what was there."""

    is_cuda, device = True, torch.device("cuda:1")

    def to(self, *arguments, non_blocking=False):
        if not non_blocking:
            return super().to(*arguments)
        assert arguments == ("cpu",)
        source, target = self.as_subclass(torch.Tensor).clone(), torch.zeros(self.shape, dtype=self.dtype)
        QUEUES["cuda:1"].orders.append(lambda: target.copy_(source))
        return target


class Event:
    def record(self, stream=None):
        # As CUDA's: without a stream that of the current device, which is the first.
        self.stream = stream or QUEUES["cuda:0"]

    def synchronize(self):
        while self.stream.orders:
            self.stream.orders.pop(0)()


def test_a_batch_of_another_than_the_current_device_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: QUEUES[str(device or "cuda:0")])
    found = columns_of(tmp_path, "cpu", lambda tensor: tensor.as_subclass(OnSecondDevice))
    assert found.any()
    np.testing.assert_array_equal(found, columns_of(tmp_path, "cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_the_second_gpu_makes_the_same_map(tmp_path):
    np.testing.assert_array_equal(columns_of(tmp_path, "cuda:1"), columns_of(tmp_path, "cpu"))
