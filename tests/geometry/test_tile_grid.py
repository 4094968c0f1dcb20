import numpy as np
import pytest

from shared.geometry import TileGrid


def covered_pixels(grid):
    """How many tiles cover each level-0 pixel, by drawing them: (H, W)."""
    width, height = grid.slide_size_px
    count = np.zeros((height, width), dtype=int)
    for x, y in grid.positions():
        count[y : y + round(grid.tile_extent_px), x : x + round(grid.tile_extent_px)] += 1
    return count


@pytest.mark.parametrize("slide_size_px", [(100, 60), (101, 59), (64, 32), (31, 200), (5, 7)])
def test_tiles_cover_every_pixel_once(slide_size_px):
    assert (covered_pixels(TileGrid(slide_size_px, tile_size_px=32)) == 1).all()


@pytest.mark.parametrize(("downsample", "stride_px"), [(2.0, 16), (4 / 3, 24), (0.5, 20), (2.0005, 31)])
def test_overlapping_tiles_leave_no_gap(downsample, stride_px):
    grid = TileGrid((301, 173), tile_size_px=32, downsample=downsample, stride_px=stride_px)
    assert (covered_pixels(grid) >= 1).all()


def test_border_tiles_are_there_and_none_beyond_them():
    grid = TileGrid((1001, 513), tile_size_px=256)
    assert (grid.num_columns, grid.num_rows) == (4, 3)
    np.testing.assert_array_equal(grid.positions()[-1], (768, 512))
    # A slide that ends with a tile gets no empty one behind it; nor does one smaller than a tile.
    assert len(TileGrid((1024, 512), tile_size_px=256)) == 4 * 2
    assert TileGrid((10, 10), tile_size_px=256).positions().tolist() == [[0, 0]]


def test_positions_are_row_major_xy():
    grid = TileGrid((30, 20), tile_size_px=10)
    assert grid.positions().tolist() == [[0, 0], [10, 0], [20, 0], [0, 10], [10, 10], [20, 10]]


def test_rounding_does_not_add_up():
    # 0.5 um tiles of 256 px on a slide of 0.375 um: 256 * 4 / 3 = 341.33 px each, the 30th at 30 * 341.33 = 10240.
    grid = TileGrid.for_mpp((20000, 300), slide_mpp=0.375, tile_size_px=256, mpp=0.5)
    assert grid.positions()[[1, 2, 30], 0].tolist() == [341, 683, 10240]


def test_grid_steps_by_the_level_that_is_read():
    assert TileGrid.for_mpp((5000, 5000), 0.499, 256, 0.5).positions()[1].tolist() == [256, 0]
    grid = TileGrid.for_mpp((5000, 5000), 0.25, 1000, 0.5, level_downsamples=(1.0, 2.004))
    assert grid.positions()[1].tolist() == [2004, 0]


def test_batches_are_the_positions_in_runs():
    grid = TileGrid((1001, 513), tile_size_px=100)
    batches = list(grid.batches(16))
    assert [len(batch) for batch in batches] == [16] * 4 + [2]
    np.testing.assert_array_equal(np.concatenate(batches), grid.positions())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tile_size_px": 0}, "tile 0"),
        ({"slide_size_px": (0, 5)}, r"slide \(0, 5\)"),
        ({"downsample": 0.0}, "downsample must be positive, got 0.0"),
        ({"stride_px": 33}, "stride_px 33 must lie in 1..32"),
    ],
)
def test_rejects_impossible_grids(arguments, message):
    with pytest.raises(ValueError, match=message):
        TileGrid(**{"slide_size_px": (100, 100), "tile_size_px": 32, **arguments})
