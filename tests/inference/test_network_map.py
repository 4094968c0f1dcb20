import numpy as np
import torch
from tqdm import tqdm

from shared.inference import MapGrid, ProbabilityMap
from shared.inference.network_map import fill_map
from shared.inference.stitching import CroppedCores
from shared.inference.stopwatch import Stopwatch
from shared.inference.tile_network import TileNetwork


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
