import numpy as np
import pytest

from shared.writers import PROBABILITY_COLOURS, Legend, class_colour
from shared.writers.legend import add_legend, scale_bar


@pytest.mark.parametrize(
    ("um_per_px", "width_px", "expected"),
    [
        (8.0, 1000, (250, "2 mm")),
        (7.9, 1000, (1000 / 7.9, "1 mm")),
        (2.0, 275, (50, "100 µm")),
        (0.5, 64, (10, "5 µm")),
        (0.5, 10, (2, "1 µm")),
    ],
)
def test_bars_are_round_and_a_quarter_of_the_picture_at_most(um_per_px, width_px, expected):
    length_px, text = scale_bar(um_per_px, width_px)
    assert (length_px, text) == (pytest.approx(expected[0]), expected[1])
    assert length_px <= width_px / 4 * (1 + 1e-9)


def test_the_picture_stays_and_the_bar_has_its_length():
    rgb = np.random.default_rng(0).integers(0, 255, (120, 800, 3), dtype=np.uint8)
    picture = add_legend(rgb, Legend(2.0, [("benign", class_colour(1)), ("in situ", class_colour(2))]))
    assert picture.shape == (146, 800, 3)
    np.testing.assert_array_equal(picture[:120], rgb)
    # 800 px are 1600 um: the bar is 200 um, 100 px, of 4 rows.
    below = picture[120:]
    middle = below[13]
    assert (middle[:115].sum(axis=1) == 0).sum() == 100
    for index in (1, 2):
        assert (below == class_colour(index)).all(axis=2).sum() > 100


def test_a_ramp_shows_the_colours_of_probability():
    picture = add_legend(np.zeros((50, 700, 3), np.uint8), Legend(1.0, ramp=PROBABILITY_COLOURS))
    for colour in (PROBABILITY_COLOURS[0], PROBABILITY_COLOURS[-1]):
        assert (picture[50:] == colour.astype(np.uint8)).all(axis=2).any()


def test_a_narrow_picture_gets_white_beside_it_and_more_lines():
    entries = [(f"class {index}", class_colour(index)) for index in range(1, 5)]
    picture = add_legend(np.zeros((30, 40, 3), np.uint8), Legend(0.5, entries))
    assert picture.shape[1] > 40
    assert picture.shape[0] >= 30 + 2 * 26
    assert (picture[:30, 40:] == 255).all()
    assert (picture[:30, :40] == 0).all()
