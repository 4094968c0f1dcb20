"""Maps of several classes, from a slide to its files, by networks whose answer is known."""

import csv
import json

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from monai.bundle import ConfigParser
from PIL import Image
from shapely.geometry import box, shape
from torch import nn

from shared.inference import SlideMapper
from shared.writers import class_colour
from tests.inference.flat_options import grouped

NAMES = ["normal", "benign", "in situ", "invasive"]
GLASS, NORMAL, BENIGN, IN_SITU, INVASIVE = (255, 255, 255), (200, 120, 180), (120, 60, 160), (150, 20, 110), (220, 20, 60)
SETTINGS = {"class_names": NAMES, "tile_size_px": 256, "margin_px": 32, "min_area_um2": 0.0, "device": "cpu", "amp": False}
# Of the slide, in level-0 pixels; multiples of 8, so that a map pixel is of one class.
AREAS = {
    "benign": box(80, 80, 320, 240) - box(160, 120, 200, 160),
    "in situ": box(320, 80, 480, 240),
    "invasive": box(560, 200, 960, 600),
}


class Nearest(nn.Module):
    """Logits fall with the squared distance to each class's colour; glass is normal."""

    def __init__(self, colours=(NORMAL, BENIGN, IN_SITU, INVASIVE)):
        super().__init__()
        self.register_buffer("colours", torch.tensor(colours, dtype=torch.float32))

    def forward(self, images):
        distance = (images[:, None] - self.colours[None, :, :, None, None]).square().sum(dim=2)
        glass = (255.0 - images).square().sum(dim=1)
        distance[:, 0] = torch.minimum(distance[:, 0], glass)
        return -distance / 500


class NearestOfTile(Nearest):
    """One answer per tile: the class of its mean colour."""

    def forward(self, images):
        return super().forward(images.mean(dim=(2, 3), keepdim=True))[:, :, 0, 0]


@pytest.fixture
def slide(tmp_path, write_slide):
    rgb = np.full((700, 1100, 3), GLASS, np.uint8)
    rgb[40:660, 40:1060] = NORMAL
    rgb[80:240, 80:320] = BENIGN
    rgb[120:160, 160:200] = NORMAL
    rgb[80:240, 320:480] = IN_SITU
    rgb[200:600, 560:960] = INVASIVE
    return write_slide(tmp_path / "a.tif", rgb)


def features_of(folder):
    return json.loads((folder / "a.geojson").read_text(encoding="utf-8"))["features"]


@pytest.mark.parametrize("stitching", ["crop", "blend"])
def test_every_class_is_found_to_the_pixel(tmp_path, slide, stitching):
    (row,) = SlideMapper(Nearest(), **grouped(stitching=stitching, **SETTINGS)).run(slide, tmp_path / "out")

    polygons = {feature["properties"]["classification"]["name"]: feature for feature in features_of(tmp_path / "out")}
    assert len(features_of(tmp_path / "out")) == len(polygons) == 3, "the background gets no polygon, the others one each"
    for index, name in enumerate(NAMES[1:], start=1):
        feature = polygons[name]
        assert shape(feature["geometry"]).equals(AREAS[name])
        assert tuple(feature["properties"]["classification"]["color"]) == class_colour(index)
        assert not feature["properties"]["isLocked"]
        measured = feature["properties"]["measurements"]
        assert measured == {"Area µm^2": AREAS[name].area * 0.25, "Mean probability": pytest.approx(1, abs=0.01)}
        column = name.replace(" ", "_")
        assert row[f"area_mm2_{column}"] == pytest.approx(AREAS[name].area * 0.25e-6)
        assert row[f"share_{column}"] == pytest.approx(AREAS[name].area / (1020 * 620), rel=0.05)
        assert row[f"mean_probability_{column}"] == pytest.approx(AREAS[name].area / (1020 * 620), rel=0.05)
    assert (row["num_regions"], row["map_mpp"]) == (3, 2.0)
    assert "tumour_area_mm2" not in row

    with tifffile.TiffFile(tmp_path / "out" / "a.ome.tif") as tiff:
        series = tiff.series[0]
        assert (series.axes, series.shape, series.dtype) == ("CYX", (4, 175, 275), np.uint8)
        stored = series.asarray()
        assert all(f'Name="{name}"' in tiff.ome_metadata for name in NAMES)
        assert 'PhysicalSizeX="2.0"' in tiff.ome_metadata
    assert stored[3, 60:140, 150:230].min() >= 254
    # Every tile holds tissue; glass is the background's.
    assert np.abs(stored.astype(int).sum(axis=0) - 255).max() <= 2
    with Image.open(tmp_path / "out" / "a.png") as picture:
        assert picture.size[0] >= 275


