import numpy as np
import pytest

from shared.synthetic import EOSIN, HAEMATOXYLIN, Stain, sample_stain, stain_to_rgb


@pytest.mark.parametrize(("amounts", "vector"), [((1.0, 0.0), HAEMATOXYLIN), ((0.0, 1.0), EOSIN)])
def test_density_of_a_single_stain_is_its_vector(amounts, vector):
    stain = Stain(glass=(250.0, 250.0, 250.0))
    maps = [np.full((3, 4), amount, np.float32) for amount in amounts]
    image = stain_to_rgb(*maps, stain)
    density = -np.log(image[0, 0] / 250.0)
    # Half a grey level of 250 * exp(-0.99) = 93.
    np.testing.assert_allclose(density, vector, atol=0.006)


def test_strength_multiplies_and_densities_add():
    one, none = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
    twice = stain_to_rgb(one, none, Stain(haematoxylin_strength=2.0))
    np.testing.assert_array_equal(twice, stain_to_rgb(2 * one, none, Stain()))
    ink = np.asarray(HAEMATOXYLIN, np.float32).reshape(1, 1, 3)
    np.testing.assert_array_equal(stain_to_rgb(one, none, Stain(), ink), twice)


def test_sampled_stains_vary_and_stay_unit_vectors():
    stains = [sample_stain(np.random.default_rng(seed)) for seed in range(50)]
    for stain in stains:
        assert np.linalg.norm(stain.haematoxylin) == pytest.approx(1)
        assert np.linalg.norm(stain.eosin) == pytest.approx(1)
        # Haematoxylin is bluer than eosin: it absorbs more red.
        assert stain.haematoxylin[0] > 2 * stain.eosin[0]
    strengths = np.asarray([[s.haematoxylin_strength, s.eosin_strength] for s in stains])
    assert (strengths.max(axis=0) / strengths.min(axis=0) > 1.8).all()


def test_black_stays_black():
    much = np.full((1, 1), 100, np.float32)
    assert stain_to_rgb(much, much, Stain()).max() == 0
