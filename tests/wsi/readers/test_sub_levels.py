"""OME-TIFF keeps its levels as sub-IFDs of the first page, where cuCIM and OpenSlide do not look for them."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from shared.wsi import Slide, pyramid_check
from tests.wsi.conftest import smooth_rgb

SIZE = (1100, 700)


def smaller(image, size_px):
    return np.asarray(Image.fromarray(image).resize(size_px, Image.Resampling.BOX))


def write_sub_levels(path, levels, compression="lzw", tile=(128, 128), **options):
    """Level 0 with all others as its sub-IFDs, 0.5 um per pixel."""
    um = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate(levels):
            part = {"subfiletype": 1} if number else {"subifds": len(levels) - 1, "metadata": {"axes": "YXS", **um}}
            tiff.write(level, photometric="rgb", tile=tile, compression=compression, **part, **options)
    return path


@pytest.fixture(scope="module")
def levels():
    """Negatives at the coarser levels, to tell which was read."""
    image = smooth_rgb(*SIZE, sigma=6)
    return [image, 255 - smaller(image, (550, 350)), 255 - smaller(image, (275, 175))]


@pytest.mark.parametrize("backend", ["cucim", "openslide"])
@pytest.mark.parametrize("compression", ["lzw", "deflate", "jpeg"])
def test_sub_levels_are_read(compression, backend, levels, tmp_path):
    slide = Slide(write_sub_levels(tmp_path / "slide.ome.tif", levels, compression), backend)
    assert (slide.backend, slide.mpp) == (backend, pytest.approx(0.5))
    assert slide.level_sizes_px == (SIZE, (550, 350), (275, 175))
    tolerance = 12 if compression == "jpeg" else 0
    for level, image in enumerate(levels):
        mpp = 0.5 * slide.level_downsamples[level]
        whole = slide.read_region((0, 0), (image.shape[1], image.shape[0]), mpp)
        assert np.abs(whole - image.astype(int)).mean() <= tolerance
        for num_workers in (1, 3):
            regions = slide.read_regions([(0, 0), (-80, 250), (1000, 600), (252, 100)], (90, 70), mpp, num_workers)
            np.testing.assert_array_equal(regions[0], whole[:70, :90])
            assert (regions[1][:, : int(80 * 0.5 / mpp)] == 255).all()
    assert np.abs(slide.thumbnail(275) - levels[2].astype(int)).mean() <= tolerance


def test_a_coarse_picture_is_made_of_a_coarse_level(levels, tmp_path, monkeypatch):
    path = write_sub_levels(tmp_path / "slide.ome.tif", levels)
    slide = Slide(path)
    reader = slide._open_reader()
    monkeypatch.setattr(reader, "_reader", None)  # of level 0
    assert slide.thumbnail(300).shape == (191, 300, 3)


def test_tiles_that_were_left_out_and_damaged_ones(levels, tmp_path):
    path = write_sub_levels(tmp_path / "slide.ome.tif", levels)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.series[0].levels[1].pages[0].aspage()
        start, length = page.dataoffsets[6], page.databytecounts[6]
    content = bytearray(path.read_bytes())
    content[start : start + length] = np.random.default_rng(0).bytes(length)
    path.write_bytes(content)
    slide = Slide(path)
    with pytest.raises(ValueError, match=r"slide\.ome\.tif: level 1 cannot be read \(tile 6 is damaged"):
        slide.read_region((300, 300), 60, mpp=1.0)
    np.testing.assert_array_equal(slide.read_region((0, 0), 60, mpp=1.0), levels[1][:60, :60])


def test_a_sub_level_that_shows_something_else_is_left_out(levels, tmp_path, caplog):
    foreign = smooth_rgb(550, 350, seed=9, sigma=6)
    path = write_sub_levels(tmp_path / "slide.ome.tif", [levels[0], foreign, levels[2]])
    assert Slide(path).level_sizes_px == (SIZE, (275, 175))
    assert "level 1 (550 x 350 px)" in caplog.text
    np.testing.assert_array_equal(Slide(path).thumbnail(275), levels[2])


def test_sub_levels_of_grey_values_are_not_used(levels, tmp_path):
    with tifffile.TiffWriter(tmp_path / "slide.tif") as tiff:
        tiff.write(levels[0], photometric="rgb", tile=(128, 128), subifds=1, metadata=None)
        tiff.write(levels[1][..., 0], photometric="minisblack", tile=(128, 128), subfiletype=1, metadata=None)
    pyramid_check._known.clear()
    assert Slide(tmp_path / "slide.tif").level_sizes_px == (SIZE,)
