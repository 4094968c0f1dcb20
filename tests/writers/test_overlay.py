import numpy as np
import pytest
from PIL import Image

from shared.writers import overlay_image, write_overlay


def test_colour_where_tumour_is_and_outline_on_top(tmp_path):
    rgb = np.full((40, 60, 3), 200, np.uint8)
    probability = np.zeros((40, 60), np.float32)
    probability[10:20, 10:30] = 1
    ring = np.array([[40, 5], [50, 5], [50, 15], [40, 5]])
    write_overlay(tmp_path / "a.png", rgb, probability, [ring])
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert picture.shape == (40, 60, 3)
    assert (picture[30:, :] == 200).all()
    # 0.4 of the slide and 0.6 of viridis' yellow.
    assert (picture[15, 20] == np.rint(0.4 * 200 + 0.6 * np.array([253, 231, 37]))).all()
    assert tuple(picture[5, 45]) == (200, 0, 0)


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="one size"):
        overlay_image(np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4)))
