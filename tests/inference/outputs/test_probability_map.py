import numpy as np
import pytest

from shared.inference import MapGrid, ProbabilityMap


@pytest.fixture
def grid():
    return MapGrid.of_image((1000, 700), tile_size_px=256, margin_px=32, map_downsample=4)


@pytest.mark.parametrize("missing", [{(1, 1)}, {(0, 0), (1, 0), (1, 1), (1, 5), (2, 5)}, {(2, column) for column in range(6)}])
def test_tiles_in_any_order_become_rows(tmp_path, grid, missing):
    rows, columns = grid.num_tiles
    height, width = grid.core_shape
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 256, (3, rows * height, columns * width), dtype=np.uint8)
    with ProbabilityMap(tmp_path / "map", grid, num_classes=3) as probability_map:
        for row, column in rng.permutation([(r, c) for r in range(rows) for c in range(columns) if (r, c) not in missing]):
            core = whole[:, row * height : (row + 1) * height, column * width : (column + 1) * width]
            probability_map.write_tile((row, column), core)
        for row, column in missing:
            whole[:, row * height : (row + 1) * height, column * width : (column + 1) * width] = 0
        expected = whole[:, :175, :250]
        assert probability_map.shape == (175, 250)
        assert probability_map.max_values.tolist() == expected.max(axis=(1, 2)).tolist()
        for start, stop in [(0, 175), (0, 1), (47, 49), (30, 170), (174, 175)]:
            for index in range(3):
                rows_of_class = probability_map.of_class(index).read_rows(start, stop)
                np.testing.assert_array_equal(rows_of_class, expected[index, start:stop])
            np.testing.assert_array_equal(probability_map.read_classes(start, stop), expected[:, start:stop].argmax(axis=0))
    assert not list(tmp_path.iterdir())


def test_the_largest_value_is_of_the_map_not_of_what_lies_outside(tmp_path, grid):
    core = np.zeros((1, *grid.core_shape), np.uint8)
    core[0, -1, -1] = 9
    with ProbabilityMap(tmp_path / "map", grid) as probability_map:
        probability_map.write_tile((grid.num_tiles[0] - 1, grid.num_tiles[1] - 1), core)
        assert probability_map.max_values.tolist() == [0]


def test_rejects_another_shape(tmp_path, grid):
    with ProbabilityMap(tmp_path / "map", grid) as probability_map, pytest.raises(ValueError, match=r"\(1, 48, 48\)"):
        probability_map.write_tile((0, 0), np.zeros((64, 64), np.uint8))


def test_a_disk_that_takes_a_part_of_a_write_gets_the_rest(tmp_path, grid):
    """The system may write less than it is given, as on a disk that is filling up, and says so by a number alone."""

    class Partial:
        def __init__(self, file):
            self._file = file

        def write(self, content):
            return self._file.write(content[:100])

        def __getattr__(self, name):
            return getattr(self._file, name)

    core = np.random.default_rng(0).integers(0, 256, (1, *grid.core_shape), dtype=np.uint8)
    with ProbabilityMap(tmp_path / "map", grid) as probability_map:
        probability_map._file = Partial(probability_map._file)
        probability_map.write_tile((0, 0), core)
        np.testing.assert_array_equal(probability_map.read_rows(0, 48)[:, :48], core[0])
