import math

import numpy as np
import pytest
from PIL import Image

from shared.writers.figures.reliability import ReliabilityCurve, write_reliability

CURVES = {
    "as trained": ReliabilityCurve([90, 0, 10], [0.1, math.nan, 0.9], [0.2, math.nan, 0.5], 0.13),
    "scaled": ReliabilityCurve([80, 15, 5], [0.2, 0.5, 0.7], [0.2, 0.5, 0.6], 0.005),
}


def test_a_figure_is_written(tmp_path):
    write_reliability(CURVES, tmp_path / "reliability.png", "tumour", "Test split")
    picture = np.array(Image.open(tmp_path / "reliability.png").convert("RGB"))
    # Both curves' colours are there.
    for colour in ((31, 119, 180), (255, 127, 14)):
        assert (np.abs(picture.astype(int) - colour).max(axis=2) < 8).sum() > 100
    assert [path.name for path in tmp_path.iterdir()] == ["reliability.png"]


def test_a_figure_of_nothing(tmp_path):
    with pytest.raises(ValueError, match="at least one curve"):
        write_reliability({}, tmp_path / "reliability.png", "tumour")
