"""A part of an image is mapped as the whole would be there, and without the rest."""

import json

import numpy as np
import pytest
import shapely
import torch
from shapely.geometry import box, shape

from shared.inference import Compute, ImageInput, SlideMapper, Tiles
from shared.inference.region_map import clip_box, map_region
from tests.inference.flat_options import grouped


@pytest.fixture
def mapper(redness):
    options = {"tile_size_px": 128, "margin_px": 16, "device": "cpu", "min_area_um2": 400.0, "simplify_um": 0.0, "batch_size": 4}
    return SlideMapper(redness, **grouped(mpp=0.5, **options))


@pytest.fixture
def image(tmp_path, picture, write_slide):
    return ImageInput(write_slide(tmp_path / "slide.tif", picture), "slide")


def area_of(features, window=None):
    found = shapely.union_all([shape(feature["geometry"]) for feature in features])
    return found if window is None else shapely.intersection(found, window)


@pytest.fixture
def whole(mapper, image, tmp_path):
    mapper.map_image(image, tmp_path)
    return area_of(json.loads((tmp_path / "slide.geojson").read_text())["features"])


def test_the_whole_image_without_files_is_the_whole_image(mapper, image, whole, tmp_path):
    found = map_region(mapper, image)
    assert area_of(found.features).equals(whole)
    assert found.mpp == pytest.approx(0.5)


@pytest.mark.parametrize("region", [(300, 160, 200, 200), (0, 0, 300, 300), (600, 380, 500, 320), (-50, -50, 400, 300)])
def test_a_region_is_the_same_part_of_the_whole(mapper, image, whole, region):
    found = map_region(mapper, image, region)
    window = box(region[0], region[1], region[0] + region[2], region[1] + region[3])
    assert area_of(found.features, window).equals(shapely.intersection(whole, window))
    assert 0 < found.num_tiles < map_region(mapper, image).num_tiles


def test_a_small_piece_of_a_large_area_is_kept_at_the_border_of_the_tiles(mapper, image, whole):
    """Its 4 map pixels, of 4 um^2, would be no area of their own."""
    region = (236, 116, 12, 12)
    assert area_of(map_region(mapper, image, region).features, box(236, 116, 248, 128)).area == 8 * 8


def test_a_region_of_glass_holds_nothing(mapper, image):
    found = map_region(mapper, image, (0, 690, 5, 5))
    assert not found.features


def test_of_a_crop_all_tiles_are_computed(mapper, tmp_path, picture, write_slide):
    glass = ImageInput(write_slide(tmp_path / "glass.tif", np.full_like(picture, 255)), "glass")
    assert map_region(mapper, glass).num_tiles == 0
    assert map_region(mapper, glass, tissue_only=False).num_tiles == 8 * 12


def test_classes_keep_their_names(image, redness):
    class Classes(type(redness)):
        def forward(self, images):
            logit = super().forward(images)
            return torch.cat([-logit, logit - 100, logit], dim=1)

    mapper = SlideMapper(
        Classes(),
        mpp=0.5,
        class_names=["normal", "other", "tumour"],
        tiles=Tiles(tile_size_px=128, margin_px=16),
        compute=Compute(device="cpu"),
    )
    found = map_region(mapper, image, (300, 160, 200, 200))
    assert {feature["properties"]["classification"]["name"] for feature in found.features} == {"tumour"}


@pytest.mark.parametrize("region", [(1100, 0, 10, 10), (0, -20, 10, 20), (0, 0, 0, 5)])
def test_a_region_outside_the_image_is_an_error(mapper, image, region):
    with pytest.raises(ValueError, match="contains nothing of the image of 1100 x 700 px"):
        map_region(mapper, image, region)
    with pytest.raises(ValueError, match="contains nothing"):
        clip_box(region, (1100, 700))
