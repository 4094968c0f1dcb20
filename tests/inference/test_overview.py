"""The picture of a whole slide lies on the map's grid."""

import numpy as np
import pytest
import torch
from shapely import box
from shapely.affinity import translate
from torch import nn

from shared.inference import Compute, Outputs, SlideMapper, Tiles, Tissue
from shared.inference.overview import Overview, read_overview
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


@pytest.mark.parametrize(("height", "width", "factor"), [(7, 11, 4), (8, 12, 4), (9, 13, 4), (5, 3, 7), (6, 5, 1)])
def test_what_lies_beyond_the_map_counts_in_no_number(height, width, factor):
    """Compared with a count of map pixels, one by one."""
    rng = np.random.default_rng(0)
    shape = -(-height // factor), -(-width // factor)
    tissue = rng.random(shape) < 0.7
    tissue[-1, -1] = True
    overview = Overview(np.zeros((*shape, 3), np.uint8), tissue, factor, tissue, (height, width))
    probability = rng.random(shape, dtype=np.float32)
    is_tissue, values = (np.kron(cells, np.ones((factor, factor)))[:height, :width] for cells in (tissue, probability))
    is_tissue = is_tissue.astype(bool)
    assert overview.tissue_pixels == is_tissue.sum()
    assert overview.mean_in_tissue(probability) == pytest.approx(values[is_tissue].mean())
    whole = box(0, 0, width, height)
    assert overview.share([whole]) == 1
    # The last column of cells alone.
    left = (shape[1] - 1) * factor
    expected = is_tissue[:, left:].sum() / is_tissue.sum()
    assert overview.share([box(left, 0, width, height)]) == pytest.approx(expected)
    assert overview.share([translate(whole, width)]) == 0


def test_a_narrow_slide_of_tumour_is_tumour_throughout(tmp_path):
    """An overview pixel has 10 x 10 map pixels of 253 x 1000: the last column reaches 7 beyond."""

    class Always(nn.Module):
        def forward(self, images):
            return torch.full((len(images), 1), 20.0)

    write_slide(tmp_path / "a.tif", [np.full((4000, 1012, 3), (200, 120, 180), np.uint8)], 0.5)
    mapper = SlideMapper(
        Always(),
        0.5,
        tiles=Tiles(256, 0),
        tissue=Tissue(only=False),
        outputs=Outputs(overview_size_px=100),
        compute=Compute(device="cpu"),
    )
    row = mapper.run(tmp_path / "a.tif", tmp_path / "maps")[0]
    area_mm2 = 4000 * 1012 * 0.5**2 / 1e6
    assert row["tissue_area_mm2"] == pytest.approx(area_mm2)
    assert row["tumour_area_mm2"] == pytest.approx(area_mm2)
    assert (row["tumour_share"], row["mean_probability"]) == (1, 1)