def test_a_classifier_of_several_classes_fills_its_tiles(tmp_path, write_slide):
    rgb = np.full((300, 500, 3), NORMAL, np.uint8)
    rgb[0:100, 100:200] = IN_SITU
    rgb[200:300, 400:500] = BENIGN
    slide = write_slide(tmp_path / "a.tif", rgb)
    tiles = {"tile_size_px": 100, "margin_px": 0, "map_downsample": 100, "tile_table": True, "volume": "nifti"}
    mapper = SlideMapper(NearestOfTile(), **grouped(**SETTINGS | tiles))
    (row,) = mapper.run(slide, tmp_path / "out")
    stored = tifffile.imread(tmp_path / "out" / "a.ome.tif")
    classes = [[0, 2, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
    np.testing.assert_array_equal(stored.argmax(axis=0), classes)
    assert row["area_mm2_in_situ"] == row["area_mm2_benign"] == pytest.approx(100**2 * 0.25e-6)
    assert row["area_mm2_invasive"] == row["share_invasive"] == 0

    with (tmp_path / "out" / "a.tiles.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "minx",
        "miny",
        "width",
        "height",
        *(f"prob_{c}" for c in ("normal", "benign", "in_situ", "invasive")),
    ]
    assert len(rows) == row["num_tiles"] == 15
    found = {(int(one["minx"]), int(one["miny"])): one for one in rows}
    assert set(found) == {(x, y) for x in range(0, 500, 100) for y in range(0, 300, 100)}
    assert {(one["width"], one["height"]) for one in rows} == {("100", "100")}
    assert float(found[100, 0]["prob_in_situ"]) > 0.99
    assert all(sum(float(one[c]) for c in one if c.startswith("prob_")) == pytest.approx(1, abs=1e-5) for one in rows)

    volume = nibabel.load(tmp_path / "out" / "a.nii.gz")
    assert volume.header.get_zooms()[:2] == pytest.approx((0.05, 0.05))  # 100 px of 0.5 um, in mm
    np.testing.assert_array_equal(np.asarray(volume.dataobj).argmax(axis=-1).T, classes)


def test_tiles_without_tissue_are_background(tmp_path, write_slide):
    rgb = np.full((256, 1024, 3), GLASS, np.uint8)
    rgb[:, :250] = INVASIVE
    slide = write_slide(tmp_path / "a.tif", rgb)
    (row,) = SlideMapper(Nearest(), **grouped(**SETTINGS)).run(slide, tmp_path / "out")
    stored = tifffile.imread(tmp_path / "out" / "a.ome.tif")
    assert row["num_tiles"] < 6
    assert (stored[:, :, -40:] == 0).all()
    assert shape(features_of(tmp_path / "out")[0]["geometry"]).bounds[2] <= 252


@pytest.mark.parametrize("names", [["normal", "tumour"], ["a", "b", "b"], ["in situ", "b", "in  situ"], ["", "b", "c"], "abc"])
def test_rejects_names_that_are_no_classes(names):
    with pytest.raises(ValueError, match="class_names must be three or more different names"):
        SlideMapper(Nearest(), class_names=names)


def test_rejects_a_network_of_another_number_of_classes(tmp_path, slide):
    mapper = SlideMapper(Nearest((NORMAL, BENIGN, IN_SITU)), **grouped(**SETTINGS))
    with pytest.raises(RuntimeError, match=r"for 4 class names the network must return logits \(B, 4, H, W\)"):
        mapper.run(slide, tmp_path / "out")


def test_is_usable_from_a_configuration(tmp_path, slide):
    network = {"_target_": "monai.networks.nets.UNet", "spatial_dims": 2, "in_channels": 3, "out_channels": 4}
    network |= {"channels": [4, 8], "strides": [2]}
    mapper = {
        "_target_": "shared.inference.SlideMapper",
        "network": "@network",
        "class_names": NAMES,
        "tiles": {"_target_": "shared.inference.Tiles", "tile_size_px": 256, "margin_px": 32, "tta": "flips"},
        "outputs": {"_target_": "shared.inference.Outputs", "min_area_um2": 0.0, "volume": "metaimage"},
        "compute": {"_target_": "shared.inference.Compute", "device": "cpu", "amp": False},
    }
    config = {"network": network, "mapper": mapper}
    mapper = ConfigParser(config).get_parsed_content("mapper")
    (row,) = mapper.run(slide, tmp_path / "out")
    assert {f"area_mm2_{name}" for name in ("benign", "in_situ", "invasive")} <= row.keys()
    assert (tmp_path / "out" / "a.mha").is_file()
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert (settings["class_names"], settings["tta"], settings["volume"]) == (NAMES, "flips", "metaimage")
