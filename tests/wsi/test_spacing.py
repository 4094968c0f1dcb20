"""What a file says about its pixel size: taken, or an error that names the tag; and what somebody stated against it."""

import numpy as np
import pytest
import tifffile

from shared.wsi import Slide

from .conftest import smooth_rgb, write_slide

PIXELS = smooth_rgb(96, 80)


def write_imagej(path, unit, per_unit, resolution_unit="NONE"):
    description = f"ImageJ=1.54f\nimages=1\nunit={unit}\nmode=color\n"
    tifffile.imwrite(
        path,
        PIXELS,
        photometric="rgb",
        description=description,
        metadata=None,
        resolution=(per_unit, per_unit),
        resolutionunit=resolution_unit,
    )
    return path


def write_ome(path, attributes):
    """`attributes` of the element Pixels."""
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="P" DimensionOrder="XYCZT" Type="uint8" SizeX="96" SizeY="80" SizeC="3" SizeZ="1" SizeT="1" {attributes}>'
        '<Channel ID="C" SamplesPerPixel="3"/><TiffData/></Pixels></Image></OME>'
    )
    tifffile.imwrite(path, PIXELS, photometric="rgb", tile=(64, 64), description=xml.encode(), metadata=None)
    return path


def write_aperio(path, mpp):
    text = f"Aperio Image Library v11\n96x80 (64x64) none|AppMag = 20|MPP = {mpp}|Left = 2"
    tifffile.imwrite(path, PIXELS, photometric="rgb", tile=(64, 64), description=text, metadata=None)
    return path


@pytest.mark.parametrize(
    ("unit", "per_unit", "mpp"),
    [
        ("micron", 4, 0.25),
        ("um", 2, 0.5),
        ("\\u00B5m", 4, 0.25),
        ("microns", 4, 0.25),
        ("nm", 0.004, 0.25),
        ("mm", 4000, 0.25),
        ("inch", 101600, 0.25),
        ("pixel", 1, None),
        ("inch", 72, None),  # a screen's
    ],
)
def test_imagej_names_the_unit_of_the_resolution(unit, per_unit, mpp, tmp_path):
    slide = Slide(write_imagej(tmp_path / "a.tif", unit, per_unit))
    assert slide.has_mpp == (mpp is not None)
    if mpp is not None:
        assert slide.mpp == pytest.approx(mpp)


@pytest.mark.parametrize(
    ("attributes", "mpp"),
    [
        ('PhysicalSizeX="0,25" PhysicalSizeY="0,25"', 0.25),
        ('PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0,00025" PhysicalSizeYUnit="mm"', 0.25),
        ('PhysicalSizeX="250000" PhysicalSizeXUnit="pm" PhysicalSizeY="2500" PhysicalSizeYUnit="&#197;"', 0.25),
        ('PhysicalSizeX="0.25" PhysicalSizeXUnit="Microns" PhysicalSizeY="0.25" PhysicalSizeYUnit="micrometer"', 0.25),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="pixel"', None),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="reference frame"', None),
        ('PhysicalSizeX="0" PhysicalSizeY="0"', None),
    ],
)
def test_ome_sizes_of_all_kinds(attributes, mpp, tmp_path):
    slide = Slide(write_ome(tmp_path / "a.ome.tif", attributes))
    assert (slide.mpp if slide.has_mpp else None) == (None if mpp is None else pytest.approx(mpp))


def test_aperio_with_a_decimal_comma(tmp_path):
    assert Slide(write_aperio(tmp_path / "a.svs", "0,4990")).mpp == pytest.approx(0.499)


@pytest.mark.parametrize(
    ("write", "tag"),
    [
        pytest.param(lambda path: write_ome(path, 'PhysicalSizeX=""'), "PhysicalSizeX in OME-XML says '' ", id="empty"),
        pytest.param(lambda path: write_ome(path, 'PhysicalSizeX="fine"'), "PhysicalSizeX in OME-XML says 'fine'", id="word"),
        pytest.param(lambda path: write_ome(path, 'PhysicalSizeX="0.00025"'), "PhysicalSizeX .* '0.00025'", id="millimetres"),
        pytest.param(lambda path: write_ome(path, 'PhysicalSizeX="250"'), "PhysicalSizeX .* '250'", id="nanometres"),
        pytest.param(lambda path: write_ome(path, 'PhysicalSizeX="1" PhysicalSizeXUnit="ell"'), "'1' ell", id="unit"),
        pytest.param(lambda path: write_aperio(path, "0.025"), "openslide.mpp-x says '0.025'|MPP .* '0.025'", id="Aperio"),
        pytest.param(lambda path: write_imagej(path, "micron", 40), "ImageJ unit says 40 pixels per micron", id="ImageJ"),
        pytest.param(lambda path: write_slide(path, [PIXELS], mpp=0.0499), r"XResolution says .* \(0.0499 um\)", id="resolution"),
        pytest.param(
            lambda path: write_slide(path, [PIXELS], mpp=0.0499, tile=None), r"XResolution .* \(0.0499 um\)", id="tile's"
        ),
    ],
)
def test_a_tag_that_cannot_be_right_is_named(write, tag, tmp_path):
    path = write(tmp_path / "a.ome.tif")
    with pytest.raises(ValueError, match=rf"a\.ome\.tif: .*{tag}.*0\.05 to 10 um.*manifest's `mpp` column"):
        Slide(path)
    assert Slide(path, mpp=0.5).mpp == 0.5


def test_another_tag_takes_the_place_of_one_that_cannot_be_right(tmp_path, caplog):
    path = write_imagej(tmp_path / "a.tif", "micron", 40000, "CENTIMETER")
    assert Slide(path).mpp == pytest.approx(0.25)
    assert "ImageJ unit says 40000 pixels per micron" in caplog.text
    assert "another tag says 0.25 um" in caplog.text


def test_a_print_resolution_is_mentioned_where_the_size_is_needed(tmp_path):
    slide = Slide(write_slide(tmp_path / "a.tif", [PIXELS], mpp=None, resolution=(72, 72), resolutionunit=2))
    with pytest.raises(ValueError, match=r"does not state .* \(its tag XResolution says 72 per inch \(352\.8 um\)"):
        _ = slide.mpp


@pytest.mark.parametrize(("stated", "is_told"), [(0.5, True), (0.2559, True), (0.254, False), (0.25, False)])
def test_a_stated_size_that_the_file_contradicts_is_told_once(stated, is_told, tmp_path, caplog):
    path = write_slide(tmp_path / "a.tif", [PIXELS], mpp=0.25)
    for _ in range(2):
        assert Slide(path, mpp=stated).mpp == stated
    expected = [f"{path}: its own tags say 0.25 um per pixel; {stated:g} um was given (manifest or key) and is used"]
    assert [record.message for record in caplog.records] == expected * is_told


@pytest.mark.parametrize("mpp", [0.00025, 250.0, float("inf")])
def test_a_stated_size_in_another_unit_is_refused(mpp, tmp_path):
    np.testing.assert_equal(Slide(write_slide(tmp_path / "a.tif", [PIXELS], mpp=0.25)).mpp, 0.25)
    with pytest.raises(ValueError, match=rf"a\.tif: mpp must be .* \(0\.01 to 100\), got {mpp}"):
        Slide(tmp_path / "a.tif", mpp=mpp)
