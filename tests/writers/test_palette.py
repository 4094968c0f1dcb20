import pytest

from shared.writers import TUMOUR_COLOUR, class_colour


def test_colours_differ_and_tumour_red_is_its_own():
    colours = [class_colour(index) for index in range(1, 15)]
    assert len(set(colours)) == 14
    assert TUMOUR_COLOUR not in colours
    assert all(0 <= value <= 255 and isinstance(value, int) for colour in colours for value in colour)


def test_the_background_has_none():
    with pytest.raises(ValueError, match="class 0 has no colour"):
        class_colour(0)
