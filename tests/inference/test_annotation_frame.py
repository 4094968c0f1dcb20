"""The outlines of a slide that was scanned in part: where QuPath shows them, and again as a mask."""

import csv
import json

import numpy as np
import pytest
import shapely
from shapely.geometry import shape

from shared.inference import ImageInput, SlideMapper
from shared.inference.region_map import map_region
from shared.wsi import read_mask_region
from tests.inference.flat_options import grouped
from tests.wsi.scn_slide import write_scn

ORIGIN_PX, SIZE_PX = (600, 400), (1800, 1200)
# Of the picture, and so in QuPath's frame.
TUMOUR = (240, 120, 640, 420)


@pytest.fixture
def image(tmp_path, picture):
    return ImageInput(write_scn(tmp_path / "slide.scn", picture, ORIGIN_PX, SIZE_PX), "slide")


@pytest.fixture
def mapper(redness):
    def make(**options):
        return SlideMapper(
            redness, **grouped(tile_size_px=256, margin_px=16, device="cpu", amp=False, map_downsample=2, **options)
        )

    return make


def bounds_of(features):
    return shapely.union_all([shape(feature["geometry"]) for feature in features]).bounds


@pytest.mark.parametrize(("options", "frame", "shift"), [({}, "qupath", 0), ({"annotation_frame": "level0"}, "level0", 1)])
def test_outlines_lie_where_the_viewer_counts_from(mapper, image, tmp_path, options, frame, shift):
    mapper(tile_table=True, **options).map_image(image, tmp_path)
    collection = json.loads((tmp_path / "slide.geojson").read_text())
    assert collection["annotation_frame"] == frame
    expected = np.array(TUMOUR) + shift * np.array(ORIGIN_PX * 2)
    # Edges are blurred by JPEG.
    np.testing.assert_allclose(bounds_of(collection["features"]), expected, atol=2)
    # Read as a mask it is where the tumour is.
    mask = read_mask_region(tmp_path / "slide.geojson", (0, 0), SIZE_PX, SIZE_PX, image_path=image.path)
    rows, columns = np.nonzero(mask)
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    np.testing.assert_allclose(found, np.array(TUMOUR) + ORIGIN_PX * 2, atol=2)
    # Tiles are in level 0 whatever the viewer.
    with (tmp_path / "slide.tiles.csv").open(newline="") as file:
        most = max(csv.DictReader(file), key=lambda row: float(row["prob_tumour"]))
    assert int(most["minx"]) + int(most["width"]) > ORIGIN_PX[0] + TUMOUR[0]
    assert int(most["miny"]) + int(most["height"]) > ORIGIN_PX[1] + TUMOUR[1]


def test_a_region_for_a_viewer_is_in_level_0(mapper, image):
    found = map_region(mapper(), image).features
    np.testing.assert_allclose(bounds_of(found), np.array(TUMOUR) + ORIGIN_PX * 2, atol=2)


def test_there_is_no_other_frame(mapper):
    assert mapper(annotation_frame="level0").settings()["annotation_frame"] == "level0"
    with pytest.raises(ValueError, match="annotation_frame must be one of qupath, level0, got 'bounds'"):
        mapper(annotation_frame="bounds")
