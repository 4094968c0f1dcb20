"""Squares cut from images, labelled by their masks."""

import numpy as np
import pytest
from PIL import Image

from shared.data.patches.image_regions import labelled_squares


@pytest.fixture
def record(write_image, tmp_path):
    """An image of 40 x 20 px with tumour, class 2, in its last 10 columns, and one pixel of class 1."""
    mask = np.zeros((20, 40), np.uint8)
    mask[:, 30:] = 2
    mask[0, 0] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return {"image": str(write_image("a", (40, 20))), "mask": str(tmp_path / "mask.png"), "label": 2, "mpp": 0.5, "row": 7}


def places(squares):
    return [(square["x"], square["y"], square["width_px"], square["height_px"]) for square in squares]


@pytest.mark.parametrize(("num_classes", "labels"), [(2, [1, 1]), (3, [1, 2])])
def test_squares_have_the_labels_of_their_masks(record, num_classes, labels):
    squares = labelled_squares(record, 20, num_classes)
    assert places(squares) == [(0, 0, 20, 20), (20, 0, 20, 20)]
    assert [square["label"] for square in squares] == labels
    assert [square["area"] for square in squares] == [0.0025, 0.5]


def test_squares_of_a_region_and_without_tumour(record):
    region = {**record, "x": 4, "y": 2, "width_px": 20, "height_px": 10, "mpp": 0.25}
    squares = labelled_squares(region, 10)
    assert places(squares) == [(4, 2, 10, 10), (14, 2, 10, 10)]
    assert [(square["label"], square["area"], square["mpp"]) for square in squares] == [(0, 0.0, 0.25)] * 2


def test_label_0_needs_no_mask(record):
    squares = labelled_squares({**record, "label": 0, "mask": None}, 20)
    assert [square["label"] for square in squares] == [0, 0]
    with pytest.raises(ValueError, match=r"row 7, .*a\.png: .*squares .* can only be labelled by its mask"):
        labelled_squares({**record, "mask": None}, 20)
