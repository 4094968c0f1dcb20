"""Files as they come - real slides, damaged, unusual, badly named - through the whole run."""

import csv
import json
import math
import re

import numpy as np
import pytest
import tifffile
from PIL import Image
from torch import nn

from shared.inference import InferenceFailures, SlideMapper
from shared.networks import InstanceClassifier
from tests.inference.flat_options import grouped

SETTINGS = {"tile_size_px": 256, "margin_px": 32, "min_area_um2": 0.0, "amp": False, "device": "cpu", "num_workers": 1}
RESOLUTION = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}  # 0.5 um a pixel
# Tumour of 400 x 300 px with a hole of 200 x 100 px, see `picture`.
TUMOUR_MM2 = (400 * 300 - 200 * 100) * 0.25e-6
# Map pixels are 4 x 4 px of 0.25 um2 each, and the tumour's sides are whole numbers of them.
WANTED = {"status": "ok", "tumour_area_mm2": pytest.approx(TUMOUR_MM2)}


def write(path, pixels, **options):
    defaults = {"photometric": "rgb", "tile": (256, 256), "compression": "zlib", "metadata": None}
    tifffile.imwrite(path, pixels, **(defaults | RESOLUTION | options))
    return path


def without_tile(path, index):
    """Leave a tile out, as scanners do where they saw glass: offset and length 0."""
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("TileOffsets", "TileByteCounts"):
            tag = file.pages[0].tags[name]
            tag.overwrite([0 if number == index else value for number, value in enumerate(tag.value)])


def table_of(folder):
    with (folder / "slides.csv").open(newline="", encoding="utf-8") as file:
        return {row["slide"]: row for row in csv.DictReader(file)}


def mapped(network, path, out, **settings):
    """Row of the one image that is mapped without an error."""
    (row,) = SlideMapper(network, **grouped(**SETTINGS | settings)).run(path, out)
    return row


def reason_of(network, path, out):
    with pytest.raises(InferenceFailures, match="1 of 1 images failed"):
        SlideMapper(network, **grouped(**SETTINGS)).run(path, out)
    (row,) = table_of(out).values()
    assert row["status"] == "failed"
    assert not [file for file in out.iterdir() if file.name not in ("slides.csv", "settings.json", "rows")]
    return row["reason"]


def test_real_slides_with_names_of_all_kinds(tmp_path, wsi_test_data):
    folder, out = tmp_path / "Größe 1,5 (é)", tmp_path / "maps ñ"
    folder.mkdir()
    slides = wsi_test_data / "slides"
    mosaics = wsi_test_data / "mosaic_slides" / "slides"
    names = {
        "CMU-1 klein (2).svs": slides / "cmu-1-small-region.svs",
        "TCGA-CR-7395.été.svs": slides / "tcga-cr-7395-01a-01-ts1.svs",
        "broken, really.svs": slides / "broken.svs",
        **{f"Mosaïque {path.name}": path for path in sorted(mosaics.glob("*.tif"))},
    }
    for name, path in names.items():
        (folder / name).symlink_to(path)
    network = InstanceClassifier(backbone="resnet10", norm="batch")
    mapper = SlideMapper(network, **grouped(mpp=4.0, slide_mpp=0.5, **SETTINGS | {"tile_size_px": 112, "margin_px": 0}))
    with pytest.raises(InferenceFailures, match=rf"1 of {len(names)} images failed:\n.*broken, really\.svs"):
        mapper.run(folder, out)
    table = table_of(out)
    assert len(table) == len(names) == 15
    assert table.pop("broken, really")["status"] == "failed"
    for name, row in table.items():
        assert row["status"] == "ok", row
        sizes = [math.ceil(math.ceil(int(row[side]) * float(row["mpp"]) / 4 - 0.1) / 4) for side in ("height_px", "width_px")]
        probability = tifffile.imread(out / f"{name}.ome.tif")
        assert np.abs(np.subtract(probability.shape, sizes)).max() <= 1
        assert probability.max() / 255 == pytest.approx(float(row["max_probability"]))
        area_mm2 = int(row["width_px"]) * int(row["height_px"]) * (float(row["mpp"]) / 1000) ** 2
        assert 0 < float(row["tissue_area_mm2"]) <= 1.03 * area_mm2
        assert json.loads((out / f"{name}.geojson").read_text())["type"] == "FeatureCollection"
        Image.open(out / f"{name}.png").verify()
    with pytest.raises(InferenceFailures, match="1 of 15"):
        mapper.run(folder, out)
    assert {row["attempts"] for row in table_of(out).values()} == {"1", "2"}


