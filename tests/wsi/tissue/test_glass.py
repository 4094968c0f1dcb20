"""The colour of empty glass, which is not that of tissue, of borders or of what was not scanned."""

import numpy as np
import pytest

from shared.wsi.tissue.glass import glass_colour, on_white_glass


def picture(glass, noise=1.5, side_px=120):
    """Tissue, (90, 60, 140) and (210, 120, 170) by turns, on the right half of `glass`."""
    rng = np.random.default_rng(0)
    image = np.empty((side_px, side_px, 3))
    image[:] = glass
    spots = rng.random((side_px, side_px // 2, 1)) < 0.4
    image[:, side_px // 2 :] = np.where(spots, (90, 60, 140), (210, 120, 170))
    return np.uint8((image + rng.normal(0, noise, image.shape)).clip(0, 255))


@pytest.mark.parametrize(
    "glass", [(243, 243, 242), (236, 226, 206), (175, 175, 175), (205, 222, 243), (210, 238, 202), (244, 226, 240)]
)
@pytest.mark.parametrize("side_px", [120, 1300])
def test_the_colour_of_glass(glass, side_px):
    found = glass_colour(picture(glass, side_px=side_px))
    np.testing.assert_allclose(found, glass, atol=1.5)


@pytest.mark.parametrize("border", [0, 40, 255])
def test_borders_are_no_glass(border):
    image = picture((236, 226, 206))
    image[:20], image[-15:] = border, border
    np.testing.assert_allclose(glass_colour(image), (236, 226, 206), atol=1.5)


def test_tissue_is_no_glass():
    for tissue in ((215, 130, 180), (130, 80, 160), (230, 190, 212), (240, 216, 230)):
        assert glass_colour(np.full((40, 40, 3), tissue, np.uint8)) is None
    assert glass_colour(picture((243, 243, 242))[:, 60:]) is None
    # Smooth tissue next to white glass.
    image = np.full((100, 100, 3), 255, np.uint8)
    image[:, 50:] = (240, 228, 240)
    assert glass_colour(image) is None or (glass_colour(image) > 250).all()


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 200, 3)])
def test_tiny_pictures(shape):
    assert glass_colour(np.full(shape, 30, np.uint8)) is None


def test_division_makes_glass_white():
    glass = np.array([236, 226, 206], np.float32)
    image = np.array([[[236, 226, 206], [118, 113, 103], [255, 255, 255], [0, 0, 0]]], np.uint8)
    assert on_white_glass(image, glass).tolist() == [[[255] * 3, [128] * 3, [255] * 3, [0] * 3]]
