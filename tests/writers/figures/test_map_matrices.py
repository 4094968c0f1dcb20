import numpy as np
import pytest
from PIL import Image

from shared.writers.figures.map_matrices import MapMatrix, write_map_matrices

GREEN = (30, 200, 30)
# The ends of magma.
LOWEST, HIGHEST = (0, 0, 4), (252, 253, 191)


def slide(pairs, value, truth=None):
    image = np.full((40, 60, 3), GREEN, np.uint8)
    return MapMatrix("a slide", image, truth, {pair: np.full((40, 60), value) for pair in pairs})


def share_of(path, colour):
    with Image.open(path) as figure:
        pixels = np.asarray(figure.convert("RGB")).astype(int)
    return (np.abs(pixels - colour).max(axis=2) <= 1).mean()


@pytest.mark.parametrize(("value", "shown", "absent"), [(0.0, LOWEST, HIGHEST), (1.0, HIGHEST, LOWEST)])
def test_maps_have_one_scale(tmp_path, value, shown, absent):
    """A map of one value has that value's colour; each pair adds the same area of it, and the slide is drawn once a block."""
    areas = []
    for pairs in ([(0.2, 0.0), (0.4, 0.2)], [(0.2, 0.0), (0.2, 0.2), (0.4, 0.0), (0.4, 0.2)]):
        path = tmp_path / f"{len(pairs)}.png"
        write_map_matrices([slide(pairs, value)], path)
        areas.append(share_of(path, shown))
        assert share_of(path, absent) < areas[-1] / 20
    assert areas[1] == pytest.approx(2 * areas[0], rel=0.1)
    write_map_matrices([slide([(0.2, 0.0)], value)] * 2, tmp_path / "two.png")
    write_map_matrices([slide([(0.2, 0.0)], value)], tmp_path / "one.png")
    assert share_of(tmp_path / "two.png", GREEN) == pytest.approx(share_of(tmp_path / "one.png", GREEN), rel=0.2)


def test_truth_is_laid_over_the_slide(tmp_path):
    for name, truth in (("none", None), ("empty", np.zeros((40, 60)))):
        write_map_matrices([slide([(0.2, 0.0)], 0.5, truth)], tmp_path / f"{name}.png")
    assert share_of(tmp_path / "empty.png", GREEN) == pytest.approx(2 * share_of(tmp_path / "none.png", GREEN), rel=0.1)


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="at least one slide with a map"):
        write_map_matrices([], tmp_path / "maps.png")
    assert not list(tmp_path.iterdir())
