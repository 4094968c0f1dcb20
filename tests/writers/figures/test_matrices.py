import numpy as np
import pytest
from PIL import Image

from shared.writers.figures.matrices import write_matrices

PAIRS = [(alpha, beta) for alpha in (0.2, 0.4, 0.6) for beta in (0.0, 0.2)]


def pixels(path):
    with Image.open(path) as figure:
        assert figure.format == "PNG"
        return np.asarray(figure.convert("RGB"))


def has(image, colour, least=500):
    """Whether as many pixels have a colour of the scale, to a grey value."""
    return (np.abs(image.astype(int) - colour).max(axis=2) <= 1).sum() >= least


# The ends of viridis.
LOWEST, HIGHEST = (68, 1, 84), (253, 231, 36)


@pytest.mark.parametrize("num_scores", [1, 3])
def test_a_figure_opens(tmp_path, num_scores):
    rows = {
        f"score {index}": {"ours": dict.fromkeys(PAIRS, 0.75), "published": dict.fromkeys(PAIRS, 0.5)}
        for index in range(num_scores)
    }
    path = tmp_path / "deep/matrices.png"
    write_matrices(rows, path, title="AUC")
    assert [file.name for file in path.parent.iterdir()] == ["matrices.png"]
    height, width, _ = pixels(path).shape
    assert (width, height) == pytest.approx(((2 * 3.0 + 0.8) * 110, (num_scores * 2.8 + 0.5) * 110), abs=2)


def test_one_scale_of_colours(tmp_path):
    """A matrix of one value has that value's colour, not one of a scale of its own."""
    for value, shown, absent in ((0.0, LOWEST, HIGHEST), (1.0, HIGHEST, LOWEST)):
        write_matrices({"AUC": {"ours": dict.fromkeys(PAIRS, value)}}, tmp_path / "a.png")
        image = pixels(tmp_path / "a.png")
        assert has(image, shown)
        assert not has(image, absent, least=1)


def test_missing_values_stay_white(tmp_path):
    full = dict.fromkeys(PAIRS, 0.0)
    sparse = full | {(0.2, 0.0): None}
    without = {pair: value for pair, value in full.items() if pair != (0.2, 0.0)}
    amounts = []
    for matrix in (full, sparse, without, dict.fromkeys(PAIRS, None)):
        write_matrices({"AUC": {"ours": matrix, "published": full}}, tmp_path / "a.png")
        image = pixels(tmp_path / "a.png")
        amounts.append((np.abs(image.astype(int) - LOWEST).max(axis=2) <= 1).sum())
    # None is as good as no entry where another panel has the pair: one of six squares is gone, then all of one panel.
    assert amounts[1] == amounts[2]
    assert (amounts[0] - amounts[1]) / (amounts[0] / 2) == pytest.approx(1 / 6, rel=0.1)
    assert amounts[3] == pytest.approx(amounts[0] / 2, rel=0.1)


def test_rows_of_different_length_and_whole_numbers(tmp_path):
    rows = {"AUC": {"ours": {(0, 1): 1}, "published": {(1, 0): 0}}, "recall": {"ours": {(0, 1): 0.5}}, "precision": {}}
    write_matrices(rows, tmp_path / "a.png", parameters=("first", "second"))
    assert has(pixels(tmp_path / "a.png"), HIGHEST)


@pytest.mark.parametrize("rows", [{}, {"AUC": {}}, {"AUC": {"ours": {}}}])
def test_nothing_to_draw(tmp_path, rows):
    with pytest.raises(ValueError, match="needs at least one matrix with a pair"):
        write_matrices(rows, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
