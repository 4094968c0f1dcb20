import numpy as np
import pytest
import torch

from shared.inference import MapGrid, ProbabilityMap
from shared.inference.tiles.stitching import BlendedCores, CroppedCores, check_blending, core_of


def grid_of(margin_px=32, size=(1000, 700)):
    return MapGrid.of_image(size, tile_size_px=256, margin_px=margin_px, map_downsample=4)


def naive_blend(grid, wanted, tiles):
    """Sums and weights of the whole map, with a frame for what reaches beyond it; NaN where there is no tile."""
    (margin, _), (height, width) = grid.margin_shape, grid.core_shape
    rows, columns = grid.num_tiles
    frame = (rows * height + 2 * margin, columns * width + 2 * margin)
    total, weights = np.zeros((tiles.shape[2], *frame)), np.zeros(frame)
    ramp = np.array([min(1, (t + 0.5) / (2 * margin), (64 - t - 0.5) / (2 * margin)) for t in range(64)])
    weight = ramp[:, None] * ramp[None, :]
    for row, column in np.argwhere(wanted):
        place = (slice(row * height, row * height + 64), slice(column * width, column * width + 64))
        total[(slice(None), place[0], place[1])] += tiles[row, column] * weight
        weights[place] += weight
    with np.errstate(invalid="ignore"):
        mean = total / weights
    return mean[:, margin : margin + grid.map_shape[0], margin : margin + grid.map_shape[1]]


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("margin_px", [32, 64, 80])
def test_blending_equals_sums_over_the_whole_map(tmp_path, share, margin_px):
    grid, rng = grid_of(margin_px), np.random.default_rng(0)
    wanted = rng.random(grid.num_tiles) < share
    tiles = rng.random((*grid.num_tiles, 2, 64, 64)).astype(np.float32)
    with ProbabilityMap(tmp_path / "map", grid, num_classes=2) as probability_map:
        blended = BlendedCores(probability_map, grid, wanted)
        for row, column in rng.permutation(np.argwhere(wanted)).tolist():
            blended.add((row, column), tiles[row, column])
        assert len(blended._cores) == 0
        stored = np.stack([probability_map.read_rows(0, 175, index) for index in (0, 1)])
    expected = naive_blend(grid, wanted, tiles)
    height, width = grid.core_shape
    is_wanted = np.repeat(np.repeat(wanted, height, 0), width, 1)[:175, :250]
    assert (stored[:, ~is_wanted] == 0).all()
    np.testing.assert_allclose(stored[:, is_wanted], expected[:, is_wanted] * 255, atol=0.501)


def test_tiles_that_agree_are_left_as_they_are_and_a_row_is_held(tmp_path):
    grid = grid_of(size=(4000, 2000))
    wanted = np.ones(grid.num_tiles, bool)
    held = []
    with ProbabilityMap(tmp_path / "map", grid) as probability_map:
        blended = BlendedCores(probability_map, grid, wanted)
        for tile in np.argwhere(wanted).tolist():
            blended.add(tuple(tile), np.full((1, 64, 64), 0.6, np.float32))
            held.append(len(blended._cores))
        assert (probability_map.read_rows(0, 500) == 153).all()
    assert max(held) <= grid.num_tiles[1] * 2 + 2


def test_without_margins_blending_is_cropping(tmp_path):
    grid, rng = grid_of(margin_px=0), np.random.default_rng(0)
    tiles = torch.from_numpy(rng.random((12, 1, 64, 64)).astype(np.float32))
    stored = []
    for name in ("blend", "crop"):
        with ProbabilityMap(tmp_path / name, grid) as probability_map:
            wanted = np.ones(grid.num_tiles, bool)
            stitching = BlendedCores(probability_map, grid, wanted) if name == "blend" else CroppedCores(probability_map, grid)
            for tile, values in zip(np.argwhere(wanted).tolist(), stitching.prepare(tiles).numpy(), strict=True):
                stitching.add(tuple(tile), values)
            stored.append(probability_map.read_rows(0, 175))
    np.testing.assert_array_equal(*stored)


def test_cores_leave_the_margin_out(tmp_path):
    grid = grid_of()
    tiles = torch.linspace(0, 1, 64).expand(2, 3, 64, 64)
    assert core_of(tiles, grid).shape == (2, 3, 48, 48)
    with ProbabilityMap(tmp_path / "map", grid) as probability_map:
        cores = CroppedCores(probability_map, grid).prepare(tiles)
    assert cores.dtype == torch.uint8
    assert cores[0, 0, 0].tolist() == [round(255 * (8 + index) / 63) for index in range(48)]


def test_margins_wider_than_a_core_cannot_be_blended():
    with pytest.raises(ValueError, match="at most a third of a tile on each side, got a margin of 96 px of tiles of 256 px"):
        check_blending(grid_of(margin_px=96).x)
