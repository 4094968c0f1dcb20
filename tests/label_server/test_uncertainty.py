"""The region of a map that is least certain."""

import numpy as np
import pytest

from scripts.label_server.tasks.uncertainty import most_uncertain_region, uncertainty
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
