"""Slides and networks whose tumour map is known without running anything."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn

from shared.inference import SlideMapper
from tests.inference.cohort_processes import SETTINGS
from tests.inference.flat_options import grouped

TISSUE, TUMOUR, GLASS = (200, 120, 180), (220, 20, 60), (255, 255, 255)


class Redness(nn.Module):
    """Tumour is where red exceeds green by 140 grey values: +20 on TUMOUR, -20 or less on TISSUE and GLASS."""

    def forward(self, images):
        return (images[:, :1] - images[:, 1:2] - 140) / 3


class TileRedness(nn.Module):
    """One logit a tile: is more than half of it tumour?"""

    def forward(self, images):
        return (((images[:, 0] - images[:, 1]) > 140).float().mean(dim=(1, 2)) - 0.5)[:, None] * 100


@pytest.fixture
def redness():
    return Redness()


@pytest.fixture
def tile_redness():
    return TileRedness()


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for index in range(12):
        Image.fromarray(rng.integers(0, 256, (96, 96, 3), np.uint8)).save(tmp_path / "pictures" / f"{index:02}.png")
    return tmp_path / "pictures"


@pytest.fixture
def mapper(redness):
    return SlideMapper(redness, **grouped(**SETTINGS))


def write_pyramid(path, rgb, mpp=0.5, num_levels=2):
    """Write a tiled, pyramidal, lossless TIFF of an RGB array, (H, W, 3); return its path."""
    resolution = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"} if mpp else {}
    with tifffile.TiffWriter(path) as tiff:
        for level in range(num_levels):
            step = 2**level
            options = {} if level else resolution
            tiff.write(
                rgb[::step, ::step],
                photometric="rgb",
                tile=(256, 256),
                compression="zlib",
                subfiletype=1 if level else 0,
                metadata=None,
                **options,
            )
    return path


@pytest.fixture
def write_slide():
    return write_pyramid


@pytest.fixture
def picture():
    """Tissue on glass, 1100 x 700 px (W x H), with tumour of 400 x 300 px that has a hole of 200 x 100 px."""
    rgb = np.full((700, 1100, 3), GLASS, np.uint8)
    rgb[40:660, 40:1060] = TISSUE
    rgb[120:420, 240:640] = TUMOUR
    rgb[220:320, 340:540] = TISSUE
    return rgb


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
