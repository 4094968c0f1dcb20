"""The region of a map that is least certain."""

import numpy as np
import pytest

from scripts.label_server.tasks.far_regions import best_region
from scripts.label_server.tasks.uncertainty import most_uncertain_region, uncertainty
from shared.geometry.tile_grid import TileGrid
from shared.writers import write_ome_tiff


class Rows:
    def __init__(self, values):
        self.values, self.shape = values, values.shape

    def read_rows(self, start, stop):
        return self.values[start:stop]


@pytest.mark.parametrize("shape", [(300, 420), (90, 3000)])
def test_the_box_lies_on_the_uncertain_square(tmp_path, shape):
    values = np.zeros(shape, np.uint8)
    values[:60, :90] = 255
    values[40:70, 200:230] = 128
    write_ome_tiff(tmp_path / "a.ome.tif", Rows(values), 2.0)
    row = {"map_mpp": 2.0, "mpp": 0.5, "width_px": 4 * shape[1], "height_px": 4 * shape[0]}
    found = most_uncertain_region(tmp_path / "a.ome.tif", row, (240, 240))
    x, y, width, height = found.box
    assert (width, height) == (240, 240)
    # 30 map pixels on each side are uncertain by 1, of a window of 60.
    assert x <= 800 <= 920 <= x + width
    assert y <= 160 <= 280 <= y + height
    assert found.score == pytest.approx(0.25, abs=0.03)


def test_a_region_larger_than_the_slide_is_the_slide(tmp_path):
    write_ome_tiff(tmp_path / "a.ome.tif", Rows(np.full((50, 40), 64, np.uint8)), 2.0)
    row = {"map_mpp": 2.0, "mpp": 0.5, "width_px": 157, "height_px": 199}
    assert most_uncertain_region(tmp_path / "a.ome.tif", row, (1024, 1024)).box == (0, 0, 157, 199)


def test_of_several_classes_the_lead_of_the_likeliest_counts():
    values = np.array([[[0, 255, 85, 10]], [[0, 0, 85, 120]], [[0, 0, 85, 125]]], np.uint8)
    assert uncertainty(values)[0] == pytest.approx([0, 0, 1, 1 - 5 / 255])


def cells(slide_mpp):
    """Corners of 32 px of 1 um on a slide, as they are stored, and the side of a cell, in level-0 pixels."""
    grid = TileGrid.for_mpp((9000, 7000), slide_mpp, 32, 1.0, 0, [1.0, 4.0, 16.0])
    return grid.positions(), grid.tile_extent_px


# A scanner's pixel sizes: the corners of all but the first are rounded.
@pytest.mark.parametrize("slide_mpp", [0.25, 0.2268, 0.2305, 0.499])
@pytest.mark.parametrize("start", [(0, 0), (57, 301)])
def test_the_region_of_cells_holds_the_best_one_whatever_the_pixel_size(slide_mpp, start):
    corners, side = cells(slide_mpp)
    for index in range(0, len(corners), 41):
        scores = np.zeros(len(corners), np.float32)
        scores[index] = 1
        (x, y, width, height), mean = best_region(corners + start, side, scores, (1024, 1024))
        left, top = corners[index] + start
        assert x <= left + side / 2 < x + width
        assert y <= top + side / 2 < y + height
        assert mean == pytest.approx(1 / round(1024 / side) ** 2)


@pytest.mark.parametrize("slide_mpp", [0.25, 0.2268, 0.2305, 0.499])
def test_no_cell_is_lost_whatever_the_pixel_size(slide_mpp):
    corners, side = cells(slide_mpp)
    assert best_region(corners, side, np.ones(len(corners), np.float32), (10_000, 10_000))[1] == 1


def test_of_cells_on_no_common_grid_none_takes_the_place_of_a_better_one():
    corners = np.array([(0, 0), (100, 0), (200, 0), (140, 0)])
    (x, _, width, _), mean = best_region(corners, 100.0, np.array([0, 1, 0, 0.2], np.float32), (100, 100))
    assert (x, width, mean) == (100, 100, 1)
