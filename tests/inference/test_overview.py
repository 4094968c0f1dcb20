"""The picture of a whole slide lies on the map's grid."""

import numpy as np
import pytest

from shared.inference.overview import read_overview
from shared.inference.pixel_sizes import PixelSizes
from shared.inference.tiles.map_grid import MapGrid
from shared.wsi import Slide
from tests.wsi.conftest import write_slide


def test_an_overview_near_a_level_is_not_that_level(tmp_path):
    """A slide of 0.2204 um, of which a pixel of the overview has 63.5 of level 0, and the nearest level 64: read as it is, that
    level moves tissue at the far end by half a per cent of the slide, and maps lost the tumour there."""
    width, mpp, (left, right) = 19200, 0.2204, (18000, 18800)
    image = np.full((1280, width, 3), 244, np.uint8)
    image[100:1180, left:right] = (200, 40, 150)
    write_slide(tmp_path / "a.tif", [image[::step, ::step] for step in (1, 8, 64)], mpp)
    with Slide(tmp_path / "a.tif") as slide:
        downsample = PixelSizes(0.5).downsample(slide)
        size = PixelSizes(0.5).size_px(slide, downsample)
        grid = MapGrid.of_image(size, 512, 64, 4)
        overview = read_overview(slide, grid, downsample, 330, tissue_only=True)
        pixel = overview.factor * grid.map_downsample * downsample
        assert 0.0005 < min(abs(level / pixel - 1) for level in slide.level_downsamples) < 0.02
    columns = np.flatnonzero(overview.tissue.any(axis=0))
    assert (columns[0], columns[-1] + 1) == pytest.approx((left / pixel, right / pixel), abs=1)
