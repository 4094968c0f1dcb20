"""Small slides with known pixels, and annotation files."""

import json

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from shared.wsi import read_annotations


def smooth_rgb(width, height, seed=0, sigma=2.0):
    """Random uint8 (H, W, 3) over the whole range, without detail that a pyramid could not hold."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(height, width, 3)), (sigma, sigma, 0))
    return np.uint8(np.interp(noise, (noise.min(), noise.max()), (0, 255)))


def write_slide(path, levels, mpp=0.25, compression="lzw", tile=(64, 64), **options):
    """Tiled pyramid of uint8 (H, W, 3) `levels`; mpp in um, None for no resolution tag."""
    resolution = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as tiff:
        for index, level in enumerate(levels):
            tiff.write(
                level,
                photometric="rgb",
                tile=tile,
                compression=compression,
                subfiletype=min(index, 1),
                metadata=None,
                **resolution,
                **options,
            )
    return path


@pytest.fixture(scope="session")
def level_0():
    """Pixels of the pyramid: (H, W) = (301, 517), odd on purpose."""
    return smooth_rgb(517, 301)


@pytest.fixture(scope="session")
def pyramid(tmp_path_factory, level_0):
    """A slide of 0.25 um whose second level (downsample 2.005) has other colours, to tell which level was read."""
    return write_slide(tmp_path_factory.mktemp("slide") / "pyramid.tif", [level_0, 255 - level_0[:-1:2, :-1:2]])


@pytest.fixture(scope="session")
def flat(tmp_path_factory, level_0):
    """The same slide without levels."""
    return write_slide(tmp_path_factory.mktemp("slide") / "flat.tif", [level_0])


@pytest.fixture
def read(tmp_path):
    """Write a file and read its annotations."""

    def read_text(content, name=None, **options):
        is_json = not isinstance(content, str | bytes)
        path = tmp_path / (name or ("slide.geojson" if is_json else "slide.xml"))
        content = json.dumps(content) if is_json else content
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_annotations(path, **options)

    return read_text
