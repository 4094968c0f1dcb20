import numpy as np
import pytest
import torch

from shared.inference import MapGrid
from shared.inference.tiles.tile_reader import read_batches
from shared.wsi import Slide


@pytest.mark.parametrize("batch_size", [1, 7, 100])
@pytest.mark.parametrize("num_workers", [1, 3])
def test_every_wanted_tile_comes_once_with_its_own_pixels(tmp_path, write_slide, batch_size, num_workers):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (900, 1300, 3), dtype=np.uint8)
    grid = MapGrid.of_image((1300, 900), tile_size_px=128, margin_px=16, map_downsample=4)
    wanted = rng.random(grid.num_tiles) < 0.4
    found = {}
    with Slide(write_slide(tmp_path / "a.tif", rgb)) as slide:
        for positions, tiles in read_batches(slide, grid, wanted, 1.0, batch_size, torch.device("cpu"), num_workers):
            assert (tiles.dtype, tiles.shape) == (torch.uint8, (len(positions), 128, 128, 3))
            assert len(positions) == min(batch_size, wanted.sum() - len(found))
            found |= dict(zip(positions, tiles, strict=True))
    assert sorted(found) == [tuple(tile) for tile in np.argwhere(wanted).tolist()]
    padded = np.pad(rgb, ((16, 300), (16, 300), (0, 0)), mode="reflect")
    for (row, column), tile in found.items():
        np.testing.assert_array_equal(tile, padded[row * 96 : row * 96 + 128, column * 96 : column * 96 + 128])


def test_a_reader_that_is_left_early_stops_its_threads(tmp_path, write_slide):
    grid = MapGrid.of_image((1300, 900), tile_size_px=128, margin_px=0, map_downsample=4)
    with Slide(write_slide(tmp_path / "a.tif", np.zeros((900, 1300, 3), np.uint8))) as slide:
        batches = read_batches(slide, grid, np.ones(grid.num_tiles, bool), 1.0, 4, torch.device("cpu"), 2)
        next(batches)
        batches.close()
    with pytest.raises(StopIteration):
        next(batches)
