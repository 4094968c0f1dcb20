import numpy as np
import pytest
from PIL import Image

from shared.writers import Legend, class_colour, class_overlay_image, overlay_image, write_overlay

RGB = np.full((40, 60, 3), 200, np.uint8)


def test_colour_where_tumour_is_and_outline_on_top(tmp_path):
    probability = np.zeros((40, 60), np.float32)
    probability[10:20, 10:30] = 1
    ring = np.array([[40, 5], [50, 5], [50, 15], [40, 5]])
    write_overlay(tmp_path / "a.png", overlay_image(RGB, probability, [ring]), Legend(1.0))
    picture = np.asarray(Image.open(tmp_path / "a.png"))[:40, :60]
    assert (picture[30:] == 200).all()
    # 0.4 of the slide and 0.6 of viridis' yellow.
    assert (picture[15, 20] == np.rint(0.4 * 200 + 0.6 * np.array([253, 231, 37]))).all()
    assert tuple(picture[5, 45]) == (200, 0, 0)


def test_classes_have_their_colours_and_the_background_none():
    probabilities = np.zeros((3, 40, 60), np.float32)
    probabilities[0] = 1
    probabilities[:, :10] = np.array([0.2, 0.3, 0.5])[:, None, None]
    colours = [class_colour(1), class_colour(2)]
    ring = np.array([[40, 25], [50, 25], [50, 35], [40, 25]])
    picture = class_overlay_image(RGB, probabilities, colours, [(ring, colours[0])])
    # The likeliest class is the last one, at probability 0.5: 0.3 of its colour.
    assert (picture[5, 5] == np.rint(0.7 * 200 + 0.3 * np.array(colours[1]))).all()
    assert (picture[12:20] == 200).all()
    assert tuple(picture[25, 45]) == colours[0]


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="of the same size"):
        overlay_image(np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4)))
    with pytest.raises(ValueError, match="3 classes need 2 colours, got 1"):
        class_overlay_image(RGB, np.zeros((3, 40, 60)), [class_colour(1)])
