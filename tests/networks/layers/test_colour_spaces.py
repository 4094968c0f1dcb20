"""Colour spaces against scikit-image."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2gray, rgb2hed, rgb2lab

from shared.networks.layers.colour_spaces import rgb_to_grey, rgb_to_hed, rgb_to_lab


@pytest.mark.parametrize(
    ("ours", "theirs", "tolerance"), [(rgb_to_lab, rgb2lab, 1e-3), (rgb_to_hed, rgb2hed, 1e-5), (rgb_to_grey, rgb2gray, 1e-6)]
)
def test_as_scikit_image(ours, theirs, tolerance):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    pixels[0, :6] = [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]
    expected = theirs(pixels)
    converted = ours(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
    expected = np.moveaxis(expected, -1, 0) if expected.ndim == 3 else expected[None]
    np.testing.assert_allclose(converted[0].numpy(), expected, atol=tolerance)
