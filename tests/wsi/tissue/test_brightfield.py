"""What is no stained tissue on bright glass is told, and what is one, in whatever frame, is not refused."""

import re

import numpy as np
import pytest

from shared.wsi import Slide, find_tissue
from shared.wsi.tissue.brightfield import brightfield_problem
from tests.wsi.conftest import write_slide

TISSUE = (190, 110, 170)


def picture(ground, colour=TISSUE, noise=4, side=60):
    """Something of 60 x 60 px on a ground of 120 x 160 px, with noise of some grey values, alike in all channels."""
    rgb = np.empty((120, 160, 3))
    rgb[:], rgb[30 : 30 + side, 40 : 40 + side] = ground, colour
    rgb += np.random.default_rng(0).uniform(-noise, noise, (120, 160, 1))
    return np.uint8(np.clip(rgb, 0, 255))


@pytest.mark.parametrize(
    "rgb",
    [
        picture((240, 240, 240)),
        picture((240, 238, 242), (240, 238, 242)),  # empty glass
        picture((0, 0, 0)),  # what was not scanned is black
        picture((0, 0, 0), (243, 243, 243)),
        picture((60, 30, 90), (50, 25, 80)),  # dense nuclei
        picture((220, 20, 60), (190, 30, 80)),  # nothing but strong eosin, or blood
        picture((240, 240, 240), (0, 0, 0), side=10),  # a speck
    ],
)
def test_brightfield_is_let_pass(rgb):
    assert brightfield_problem(rgb, needs_colour=False) is None
    if rgb.std(axis=-1).max() > 2:
        assert brightfield_problem(rgb, needs_colour=True) is None


@pytest.mark.parametrize("needs_colour", [True, False])
@pytest.mark.parametrize(
    ("rgb", "reason"),
    [
        (np.zeros((50, 40, 3), np.uint8), "completely black"),
        (picture((9, 9, 9), (14, 13, 15)), "completely black"),
        (picture((8, 8, 8), (130, 130, 130)), "background is dark .* as in fluorescence"),
        (picture((0, 0, 0), (255, 255, 255), side=40)[..., :1].repeat(3, axis=-1) // 2, "as in fluorescence"),
        (picture((4, 4, 8), (20, 30, 220)), "as in fluorescence"),
        (picture((0, 0, 0), (220, 44, 200)), "as in fluorescence"),
        (picture((6, 6, 20), (6, 6, 220), side=90)[30:, 40:], "its (red|green) is completely dark, as in fluorescence"),
        (picture((240, 240, 240)) // 2, "its brightest is a grey of 12. of 255"),
    ],
)
def test_darkness_is_no_glass(rgb, reason, needs_colour):
    assert re.search(reason, brightfield_problem(rgb, needs_colour))


def test_grey_tissue_is_told_where_colour_is_needed(tmp_path):
    rgb = picture((240, 240, 240), (120, 120, 120))
    assert brightfield_problem(rgb, needs_colour=False) is None
    slide = Slide(write_slide(tmp_path / "a.tif", [rgb], mpp=8.0))
    with pytest.raises(ValueError, match=r"the tissue of .*a\.tif cannot be found: it is grey-scale"):
        find_tissue(slide)
    assert find_tissue(slide, method="white").share > 0.1