def test_a_missing_tile_is_glass(tmp_path, picture, redness):
    path = write(tmp_path / "a.tif", picture)
    assert mapped(redness, path, tmp_path / "whole").items() >= WANTED.items()
    # The second of five columns, the first of three rows: x 256..512, y 0..256 at level 0.
    without_tile(path, 1)
    row = mapped(redness, path, tmp_path / "out")
    is_tumour = (picture == (220, 20, 60)).all(axis=2)
    is_tumour[:256, 256:512] = False
    assert row["status"] == "ok"
    assert row["tumour_area_mm2"] == pytest.approx(is_tumour.sum() * 0.25e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_slide_says_so(tmp_path, picture, redness, share):
    path = write(tmp_path / "a.tif", picture, compression="jpeg")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    reason = reason_of(redness, path, tmp_path / "out")
    assert "a.tif" in reason
    assert ("is truncated" in reason) == (share > 0), reason


def test_a_damaged_tile_says_so(tmp_path, picture, redness):
    path = write(tmp_path / "a.tif", picture, compression="jpeg")
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.filehandle.seek(file.pages[0].dataoffsets[6])
        file.filehandle.write(b"\xa5" * file.pages[0].databytecounts[6])
    assert "tile 6 is damaged" in reason_of(redness, path, tmp_path / "out")


def test_no_tissue_is_an_empty_map_and_finished(tmp_path, picture, redness):
    path = write(tmp_path / "a.tif", np.full_like(picture, 245))
    row = mapped(redness, path, tmp_path / "out")
    assert (row["status"], row["num_tiles"], row["num_regions"]) == ("no tissue", 0, 0)
    numbers = ("tumour_area_mm2", "tumour_share", "tissue_area_mm2", "max_probability", "mean_probability")
    assert [row[name] for name in numbers] == [0, 0, 0, 0, 0]
    probability = tifffile.imread(tmp_path / "out" / "a.ome.tif")
    assert probability.shape == (175, 275)
    assert not probability.any()
    assert json.loads((tmp_path / "out" / "a.geojson").read_text())["features"] == []
    assert table_of(tmp_path / "out")["a"]["status"] == "no tissue"
    assert SlideMapper(redness, **grouped(**SETTINGS)).run(path, tmp_path / "out") == []


def test_no_tissue_of_several_classes(tmp_path, picture):
    path = write(tmp_path / "a.tif", np.full_like(picture, 245))
    row = mapped(nn.Conv2d(3, 3, 1), path, tmp_path / "out", class_names=["background", "stroma", "tumour"])
    assert (row["status"], row["area_mm2_tumour"], row["num_regions"]) == ("no tissue", 0, 0)


@pytest.mark.parametrize("downsamples", [(1,), (1, 3, 7), (1, 2.37, 9.1)])
def test_levels_of_all_kinds(tmp_path, picture, redness, downsamples):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for downsample in downsamples:
            rows, columns = ((np.arange(0, side, downsample)).astype(int) for side in picture.shape[:2])
            is_full = downsample == 1
            tiff.write(
                picture[np.ix_(rows, columns)],
                photometric="rgb",
                tile=(256, 256),
                compression="zlib",
                subfiletype=0 if is_full else 1,
                metadata=None,
                **(RESOLUTION if is_full else {}),
            )
    assert mapped(redness, path, tmp_path / "fine").items() >= WANTED.items()
    # Four times as coarse: a border of half a map pixel, 16 um, is open.
    row = mapped(redness, path, tmp_path / "coarse", mpp=2.0, map_downsample=1)
    assert row["status"] == "ok"
    assert row["tumour_area_mm2"] == pytest.approx(TUMOUR_MM2, rel=0.05)


def _with_alpha(picture):
    """The left half is transparent."""
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[:, :440] = 0
    return np.dstack([picture, alpha])


@pytest.mark.parametrize("tile", [(256, 256), None], ids=["tiled", "strips"])
@pytest.mark.parametrize("kind", ["16 bit", "RGBA opaque", "RGBA", "planes"])
def test_pixels_of_all_kinds(tmp_path, picture, redness, kind, tile):
    """16 bits are scaled to 8, what is transparent is glass, and planes are put together."""
    options = {"tile": tile, "map_downsample": 4}
    left = 1.0
    if kind == "16 bit":
        pixels = picture.astype(np.uint16) * 257
    elif kind == "planes":
        pixels, options = np.ascontiguousarray(picture.transpose(2, 0, 1)), options | {"planarconfig": "separate"}
    else:
        pixels, options = _with_alpha(picture), options | {"extrasamples": ["unassalpha"]}
        if kind == "RGBA":
            is_tumour = (picture == (220, 20, 60)).all(axis=2)
            left = is_tumour[:, 440:].sum() / is_tumour.sum()
        else:
            pixels[..., 3] = 255
    map_downsample = options.pop("map_downsample")
    path = write(tmp_path / "a.tif", pixels, **options)
    row = mapped(redness, path, tmp_path / "out", map_downsample=map_downsample)
    assert row["status"] == "ok"
    assert row["tumour_area_mm2"] == pytest.approx(TUMOUR_MM2 * left)


def test_what_is_no_picture_says_so(tmp_path, picture, redness):
    path = write(tmp_path / "a.tif", (picture / 255).astype(np.float32))
    assert "32-bit samples" in reason_of(redness, path, tmp_path / "out")
    Image.fromarray(picture[..., 0].astype(np.uint16) * 257).save(tmp_path / "b.png")
    assert "b.png" in reason_of(redness, tmp_path / "b.png", tmp_path / "other")


def _mirax_preview(path, picture):
    Image.fromarray(picture).save(path, format="JPEG")


def _label_before_slide(path, picture):
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(picture[:200, :300], photometric="rgb", metadata={"Name": "label"})
        tiff.write(picture, photometric="rgb", metadata={"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5})


def _half_a_micrometre_too_few(path, picture):
    write(path, picture, resolution=(200400, 200400), resolutionunit="CENTIMETER")


def _fluorescence(path, picture):
    is_lit = (picture == (220, 20, 60)).all(axis=2)
    write(path, np.uint8(5 + 130 * is_lit), photometric="minisblack")


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("a.mrxs", _mirax_preview, "the folder .*/a is missing"),
        ("a.svs", _mirax_preview, "instead of the slide"),
        ("a.ome.tif", _label_before_slide, "the file contains one of 1100 x 700 px"),
        ("a.tif", _half_a_micrometre_too_few, r"XResolution says 200400 per cm \(0\.0499 um\)"),
        ("a.tif", lambda path, picture: write(path, picture.astype(np.uint16) * 16), "12 bits in 16"),
        ("a.tif", lambda path, picture: write(path, np.zeros_like(picture)), "completely black"),
        ("a.tif", lambda path, picture: write(path, picture[..., 1], photometric="minisblack"), "it is grey-scale"),
        ("a.tif", _fluorescence, "as in fluorescence"),
        (
            "a.tif",
            lambda path, picture: write(path, picture, compression="jpegxl"),
            r"its compression JPEGXL \(50002\) is not supported",
        ),
        ("a.vsi", _mirax_preview, r"Olympus files \(\.vsi\) are not supported"),
        ("a.czi", lambda path, picture: path.symlink_to("gone.czi"), "a link to gone.czi, which does not exist"),
    ],
)
def test_what_is_not_the_slide_is_a_failed_row(tmp_path, picture, redness, name, make, reason):
    """Neither a map of something else nor "no tissue"; `a.*` is found in its folder."""
    (tmp_path / "in").mkdir()
    make(tmp_path / "in" / name, picture)
    assert re.search(reason, reason_of(redness, tmp_path / "in", tmp_path / "out"))


def test_grey_tiles_are_mapped_whole(tmp_path, picture, redness):
    Image.fromarray(picture[..., 1]).save(tmp_path / "a.png")
    row = mapped(redness, tmp_path / "a.png", tmp_path / "out", tissue_only=False)
    assert (row["status"], row["tumour_area_mm2"]) == ("ok", 0)


def test_a_stated_pixel_size_that_the_slide_contradicts_is_told(tmp_path, picture, redness, caplog):
    path = write(tmp_path / "a.tif", picture)
    (tmp_path / "a.csv").write_text("image,mpp\na.tif,0.25\n")
    assert mapped(redness, tmp_path / "a.csv", tmp_path / "out")["mpp"] == 0.25
    told = [record.message for record in caplog.records if "was given" in record.message]
    assert told == [f"{path}: its own tags say 0.5 um per pixel; 0.25 um was given (manifest or key) and is used"]


def test_tiles_of_imagej_have_its_pixel_size(tmp_path, picture, redness):
    description = "ImageJ=1.11a\nimages=1\nhyperstack=true\nunit=micron"
    options = {"description": description, "resolution": (4, 4), "resolutionunit": "NONE", "tile": None}
    row = mapped(redness, write(tmp_path / "a.tif", picture, **options), tmp_path / "out", tissue_only=False, map_downsample=2)
    assert (row["mpp"], row["tumour_area_mm2"]) == (0.25, pytest.approx(TUMOUR_MM2 / 4))


def test_tiles_of_all_kinds(tmp_path, picture, redness):
    """PNG with a palette, and with transparency."""
    (tmp_path / "a").mkdir()
    Image.fromarray(picture).quantize(16, method=Image.Quantize.MAXCOVERAGE).save(tmp_path / "a" / "palette é.png")
    Image.fromarray(_with_alpha(picture)).save(tmp_path / "a" / "alpha.png")
    rows = SlideMapper(redness, **grouped(**SETTINGS)).run(tmp_path / "a", tmp_path / "out")
    areas = {row["slide"]: row["tumour_area_mm2"] for row in rows}
    assert areas["palette é"] == pytest.approx(TUMOUR_MM2, rel=0.01)
    is_tumour = (picture == (220, 20, 60)).all(axis=2)
    assert areas["alpha"] == pytest.approx(is_tumour[:, 440:].sum() * 0.25e-6)
