"""Slides with maps that `SlideMapper` made, as `scripts/view.py` shows them."""

import csv

import numpy as np
import pytest
from PIL import Image

from shared.inference import InferenceFailures, SlideMapper
from tests.inference.cohort_processes import SETTINGS
from tests.inference.conftest import GLASS, TISSUE, TUMOUR, Redness, write_pyramid
from tests.inference.flat_options import grouped

HOSTILE = "<img src=x onerror=alert(1)> 5%20"  # the name of a slide


def slide_pixels(seed, tumour):
    """(900, 1200, 3): tissue with a pattern, and a square of tumour."""
    rng = np.random.default_rng(seed)
    rgb = np.full((900, 1200, 3), GLASS, np.uint8)
    rgb[100:800, 100:1100] = TISSUE
    left, top, side = tumour
    rgb[top : top + side, left : left + side] = TUMOUR
    # So that every place looks different, and none changes sides.
    rgb[100:800, 100:1100] = rgb[100:800, 100:1100] + rng.integers(0, 8, (700, 1000, 1), np.uint8)
    return rgb


@pytest.fixture(scope="session")
def mapped(tmp_path_factory):
    """A folder with two slides, one of them with a mask, one that cannot be read, their manifest, and two folders of maps."""
    folder = tmp_path_factory.mktemp("viewed")
    (folder / "slides").mkdir()
    rows = []
    for seed, (name, tumour) in enumerate({"first": (300, 300, 240), HOSTILE: (500, 200, 120)}.items()):
        rgb = slide_pixels(seed, tumour)
        write_pyramid(folder / "slides" / f"{name}.tif", rgb, num_levels=3)
        mask = np.zeros(rgb.shape[:2], np.uint8)
        mask[tumour[1] : tumour[1] + tumour[2], tumour[0] : tumour[0] + tumour[2]] = 255
        Image.fromarray(mask).save(folder / f"mask_{seed}.png")
        rows.append({"image": f"slides/{name}.tif", "label": 1, "mask": f"mask_{seed}.png"})
    (folder / "slides/broken.tif").write_bytes(b"II*\0 nothing")
    rows.append({"image": "slides/broken.tif", "label": 0, "mask": ""})
    with (folder / "slides.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "label", "mask"])
        writer.writeheader()
        writer.writerows(rows)
    for method in ("plain", "other"):
        with pytest.raises(InferenceFailures):  # the broken one
            SlideMapper(Redness(), **grouped(**SETTINGS)).run(folder / "slides.csv", folder / method)
    return folder
