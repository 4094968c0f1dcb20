import numpy as np
import openslide
import pytest
import tifffile

from shared.writers import reduced_strips, write_ome_tiff, write_ome_tiff_channels
from shared.writers.ome_tiff import reduce_rows


class Rows:
    """A map in memory that remembers how many rows were asked for at once."""

    def __init__(self, array):
        self.array, self.shape, self.most_rows = array, array.shape, 0

    def read_rows(self, start, stop):
        assert 0 <= start < stop <= self.shape[0]
        self.most_rows = max(self.most_rows, stop - start)
        return self.array[start:stop]


@pytest.fixture
def rows():
    return Rows(np.random.default_rng(0).integers(0, 256, (1337, 2100), dtype=np.uint8))


def test_pyramid_and_physical_size(tmp_path, rows):
    write_ome_tiff(tmp_path / "a.ome.tif", rows, mpp=2.0)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        assert tiff.is_ome
        assert not tiff.is_bigtiff
        assert [level.shape for level in tiff.series[0].levels] == [(1337, 2100), (669, 1050), (335, 525), (168, 263)]
        assert all(page.is_tiled for level in tiff.series[0].levels for page in level.pages)
        assert 'PhysicalSizeX="2.0"' in tiff.ome_metadata
        assert 'PhysicalSizeYUnit="µm"' in tiff.ome_metadata
        np.testing.assert_array_equal(tiff.series[0].asarray(), rows.array)
    assert rows.most_rows <= 512


@pytest.mark.parametrize("level", [1, 2, 3])
def test_levels_are_means_of_the_map(tmp_path, rows, level):
    write_ome_tiff(tmp_path / "a.ome.tif", rows, mpp=2.0)
    stored = tifffile.imread(tmp_path / "a.ome.tif", level=level)
    factor = 2**level
    whole = rows.array[: 1337 // factor * factor, : 2100 // factor * factor].astype(float)
    means = whole.reshape(1337 // factor, factor, -1, factor).mean(axis=(1, 3))
    np.testing.assert_allclose(stored[: means.shape[0], : means.shape[1]], means, atol=0.51)


def test_openslide_opens_it(tmp_path, rows):
    write_ome_tiff(tmp_path / "a.ome.tif", rows, mpp=2.0)
    with openslide.OpenSlide(str(tmp_path / "a.ome.tif")) as slide:
        assert slide.dimensions == (2100, 1337)
        region = np.asarray(slide.read_region((1000, 700), 0, (64, 32)))
    np.testing.assert_array_equal(region[..., 0], rows.array[700:732, 1000:1064])


def test_border_blocks_average_what_is_there():
    np.testing.assert_array_equal(reduce_rows(np.array([[10, 20, 30]] * 3, np.uint8), 2), [[15, 30], [15, 30]])


@pytest.mark.parametrize("factor", [1, 3, 700, 5000])
def test_strips_do_not_show(rows, factor):
    whole = reduce_rows(rows.array, factor)
    np.testing.assert_array_equal(np.concatenate(list(reduced_strips(rows, factor, read_height=100))), whole)


@pytest.fixture
def channels():
    values = np.random.default_rng(0).integers(0, 256, (3, 700, 1100), dtype=np.uint8)
    return {name: Rows(one) for name, one in zip(("normal", "in situ", "invasive"), values, strict=True)}


def test_channels_have_names_colours_and_levels_of_their_own(tmp_path, channels):
    write_ome_tiff_channels(tmp_path / "a.ome.tif", channels, 2.0, [(128, 128, 128), (230, 159, 0), (0, 158, 115)])
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        series = tiff.series[0]
        assert (series.axes, series.shape) == ("CYX", (3, 700, 1100))
        assert [level.shape for level in series.levels] == [(3, 700, 1100), (3, 350, 550), (3, 175, 275)]
        described = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
        assert [channel["Name"] for channel in described["Channel"]] == list(channels)
        # Red, green, blue and an opacity of 255 are the bytes of a signed number.
        assert described["Channel"][1]["Color"] == int.from_bytes(bytes([230, 159, 0, 255]), "big") - 2**32
        assert (described["PhysicalSizeX"], described["SizeC"]) == (2.0, 3)
        for level in (0, 1):
            stored = series.levels[level].asarray()
            for index, rows in enumerate(channels.values()):
                expected = np.rint(reduce_rows(rows.array, 2**level))
                np.testing.assert_array_equal(stored[index], expected)
    assert max(rows.most_rows for rows in channels.values()) <= 512


def test_channels_of_several_sizes_are_refused(tmp_path, channels):
    channels["invasive"] = Rows(np.zeros((4, 5), np.uint8))
    with pytest.raises(ValueError, match="all channels must have the same size"):
        write_ome_tiff_channels(tmp_path / "a.ome.tif", channels, 2.0)
    assert not list(tmp_path.iterdir())
