"""A new reader is one module and a place in the order: everything that asks for slides then knows it."""

import numpy as np
import pytest

from shared.data import load_manifest
from shared.inference.inputs import find_images
from shared.wsi import Slide
from shared.wsi.readers import order
from shared.wsi.readers.reader import Reader


class ArrayReader(Reader):
    """NumPy's files, under an ending that is known as one of a format that is not read."""

    name = "numpy"
    suffixes = frozenset({".zarr", ".npz"})
    plain_suffixes = frozenset({".npz"})

    @classmethod
    def problem(cls, file):
        return None if file.path.suffix in cls.suffixes else "no file of NumPy"

    def __init__(self, file):
        self._rgb = np.load(file.path)["rgb"]
        self.level_sizes_px = (self._rgb.shape[1::-1],)

    def read(self, level, origins, size_px, num_workers):
        return np.stack([self._rgb[y : y + size_px[1], x : x + size_px[0]] for x, y in origins.tolist()])

    def close(self):
        pass


def write(path, rgb):
    with path.open("wb") as file:
        np.savez(file, rgb=rgb)
    return path


def test_a_reader_is_asked_in_its_turn(tmp_path, level_0, pyramid, monkeypatch):
    path = write(tmp_path / "a.zarr", level_0)
    with pytest.raises(ValueError, match=r"OME-Zarr files \(\.zarr\) are not supported"):
        Slide(path)
    monkeypatch.setattr(order, "READERS", (*order.READERS, ArrayReader))
    with Slide(path, mpp=0.5) as slide:
        assert (slide.backend, slide.size_px, slide.is_picture) == ("numpy", (517, 301), False)
        np.testing.assert_array_equal(slide.read_region((40, 30), (100, 90)), level_0[30:120, 40:140])
    assert Slide(pyramid).backend != "numpy"
    with pytest.raises(ValueError, match="numpy: no file of NumPy"):
        Slide(pyramid, "numpy")
    with pytest.raises(ValueError, match="backend must be auto or one of cucim, openslide, pillow, numpy; got 'vips'"):
        Slide(pyramid, "vips")


def test_the_first_in_the_order_that_takes_a_file_reads_it(tmp_path, pyramid, monkeypatch):
    class Eager(order.OpenSlideReader):
        name = "eager"

    monkeypatch.setattr(order, "READERS", (Eager, *order.READERS))
    assert Slide(pyramid).backend == "eager"


def test_its_endings_are_looked_for_in_folders_and_manifests(tmp_path, level_0, monkeypatch):
    for name in ("a.zarr", "b.npz"):
        write(tmp_path / name, level_0)
    monkeypatch.setattr(order, "READERS", (*order.READERS, ArrayReader))
    assert [image.name for image in find_images(tmp_path, None, tmp_path / "out")] == ["a", "b"]
    (tmp_path / "a.csv").write_text("image,label\na.zarr,0\nb.npz,1\n")
    # Of its plain pictures the pixel size may be stated for all at once, as of PNG.
    assert [record["mpp"] for record in load_manifest(tmp_path / "a.csv", tile_mpp=0.7)] == [None, 0.7]
