import math

import numpy as np
import pytest
from PIL import Image

from shared.writers.figures.bands import Band, write_bands


def test_curves_and_their_bands_are_drawn(tmp_path):
    x = [0.01, 0.1, 1.0]
    wide = {"S": Band(x, [0.2, 0.5, 0.6], [0.1, 0.1, 0.1]), "published": Band([0.01, 1.0], [0.3, 0.5])}
    narrow = {"S": Band(x, [0.2, 0.5, 0.6], [0.0, math.nan, None])}
    for name, panels in {
        "wide": {"score": wide},
        "narrow": {"score": narrow},
        "three": {"a": wide, "b": wide, "c": wide},
    }.items():
        write_bands(panels, tmp_path / f"{name}.png", "share", title="title")
    pictures = {name: np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")) for name in ("wide", "narrow", "three")}
    # The first colour of matplotlib over white: a band is a fifth of it, a line all of it.
    band = np.round(np.array([255, 255, 255]) * 0.8 + np.array([31, 119, 180]) * 0.2)
    shares = {name: (abs(picture - band).max(-1) <= 2).mean() for name, picture in pictures.items()}
    assert shares["wide"] > 10 * shares["narrow"]
    assert pictures["three"].shape[0] > pictures["wide"].shape[0]
    assert {path.name for path in tmp_path.iterdir()} == {"wide.png", "narrow.png", "three.png"}


@pytest.mark.parametrize("panels", [{}, {"score": {}}])
def test_nothing_to_draw(tmp_path, panels):
    with pytest.raises(ValueError, match="at least one curve"):
        write_bands(panels, tmp_path / "figure.png", "share")
    assert not list(tmp_path.iterdir())
