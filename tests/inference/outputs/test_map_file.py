"""Finished maps, read by rows."""

import numpy as np
import pytest
import tifffile

from shared.inference.outputs.map_file import MapFile
from shared.writers import write_ome_tiff, write_ome_tiff_channels


class Rows:
    """An array as a source of rows."""

    def __init__(self, values):
        self.values, self.shape = values, values.shape

    def read_rows(self, start, stop):
        return self.values[start:stop]


def test_a_map_is_read_by_rows(tmp_path):
    expected = np.random.default_rng(0).integers(0, 256, (1300, 700), np.uint8)
    write_ome_tiff(tmp_path / "a.ome.tif", Rows(expected), 2.0)
    with MapFile(tmp_path / "a.ome.tif") as found:
        assert found.shape == expected.shape
        for start, stop in ((0, 1300), (0, 1), (511, 513), (500, 1200), (1299, 1300), (7, 7)):
            np.testing.assert_array_equal(found.read_rows(start, stop), expected[start:stop])
    whole = (tmp_path / "a.ome.tif").read_bytes()
    (tmp_path / "a.ome.tif").write_bytes(whole[:100])
    with pytest.raises(ValueError, match=r"a\.ome\.tif"):
        MapFile(tmp_path / "a.ome.tif")
    tifffile.imwrite(tmp_path / "b.ome.tif", np.zeros((3, 64, 64), np.uint8), tile=(64, 64), photometric="minisblack")
    with pytest.raises(ValueError, match="expected to hold one tiled uint8 image, of tumour; found 3"):
        MapFile(tmp_path / "b.ome.tif")


def test_a_map_of_classes_is_read_by_rows(tmp_path):
    expected = np.random.default_rng(0).integers(0, 256, (3, 1300, 700), np.uint8)
    expected[:, 600:700, :300] = 0
    write_ome_tiff_channels(
        tmp_path / "a.ome.tif", {name: Rows(of_class) for name, of_class in zip("xyz", expected, strict=True)}, 2.0
    )
    likeliest, tumour = expected.argmax(0), 255 - expected[0]
    likeliest[600:700, :300] = tumour[600:700, :300] = 0
    with MapFile(tmp_path / "a.ome.tif", 3) as found:
        assert found.shape == (1300, 700)
        for start, stop in ((0, 1300), (0, 1), (511, 513), (500, 1200), (1299, 1300)):
            np.testing.assert_array_equal(found.read_channels(start, stop), expected[:, start:stop])
            values, classes = decisions = found.read_decisions(start, stop)
            assert decisions.dtype == np.uint8
            np.testing.assert_array_equal(classes, likeliest[start:stop])
            np.testing.assert_array_equal(values, tumour[start:stop])
    with pytest.raises(ValueError, match=r"a\.ome\.tif was expected to hold 4 tiled uint8 images, one for each class; found 3"):
        MapFile(tmp_path / "a.ome.tif", 4)
