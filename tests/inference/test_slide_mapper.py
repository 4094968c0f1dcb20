import csv
import json
import re

import numpy as np
import pytest
import shapely
import tifffile
import torch
from PIL import Image
from shapely.geometry import box, shape
from torch import nn

from shared.inference import Compute, InferenceFailures, Outputs, SlideMapper, Tiles, Tissue
from shared.wsi.notices import warn_once
from tests.inference.flat_options import grouped

SMALL_TILES = {"tile_size_px": 256, "margin_px": 32, "min_area_um2": 0.0, "amp": False, "device": "cpu"}


def _polygons(path):
    return [shape(feature["geometry"]) for feature in json.loads(path.read_text(encoding="utf-8"))["features"]]


def _row(folder, name):
    with (folder / "slides.csv").open(newline="") as file:
        return {row["slide"]: row for row in csv.DictReader(file)}[name]


TUMOUR_RING = box(240, 120, 640, 420) - box(340, 220, 540, 320)  # of the fixture `picture`, in level-0 pixels


# Seen at 0.25 um a level of 0.5 um is read; map pixels are then 2 * 2 level-0 pixels, or 4 * 4 as in the first case.
@pytest.mark.parametrize(("slide_mpp", "map_downsample"), [(0.5, 4), (0.5, 1), (0.25, 2), (0.498, 4)])
def test_the_tumour_is_found_to_the_pixel(tmp_path, write_slide, picture, redness, slide_mpp, map_downsample):
    write_slide(tmp_path / "a.tif", picture, mpp=slide_mpp)
    SlideMapper(redness, **grouped(map_downsample=map_downsample, **SMALL_TILES)).run(tmp_path / "a.tif", tmp_path / "out")

    (polygon,) = _polygons(tmp_path / "out" / "a.geojson")
    assert polygon.is_valid
    assert polygon.equals(TUMOUR_RING)

    area_mm2 = 100_000 * slide_mpp**2 / 1e6
    row = _row(tmp_path / "out", "a")
    assert row["status"] == "ok"
    assert float(row["tumour_area_mm2"]) == pytest.approx(area_mm2, rel=1e-5)
    assert float(row["tumour_share"]) == pytest.approx(100_000 / (1020 * 620), rel=0.05)
    assert float(row["tissue_area_mm2"]) == pytest.approx(1020 * 620 * slide_mpp**2 / 1e6, rel=0.05)
    assert (float(row["max_probability"]), row["width_px"], row["height_px"]) == (1, "1100", "700")
    assert float(row["mean_probability"]) == pytest.approx(100_000 / (1020 * 620), rel=0.05)

    map_pixel = map_downsample * (2 if slide_mpp == 0.25 else 1)
    with tifffile.TiffFile(tmp_path / "out" / "a.ome.tif") as tiff:
        stored = tiff.asarray()
        (width_um,) = re.findall(r'PhysicalSizeX="([\d.]+)"', tiff.ome_metadata)
        assert float(width_um) == pytest.approx(slide_mpp * map_pixel, rel=1e-5)
    assert stored.shape == (-(-700 // map_pixel), -(-1100 // map_pixel))
    assert (stored >= 128).sum() * map_pixel**2 == polygon.area
    with Image.open(tmp_path / "out" / "a.png") as overlay:
        factor = -(-stored.shape[1] // 1024)
        # Below the picture there is the legend.
        assert overlay.size[0] == -(-stored.shape[1] // factor)
        assert -(-stored.shape[0] // factor) < overlay.size[1] < -(-stored.shape[0] // factor) + 100
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("a.geojson", "a.ome.tif", "a.png"),
        *("rows", "settings.json", "slides.csv"),
    ]


def test_measurements_of_a_polygon(tmp_path, write_slide, picture, redness):
    write_slide(tmp_path / "a.tif", picture)
    SlideMapper(redness, **grouped(**SMALL_TILES)).run(tmp_path / "a.tif", tmp_path / "out")
    (feature,) = json.loads((tmp_path / "out" / "a.geojson").read_text(encoding="utf-8"))["features"]
    assert feature["properties"]["measurements"] == {"Area µm^2": 25_000, "Mean probability": 1}


def test_small_polygons_are_left_out_everywhere(tmp_path, write_slide, picture, redness):
    write_slide(tmp_path / "a.tif", picture)
    (row,) = SlideMapper(redness, **grouped(**SMALL_TILES | {"min_area_um2": 25_001})).run(tmp_path / "a.tif", tmp_path / "out")
    assert (row["tumour_area_mm2"], row["tumour_share"], row["num_regions"]) == (0, 0, 0)
    assert _polygons(tmp_path / "out" / "a.geojson") == []


def test_tiles_without_tissue_are_skipped(tmp_path, write_slide, picture):
    class Always(nn.Module):
        def forward(self, images):
            return torch.full((len(images), 1), 20.0)

    picture[:, 600:] = 255
    write_slide(tmp_path / "a.tif", picture)
    mapper = SlideMapper(Always(), **grouped(**SMALL_TILES | {"margin_px": 0}))
    (row,) = mapper.run(tmp_path / "a.tif", tmp_path / "out")
    stored = tifffile.imread(tmp_path / "out" / "a.ome.tif")
    # Tissue ends at x = 600, in the third column of tiles, which ends at 768; three rows of tiles. 50 um of glass are 100 px.
    assert row["num_tiles"] == 9
    assert (stored[:, : 600 // 4] == 255).all()
    assert (stored[20:155, : 700 // 4] == 255).all()
    assert (stored[:, 700 // 4 :] == 0).all()
    mapper.tissue = Tissue(only=False)
    assert mapper.run(tmp_path / "a.tif", tmp_path / "out")[0]["num_tiles"] == 15
    assert (tifffile.imread(tmp_path / "out" / "a.ome.tif") == 255).all()


def test_a_classifiers_answer_fills_its_tile(tmp_path, write_slide, tile_redness):
    rgb = np.full((300, 500, 3), (200, 120, 180), np.uint8)
    rgb[0:100, 100:160] = (220, 20, 60)  # more than half of one tile only
    write_slide(tmp_path / "a.tif", rgb)
    mapper = SlideMapper(
        tile_redness,
        tiles=Tiles(tile_size_px=100, margin_px=0),
        outputs=Outputs(map_downsample=100, min_area_um2=0),
        compute=Compute(amp=False),
    )
    mapper.run(tmp_path / "a.tif", tmp_path / "out")
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "out" / "a.ome.tif") >= 128, [[0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    )
    (polygon,) = _polygons(tmp_path / "out" / "a.geojson")
    assert polygon.equals(box(100, 0, 200, 100))


def _stitched(tmp_path, slide, network, margin_px):
    mapper = SlideMapper(
        network,
        tiles=Tiles(tile_size_px=128, margin_px=margin_px),
        outputs=Outputs(map_downsample=1),
        tissue=Tissue(only=False),
        compute=Compute(amp=False, batch_size=5),
    )
    mapper.run(slide, tmp_path / f"out{margin_px}")
    return tifffile.imread(tmp_path / f"out{margin_px}" / "a.ome.tif").astype(int)


def test_seams_vanish_when_the_margin_covers_the_receptive_field(tmp_path, write_slide):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (413, 537, 3), dtype=np.uint8)
    slide = write_slide(tmp_path / "a.tif", rgb, num_levels=1)
    layers = [
        nn.Conv2d(3, 8, 7, padding=3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 7, padding=3),
        nn.ReLU(),
        nn.Conv2d(8, 2, 3, padding=1),
    ]
    network = nn.Sequential(*layers).eval()  # its receptive field reaches 3 + 3 + 1 = 7 pixels
    with torch.inference_mode():
        network[0].weight *= 0.02
        network[-1].weight *= 10
        whole = network(torch.from_numpy(rgb).permute(2, 0, 1)[None].float()).softmax(1)[0, 1]
    expected = np.rint(whole.numpy() * 255).astype(int)[7:-7, 7:-7]
    assert expected.std() > 20
    # 1 for the order of floating-point sums.
    assert np.abs(_stitched(tmp_path, slide, network, margin_px=8)[7:-7, 7:-7] - expected).max() <= 1
    assert np.abs(_stitched(tmp_path, slide, network, margin_px=0)[7:-7, 7:-7] - expected).max() > 10


def test_blending_averages_the_seams_of_a_network_that_sees_further(tmp_path, write_slide):
    """Its tiles disagree at their seams: cropped, the map jumps there; blended, it does not."""

    class TileMean(nn.Module):
        def forward(self, images):
            return images.mean(dim=(1, 2, 3))[:, None] / 20 - 6

    rgb = np.repeat(np.linspace(60, 180, 800).astype(np.uint8)[None, :, None], 256, axis=0).repeat(3, axis=2)
    slide = write_slide(tmp_path / "a.tif", rgb, num_levels=1)
    rows = {}
    for stitching in ("crop", "blend"):
        mapper = SlideMapper(
            TileMean(), **grouped(stitching=stitching, tissue_only=False, map_downsample=1, **SMALL_TILES | {"margin_px": 64})
        )
        mapper.run(slide, tmp_path / stitching)
        rows[stitching] = tifffile.imread(tmp_path / stitching / "a.ome.tif")[100].astype(int)
    steps = {stitching: np.abs(np.diff(row)).max() for stitching, row in rows.items()}
    assert steps["crop"] > 20
    assert steps["blend"] <= 1
    # In the middle of a tile no other one has a say.
    middle = np.arange(64, 700, 128)
    np.testing.assert_allclose(rows["blend"][middle], rows["crop"][middle], atol=1)


def test_a_table_of_tiles_of_a_tumour_map(tmp_path, write_slide, picture, redness):
    write_slide(tmp_path / "a.tif", picture, mpp=0.25)
    mapper = SlideMapper(redness, **grouped(tile_table=True, **SMALL_TILES))
    (row,) = mapper.run(tmp_path / "a.tif", tmp_path / "out")
    with (tmp_path / "out" / "a.tiles.csv").open(newline="") as file:
        tiles = [{name: float(value) for name, value in tile.items()} for tile in csv.DictReader(file)]
    assert len(tiles) == row["num_tiles"]
    assert list(tiles[0]) == ["minx", "miny", "width", "height", "prob_normal", "prob_tumour"]
    # Cores of 192 px at 0.5 um are 384 px of level 0, cut at the slide's border.
    for tile in tiles:
        assert (tile["minx"] % 384, tile["miny"] % 384) == (0, 0)
        assert tile["width"] == min(384, 1100 - tile["minx"])
        assert tile["height"] == min(384, 700 - tile["miny"])
        assert tile["prob_normal"] + tile["prob_tumour"] == pytest.approx(1, abs=1e-5)
    first = next(tile for tile in tiles if (tile["minx"], tile["miny"]) == (384, 0))
    # Of x 384..768 and y 0..384 it is x 384..640, y 120..384 less the hole 384..540 x 220..320.
    expected = (256 * 264 - 156 * 100) / 384**2
    assert first["prob_tumour"] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_small_image_is_mapped_as_it_is_at_full_resolution(tmp_path, suffix):
    """An untiled TIFF too: it has no mpp, and needs none."""
    rgb = np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / f"a.{suffix}")
    network = nn.Conv2d(3, 1, 15, padding=7).eval()
    with torch.inference_mode():
        network.weight *= 0.05
        expected = network(torch.from_numpy(rgb).permute(2, 0, 1)[None].float()).sigmoid()[0, 0].numpy() * 255
    (row,) = SlideMapper(network, mpp=0.4, compute=Compute(amp=False), outputs=Outputs(min_area_um2=0, simplify_um=0)).run(
        tmp_path / f"a.{suffix}", tmp_path / "out"
    )
    stored = tifffile.imread(tmp_path / "out" / "a.ome.tif")
    assert stored.shape == (96, 64)
    assert np.abs(stored - expected).max() <= 1
    assert (row["mpp"], row["map_mpp"]) == (0.4, 0.4)
    polygons = shapely.MultiPolygon(_polygons(tmp_path / "out" / "a.geojson"))
    assert polygons.area == (stored >= 127.5).sum()


class Mean(nn.Module):
    """One answer a pixel, which depends on all of what the network sees at once: a white frame or a cut would show."""

    def forward(self, images):
        return (images.mean(dim=(1, 2, 3), keepdim=True) - images[:, :1]) / 20


@pytest.mark.parametrize("size", [(112, 112), (224, 160), (300, 300), (700, 500)])
@pytest.mark.parametrize("map_downsample", [None, 4, 6])
@pytest.mark.slow
def test_an_image_reaches_the_network_whole(tmp_path, size, map_downsample):
    rgb = np.random.default_rng(0).integers(60, 200, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    settings = SMALL_TILES | {"tissue_only": False, "map_downsample": map_downsample, "tile_size_px": 240, "margin_px": 24}
    SlideMapper(Mean(), **grouped(**settings)).run(tmp_path / "a.png", tmp_path / "out")
    with torch.inference_mode():
        expected = Mean()(torch.from_numpy(rgb).permute(2, 0, 1)[None].float()).sigmoid()[0, 0].numpy() * 255
    step = map_downsample or 1
    sums = np.add.reduceat(np.add.reduceat(expected, np.arange(0, size[1], step), 0), np.arange(0, size[0], step), 1)
    ones = np.ones_like(expected)
    counts = np.add.reduceat(np.add.reduceat(ones, np.arange(0, size[1], step), 0), np.arange(0, size[0], step), 1)
    stored = tifffile.imread(tmp_path / "out" / "a.ome.tif")
    assert stored.shape == sums.shape
    assert np.abs(stored - sums / counts).max() <= 1


def test_larger_images_and_answers_of_tiles_come_in_tiles(tmp_path, tile_redness):
    rgb = np.full((300, 500, 3), (200, 120, 180), np.uint8)
    rgb[0:100, 100:160] = (220, 20, 60)  # more than half of one tile only
    Image.fromarray(rgb).save(tmp_path / "a.png")
    settings = {"tile_size_px": 100, "margin_px": 0, "tissue_only": False, "device": "cpu", "amp": False}
    (row,) = SlideMapper(tile_redness, **grouped(**settings)).run(tmp_path / "a.png", tmp_path / "tiles")
    assert row["num_tiles"] == 15
    for whole_image_px, num_tiles in ((500, 1), (499, 15), (0, 15)):
        mapper = SlideMapper(Mean(), **grouped(whole_image_px=whole_image_px, **settings))
        (row,) = mapper.run(tmp_path / "a.png", tmp_path / f"out{whole_image_px}")
        assert row["num_tiles"] == num_tiles


def test_beyond_the_border_of_a_slide_its_tiles_are_mirrored(tmp_path, write_slide):
    """Of tissue that is cut off at the slide's border no white frame is seen."""

    class Whiteness(nn.Module):
        """High where there is white within 9 px."""

        def forward(self, images):
            return nn.functional.max_pool2d(images[:, :1], 19, stride=1, padding=9) - 250

    rgb = np.full((500, 700, 3), (200, 120, 180), np.uint8)
    write_slide(tmp_path / "a.tif", rgb)
    (row,) = SlideMapper(Whiteness(), **grouped(**SMALL_TILES | {"tissue_only": False})).run(tmp_path / "a.tif", tmp_path / "out")
    assert (row["num_tiles"], row["max_probability"]) == (12, 0)


def test_a_large_untiled_tiff_without_mpp_needs_slide_mpp(tmp_path, redness):
    tifffile.imwrite(tmp_path / "a.tif", np.full((64, 5000, 3), 200, np.uint8), photometric="rgb")
    with pytest.raises(RuntimeError, match=r"a\.tif has no mpp"):
        SlideMapper(redness, **grouped(**SMALL_TILES)).run(tmp_path / "a.tif", tmp_path / "out")


def test_a_slide_without_mpp_needs_slide_mpp(tmp_path, write_slide, picture, redness):
    write_slide(tmp_path / "a.tif", picture, mpp=None)
    with pytest.raises(RuntimeError, match=r"a\.tif has no mpp"):
        SlideMapper(redness, **grouped(**SMALL_TILES)).run(tmp_path / "a.tif", tmp_path / "out")
    (row,) = SlideMapper(redness, **grouped(slide_mpp=0.5, **SMALL_TILES)).run(tmp_path / "a.tif", tmp_path / "out")
    assert (row["mpp"], row["tumour_area_mm2"]) == (0.5, 0.025)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 0}, "threshold=0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"margin_px": 256}, "margin_px=256"),
        ({"map_downsample": 5}, "map_downsample"),
        ({"stitching": "mean"}, "stitching must be one of crop, blend; got 'mean'"),
        ({"stitching": "blend", "margin_px": 192}, "a third of a tile"),
        ({"tta": "all"}, "tta must be one of none, flips, dihedral"),
        ({"simplify_um": -1}, "simplify_um=-1"),
        ({"whole_image_px": -1}, "whole_image_px must be 0 or more"),
        ({"volume": "dicom"}, "volume must be one of nifti, metaimage"),
        ({"class_names": ["normal", "tumour"]}, "class_names must be three or more"),
    ],
)
def test_rejects_impossible_arguments(redness, arguments, message):
    with pytest.raises(ValueError, match=message):
        SlideMapper(redness, **grouped(**arguments))


@pytest.mark.parametrize(("mpp", "is_mapped"), [(0.6, True), (0.7, False)])
def test_a_slide_that_is_too_coarse_is_not_mapped(tmp_path, write_slide, picture, redness, mpp, is_mapped):
    """At 0.5 um a slide of 0.6 um is within what scanners differ by."""
    slide = write_slide(tmp_path / "a.tif", picture, mpp=mpp)
    mapper = SlideMapper(redness, **grouped(**SMALL_TILES))
    if is_mapped:
        assert mapper.run(slide, tmp_path / "maps")[0]["status"] == "ok"
    else:
        with pytest.raises(
            InferenceFailures, match=r"a\.tif: its pixels are 0\.7 um, coarser than the mpp=0\.5 at which the net"
        ):
            mapper.run(slide, tmp_path / "maps")


def test_a_small_image_is_enlarged_with_a_warning(tmp_path, picture, redness, caplog):
    """As a training on such images does."""
    warn_once.cache_clear()
    Image.fromarray(picture[:200, :200]).save(tmp_path / "a.png")
    (row,) = SlideMapper(redness, tile_mpp=0.7, **grouped(**SMALL_TILES)).run(tmp_path / "a.png", tmp_path / "maps")
    assert row["status"] == "ok"
    assert "images with pixels of 0.7 um are read at mpp=0.5: they are enlarged 1.4 times" in caplog.text
