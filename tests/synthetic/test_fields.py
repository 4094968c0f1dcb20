import numpy as np
import pytest

from shared.synthetic.fields import level_of_share, smooth_field, soft_above


def test_field_has_the_shape_and_about_unit_variance():
    field = smooth_field(np.random.default_rng(0), (301, 407), 6.5)
    assert (field.shape, field.dtype) == ((301, 407), np.float32)
    assert abs(field.mean()) < 0.1
    assert field.std() == pytest.approx(1, abs=0.1)


def test_field_is_smooth():
    field = smooth_field(np.random.default_rng(0), (200, 200), 40)
    assert np.abs(np.diff(field, axis=0)).max() < 0.2
    assert np.abs(np.diff(field, axis=1)).max() < 0.2


@pytest.mark.parametrize("share", [0.0, 0.137, 1.0])
def test_level_cuts_the_exact_share_of_the_region(share):
    field = smooth_field(np.random.default_rng(1), (50, 60), 5)
    within = np.zeros((50, 60), np.bool_)
    within[10:40] = True
    above = field > level_of_share(field, share, within)
    assert (above & within).sum() == round(share * 1800)


def test_ramp():
    field = np.asarray([0.0, 0.9, 1.0, 1.1, 2.0], np.float32)
    np.testing.assert_allclose(soft_above(field, 1.0, 0.4), [0, 0.25, 0.5, 0.75, 1], atol=1e-6)
    assert soft_above(field, float("inf"), 0.4).max() == 0
