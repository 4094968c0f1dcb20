"""Outlines that cross themselves: the area that the even-odd rule says, soon."""

import time

import numpy as np
import pytest
import shapely
from shapely.geometry import Polygon

from shared.wsi.annotations import even_odd
from shared.wsi.annotations.annotation import area_of


def even_odd_mask(rings, size):
    """By the definition, at the middles of pixels: a ray to the right crosses the rings an odd number of times."""
    inside = np.zeros((size, size), dtype=bool)
    for row in range(size):
        for column in range(size):
            x, y = column + 0.5, row + 0.5
            for ring in rings:
                for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                    if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                        inside[row, column] ^= True
    return inside


@pytest.mark.parametrize("seed", range(6))
def test_the_pixels_of_the_even_odd_rule(seed):
    rng = np.random.default_rng(seed)
    # Whole numbers: corners meet corners and sides.
    rings = [rng.integers(0, 24, (12, 2)).astype(float), *rng.integers(0, 24, (seed % 3, 5, 2)).astype(float)]
    area = area_of([rings])
    assert area.is_valid
    middles = np.arange(24) + 0.5
    found = shapely.contains_xy(area, *np.meshgrid(middles, middles))
    expected = even_odd_mask(rings, 24)
    on_a_line = shapely.distance(area.boundary, shapely.points(*np.meshgrid(middles, middles))) < 1e-6
    np.testing.assert_array_equal(found[~on_a_line], expected[~on_a_line])


@pytest.mark.parametrize("seed", range(3))
def test_the_area_that_shapely_makes_valid(seed):
    outline = np.random.default_rng(seed).uniform(0, 1000, (40, 2))
    assert area_of([[outline]]).symmetric_difference(shapely.make_valid(Polygon(outline))).area < 1e-6


def test_what_is_gone_around_twice_or_along_there_and_back_is_outside():
    square = [(0, 0), (10, 0), (10, 10), (0, 10)]
    inner = [(2, 2), (6, 2), (6, 6), (2, 6)]
    assert area_of([[np.array(square * 2, float)]]) is None
    assert area_of([[np.array([*square, square[0], *inner, inner[0]], float)]]).area == 100 - 16
    assert area_of([[np.array(square, float), np.array([(5, 5), (15, 5), (15, 15), (5, 15)], float)]]).area == 100 - 25 + 75


def test_a_scribble_of_hundreds_of_points_takes_seconds():
    outline = np.random.default_rng(0).uniform(0, 100_000, (300, 2))
    start = time.process_time()
    area = area_of([[outline]])
    assert time.process_time() - start < 20
    assert 0.3e10 < area.area < 0.6e10


def test_more_crossings_than_anyone_draws_are_refused(monkeypatch):
    outline = np.random.default_rng(0).uniform(0, 1000, (2000, 2))
    with pytest.raises(ValueError, match="an outline of 2,000 points crosses itself more than 200,000 times"):
        area_of([[outline]])
    # An outline of many points is none, as long as it hardly crosses itself.
    angles = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 1000
    bow = np.concatenate([circle, circle[:1], [[1500, 500], [1500, -500], [900, 0]]])
    monkeypatch.setattr(even_odd, "MAX_CROSSINGS", 10)
    assert area_of([[bow]]).area == pytest.approx(np.pi * 1e6, rel=0.2)
