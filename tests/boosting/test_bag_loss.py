"""The bags' loss by hand, its gradient against its equation and against differences, its line search against a grid."""

import math

import numpy as np
import pytest

from shared.boosting.bag_loss import LONGEST_STEP, BagLoss

SIZES = np.array([3, 1, 5, 2])
LABELS = np.array([0, 1, 1, 0])


def sigmoid(scores):
    return 1 / (1 + np.exp(-scores))


def bag_loss(scores, label, r):
    """As the papers write it."""
    probability = np.mean(sigmoid(scores) ** r) ** (1 / r)
    return -math.log(probability if label else 1 - probability)


@pytest.fixture
def scores():
    return np.random.default_rng(0).normal(0, 2, SIZES.sum())


def test_by_hand():
    # Y = ((1/2)^2 / 2 + (3/4)^2 / 2)^(1/2) = sqrt(13 / 32) of the tumour bag, 1/4 of the other: means of two labels.
    loss = BagLoss(np.array([2, 1]), np.array([1, 0]), r=2.0)
    value = loss.value(np.array([0.0, math.log(3), -math.log(3)]))
    assert value == pytest.approx((-math.log(math.sqrt(13 / 32)) - math.log(3 / 4)) / 2)


@pytest.mark.parametrize("r", [1.0, 4.0, 20.0])
def test_bags_of_different_sizes(scores, r):
    bags = np.split(scores, np.cumsum(SIZES)[:-1])
    each = [bag_loss(bag, label, r) for bag, label in zip(bags, LABELS, strict=True)]
    assert BagLoss(SIZES, LABELS, r).value(scores) == pytest.approx(np.mean(each))


def test_balance():
    """Three normal bags and one with tumour: both labels weigh the same, or every bag does."""
    labels, scores = np.array([0, 0, 0, 1]), np.array([0.5, -1.0, 2.0, 0.3])
    each = [bag_loss(score[None], label, 4.0) for score, label in zip(scores, labels, strict=True)]
    sizes = np.ones(4, int)
    assert BagLoss(sizes, labels, 4.0).value(scores) == pytest.approx((np.mean(each[:3]) + each[3]) / 2)
    assert BagLoss(sizes, labels, 4.0, balanced=False).value(scores) == pytest.approx(np.mean(each))


@pytest.mark.parametrize("r", [1.0, 4.0, 20.0])
def test_gradient_is_that_of_differences(scores, r):
    loss, step = BagLoss(SIZES, LABELS, r), 1e-6
    differences = [
        (loss.value(scores + step * unit) - loss.value(scores - step * unit)) / (2 * step) for unit in np.eye(len(scores))
    ]
    np.testing.assert_allclose(loss.gradient(scores), differences, atol=1e-8)


def test_gradient_is_the_equation(scores):
    """Instance weights of the papers: dL/dY dY/dp dp/dh, of two bags a label."""
    r, expected = 4.0, []
    for bag, label in zip(np.split(scores, np.cumsum(SIZES)[:-1]), LABELS, strict=True):
        p = sigmoid(bag)
        mean = np.mean(p**r) ** (1 / r)
        of_mean = -1 / mean if label else 1 / (1 - mean)
        expected.append(of_mean * p ** (r - 1) * mean ** (1 - r) / len(p) * p * (1 - p) / 4)
    np.testing.assert_allclose(BagLoss(SIZES, LABELS, r).gradient(scores), np.concatenate(expected), rtol=1e-9)


def test_weights_of_sure_instances_are_finite():
    loss = BagLoss(np.array([2, 2]), np.array([0, 1]), 20.0)
    gradient = loss.gradient(np.array([-300.0, -400.0, 500.0, -500.0]))
    assert np.isfinite(gradient).all()
    assert np.isfinite(loss.value(np.array([30.0, 30.0, -300.0, -300.0])))


def test_best_step_is_the_best_of_a_grid(scores):
    loss = BagLoss(SIZES, LABELS, 4.0)
    direction = np.sign(-loss.gradient(scores))
    grid = np.linspace(0, LONGEST_STEP, 2001)
    # A perfect direction is followed to the end; a noisy one is not.
    noisy = direction * np.random.default_rng(1).choice([-1, 1], len(scores), p=[0.3, 0.7])
    for way in (direction, noisy):
        best = grid[np.argmin([loss.value(scores + step * way) for step in grid])]
        found = loss.best_step(scores, way)
        assert loss.value(scores + found * way) == pytest.approx(loss.value(scores + best * way), abs=1e-5)
    assert loss.best_step(scores, -direction) == 0
