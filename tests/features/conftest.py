"""A small slide, and files of features in the words of other programs."""

import h5py
import numpy as np
import pytest
import tifffile


class StoredEncoder:
    """What is asked of an encoder where features are written and checked."""

    name, key, channels, stride_px, mpp = "four_numbers", "0123456789abcdef", 4, 32, 0.5
    aliases = ("four_numbers", "four_v1")

    def description(self):
        return {"name": self.name, "key": self.key, "licence": "none"}


@pytest.fixture
def encoder():
    return StoredEncoder()


@pytest.fixture
def slide_path(tmp_path):
    """A slide of 400 x 300 px at 0.25 um: 200 x 150 at the encoder's, of 6 x 5 cells with their centres on it."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    path = tmp_path / "slide.tif"
    tifffile.imwrite(
        path, pixels, photometric="rgb", tile=(64, 64), resolution=(4e4, 4e4), resolutionunit="CENTIMETER", metadata=None
    )
    return path


@pytest.fixture
def write_h5(tmp_path):
    """Write data sets and attributes ({data set or "": {name: value}}) as a file of another program: its path."""

    def write(arrays, attributes, name="other.h5"):
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            for dataset, values in arrays.items():
                file[dataset] = values
            for dataset, values in attributes.items():
                (file[dataset] if dataset else file).attrs.update(values)
        return path

    return write
