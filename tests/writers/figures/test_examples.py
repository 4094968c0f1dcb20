import numpy as np
import pytest
from PIL import Image

from shared.writers import class_colour
from shared.writers.figures.examples import TUMOUR_COLOUR, ExampleRow, blend, blend_classes, write_examples


def test_blend_by_hand():
    image = np.full((1, 3, 3), 255, np.uint8)
    blended = blend(image, np.array([[0.0, 0.5, 1.0]]), opacity=0.5)
    red = np.array(TUMOUR_COLOUR)
    expected = [np.ones(3), 0.75 + 0.25 * red, 0.5 + 0.5 * red]
    assert np.allclose(blended[0], expected, atol=1e-6)


def test_blend_stays_in_range():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    for share in (np.zeros((5, 7), bool), np.ones((5, 7), np.uint8), np.random.default_rng(1).random((5, 7))):
        blended = blend(image, share)
        assert blended.shape == (5, 7, 3)
        assert blended.min() >= 0
        assert blended.max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_blend_of_classes_by_hand(dtype):
    image = np.full((1, 4, 3), 255, np.uint8)
    image[0, 0] = (10, 20, 30)
    blended = blend_classes(image, np.array([[0, 1, 3, 9]], dtype), opacity=0.25)
    colours = [np.array(class_colour(index)) / 255 for index in (1, 3, 9)]
    expected = [np.array([10, 20, 30]) / 255, *(0.75 + 0.25 * colour for colour in colours)]
    assert np.allclose(blended[0], expected, atol=1e-12)
    assert image[0, 1].tolist() == [255, 255, 255], "the image itself was changed"
    assert 0 <= blended.min() <= blended.max() <= 1


def test_background_alone_is_the_image():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(blend_classes(image, np.zeros((5, 7), np.uint8)), image / 255)


def test_integers_are_classes_and_numbers_with_decimals_shares(tmp_path):
    green = np.zeros((20, 20, 3), np.uint8)
    green[..., 1] = 200
    classes = np.full((20, 20), 2, np.uint8)
    path = tmp_path / "examples.png"
    write_examples([ExampleRow("a", green, {"classes": classes, "share": np.ones((20, 20))})], path)
    with Image.open(path) as figure:
        pixels = np.asarray(figure.convert("RGB"))
    width = pixels.shape[1] // 3
    for column, overlay in ((1, blend_classes(green, classes)), (2, blend(green, np.ones((20, 20))))):
        shown = pixels[:, column * width : (column + 1) * width].reshape(-1, 3)
        assert (abs(shown - np.rint(overlay[0, 0] * 255)) <= 2).all(axis=1).mean() > 0.4


@pytest.mark.parametrize("num_rows", [1, 3])
def test_a_figure_opens_and_shows_what_it_was_given(tmp_path, num_rows):
    green = np.zeros((20, 20, 3), np.uint8)
    green[..., 1] = 200
    panels = {"truth": np.ones((20, 20)), "enriched labels": None}
    path = tmp_path / "deep/examples.png"
    write_examples([ExampleRow(f"row {row}\nlabel 1", green, panels) for row in range(num_rows)], path, title="title")
    assert [file.name for file in path.parent.iterdir()] == ["examples.png"]
    with Image.open(path) as figure:
        assert figure.format == "PNG"
        width, height = figure.size
        pixels = np.asarray(figure.convert("RGB"))
    assert (width, height) == pytest.approx((3 * 2.6 * 110, (num_rows * 2.6 + 0.5) * 110), abs=2)
    # Plain image in the first and the last column, the overlay in the second.
    overlay = np.rint(blend(green, np.ones((20, 20)))[0, 0] * 255)
    columns = [pixels[:, start : start + width // 3].reshape(-1, 3) for start in (0, width // 3, 2 * (width // 3))]
    shares = [[(abs(column - colour) <= 2).all(axis=1).mean() for colour in ([0, 200, 0], overlay)] for column in columns]
    assert shares[0][0] > 0.4
    assert shares[1][1] > 0.4
    assert shares[2][0] > 0.4
    # The columns are not quite thirds: their neighbours begin within them.
    assert max(shares[0][1], shares[2][1], shares[1][0]) < 0.1


def test_rows_may_lack_a_panel(tmp_path):
    image = np.zeros((4, 6, 3), np.uint8)
    rows = [ExampleRow("a", image, {"truth": np.zeros((4, 6))}), ExampleRow("b", image)]
    write_examples(rows, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0


def test_no_rows(tmp_path):
    with pytest.raises(ValueError, match="at least one row"):
        write_examples([], tmp_path / "a.png")
