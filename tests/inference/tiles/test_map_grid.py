import numpy as np
import pytest

from shared.inference import MapGrid


@pytest.mark.parametrize("size", [(1000, 300), (301, 999), (513, 512), (2048, 2048), (1, 1)])
@pytest.mark.parametrize("downsample", [1, 4])
def test_cores_cover_the_map_once(size, downsample):
    grid = MapGrid.of_image(size, tile_size_px=512, margin_px=64, map_downsample=downsample)
    rows, columns = grid.num_tiles
    height, width = grid.core_shape
    assert 0 <= rows * height - grid.map_shape[0] < height
    assert 0 <= columns * width - grid.map_shape[1] < width
    assert grid.map_shape == (-(-size[1] // downsample), -(-size[0] // downsample))


@pytest.mark.parametrize("size", [(224, 224), (112, 112), (224, 160), (1, 511)])
@pytest.mark.parametrize("downsample", [1, 4])
def test_small_images_have_no_frame(size, downsample):
    grid = MapGrid.of_image(size, tile_size_px=512, margin_px=64, map_downsample=downsample)
    (block,) = grid.blocks(np.ones((1, 1), bool), 2048)
    assert (block.origin_px, block.size_px) == ((0, 0), size)
    assert grid.core_shape == grid.map_tile_shape == grid.map_shape


def test_blocks_hold_every_wanted_tile_once_at_its_place():
    grid = MapGrid.of_image((3000, 2000), tile_size_px=256, margin_px=32, map_downsample=1)
    wanted = np.random.default_rng(0).random(grid.num_tiles) < 0.2
    places = {}
    for block in grid.blocks(wanted, 600):
        for tile in block.tiles:
            rows, columns = block.offset(tile)
            assert 0 <= rows.start < rows.stop <= block.size_px[1]
            assert 0 <= columns.start < columns.stop <= block.size_px[0]
            assert tile not in places
            places[tile] = (block.origin_px[0] + columns.start, block.origin_px[1] + rows.start)
    assert places == {(r, c): (c * 192 - 32, r * 192 - 32) for r, c in np.argwhere(wanted).tolist()}


def test_tiles_on_a_mask_equal_a_naive_loop():
    grid = MapGrid.of_image((3000, 2000), tile_size_px=256, margin_px=32, map_downsample=1)
    mask = np.random.default_rng(0).random((-(-2000 // 50), 3000 // 50)) < 0.01
    expected = np.zeros(grid.num_tiles, bool)
    for row in range(grid.num_tiles[0]):
        for column in range(grid.num_tiles[1]):
            cells = mask[row * 192 // 50 : -(-(row + 1) * 192 // 50), column * 192 // 50 : -(-(column + 1) * 192 // 50)]
            expected[row, column] = cells.any()
    np.testing.assert_array_equal(grid.tiles_on(mask, 50), expected)
    assert 0 < expected.sum() < expected.size


@pytest.mark.parametrize(
    ("tile_size_px", "margin_px", "map_downsample", "message"),
    [(256, 128, 1, "2 \\* margin_px < tile"), (256, -1, 1, "margin_px=-1"), (250, 0, 4, "multiples of map_downsample")],
)
def test_rejects_impossible_tiles(tile_size_px, margin_px, map_downsample, message):
    with pytest.raises(ValueError, match=message):
        MapGrid.of_image((1000, 1000), tile_size_px, margin_px, map_downsample)
