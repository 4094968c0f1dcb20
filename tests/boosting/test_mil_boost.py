"""MILBoost on bags whose answer is known: rounds by hand, concepts that only some instances carry, going on, misuse."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from shared.boosting import MILBoost
from shared.boosting.bag_loss import LONGEST_STEP, BagLoss


def make_bags(num_bags=60, num_instances=12, num_features=6, shift=4.0, seed=0):
    """Every second bag has three instances whose feature 2 is high; all other values are noise. Bags and true instances."""
    rng = np.random.default_rng(seed)
    bags = rng.normal(size=(num_bags, num_instances, num_features)).astype(np.float32)
    truth = np.zeros((num_bags, num_instances), int)
    truth[1::2, :3] = 1
    bags[..., 2] += shift * truth
    return bags, np.arange(num_bags) % 2, truth


def test_the_first_round_by_hand():
    """Scores are 0 and r is 1: Y = 1/2 everywhere, all weights are equal, and one instance of four lies on the wrong side."""
    bags, labels = [[[0.0], [1.0]], [[2.0], [3.0]], [[0.0], [1.0]], [[0.0], [3.0]]], [0, 1, 0, 1]
    model = MILBoost(n_estimators=1, r=1.0).fit(bags, labels)
    assert model.feature_.tolist() == [[0]]
    assert 1 <= model.threshold_[0, 0] < 2
    ((left, right),) = model.value_
    assert (left, right) == (-right, right)
    # One bag of two is right throughout, in the other an instance lies on either side: Y is 1/2 there whatever the step s.
    # Normal bags: -log(1 - sigmoid(-s)). So 4 L = 3 log(1 + exp(-s)) + log 2, which falls for ever: to the longest step.
    assert right == pytest.approx(LONGEST_STEP, abs=0.01)
    expected = (3 * np.log1p(np.exp(-right)) + np.log(2)) / 4
    assert model.losses_ == pytest.approx([np.log(2), expected])


def test_instances_are_found_by_the_labels_of_bags():
    bags, labels, _ = make_bags()
    model = MILBoost(n_estimators=40, r=8.0).fit(bags, labels)
    test_bags, test_labels, truth = make_bags(seed=1)
    scores = model.instance_decision_function(test_bags.reshape(-1, 6)).reshape(truth.shape)
    assert roc_auc_score(truth.ravel(), scores.ravel()) > 0.97
    assert (model.predict(test_bags) == test_labels).mean() > 0.9
    # What distinguishes them is what the trees say, not any other feature.
    steps = np.abs(model.value_).max(axis=1)
    assert steps[model.feature_[:, 0] == 2].sum() > 0.5 * steps.sum()


@pytest.mark.parametrize("options", [{}, {"max_depth": 3}, {"leaf": "share"}, {"learning_rate": 0.3}, {"max_features": 2}])
def test_the_loss_falls_in_every_round(options):
    bags, labels, _ = make_bags(num_bags=30, shift=1.5)
    model = MILBoost(n_estimators=10, r=4.0, **options).fit(list(bags), labels)
    assert len(model.value_) == 10
    assert (np.diff(model.losses_) < 0).all()
    scores = model.instance_decision_function(bags.reshape(-1, 6))
    assert BagLoss(np.full(30, 12), labels, 4.0).value(scores) == pytest.approx(model.losses_[-1])


def test_probabilities_of_bags_are_the_generalised_mean():
    bags, labels, _ = make_bags(num_bags=8)
    model = MILBoost(n_estimators=5, r=4.0).fit(bags, labels)
    ragged = [bag[: 3 + index] for index, bag in enumerate(bags)]
    expected = [np.mean(model.instance_predict_proba(bag)[:, 1] ** 4) ** 0.25 for bag in ragged]
    probabilities = model.predict_proba(ragged)
    np.testing.assert_allclose(probabilities[:, 1], expected, rtol=1e-9)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert model.predict(ragged).tolist() == [int(p >= 0.5) for p in expected]


@pytest.mark.parametrize("max_features", [None, 2])
def test_going_on_is_as_if_there_had_been_no_end(max_features):
    bags, labels, _ = make_bags(num_bags=30, shift=1.5)
    whole = MILBoost(n_estimators=9, max_features=max_features).fit(bags, labels)
    parts = MILBoost(n_estimators=4, max_features=max_features, warm_start=True).fit(bags, labels)
    # From its trees alone, as a resumed training has them.
    resumed = clone(parts).set_params(n_estimators=9)
    resumed.set_trees(parts.feature_, parts.threshold_, parts.value_, parts.losses_, 6).fit(bags, labels)
    np.testing.assert_array_equal(resumed.feature_, whole.feature_)
    np.testing.assert_allclose(resumed.value_, whole.value_, rtol=1e-6)
    assert resumed.losses_ == pytest.approx(whole.losses_)
    # Without warm_start it begins again.
    again = whole.set_params(n_estimators=2).fit(bags, labels)
    assert len(again.value_) == 2


def test_it_ends_where_nothing_lowers_the_loss():
    """Instances that are the same in both kinds of bags."""
    model = MILBoost(n_estimators=5).fit(np.zeros((4, 3, 2)), [0, 1, 0, 1])
    assert len(model.value_) == 0
    assert model.losses_ == pytest.approx([np.log(2)])
    assert model.predict_proba(np.zeros((1, 3, 2))).tolist() == [[0.5, 0.5]]


def test_it_is_an_estimator_of_scikit_learn():
    model = MILBoost(n_estimators=3, r=2.0)
    assert clone(model).get_params() == model.get_params()
    bags, labels, _ = make_bags(num_bags=10)
    assert model.fit(bags, labels).score(bags, labels) == (model.predict(bags) == labels).mean()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"n_estimators": 0}, "n_estimators=0"),
        ({"r": np.inf}, "r=inf"),
        ({"learning_rate": 1.5}, "learning_rate=1.5"),
        ({"leaf": "mean"}, "leaf must be one of sign, share, got 'mean'"),
    ],
)
def test_rejects_impossible_settings(options, problem):
    with pytest.raises(ValueError, match=problem):
        MILBoost(**options).fit(np.zeros((2, 1, 1)), [0, 1])


@pytest.mark.parametrize(
    ("bags", "labels", "problem"),
    [
        ([], [], "at least one instance"),
        ([[[1.0]], np.zeros((0, 1))], [0, 1], r"\(0, 1\)"),
        ([[[1.0]], [[1.0, 2.0]]], [0, 1], r"the same F; got \[\(1, 1\), \(1, 2\)\]"),
        ([[[1.0]], [[np.nan]]], [0, 1], "got 1 that are not"),
        ([[[1.0]], [[2.0]]], [1, 1], "contain both 0 and 1, nothing else"),
        ([[[1.0]], [[2.0]]], [0, 1, 1], r"\(2,\)"),
    ],
)
def test_rejects_what_are_no_bags(bags, labels, problem):
    with pytest.raises(ValueError, match=problem):
        MILBoost(n_estimators=1).fit(bags, labels)


def test_trees_of_other_features():
    bags, labels, _ = make_bags(num_bags=10)
    model = MILBoost(n_estimators=2, warm_start=True).fit(bags, labels)
    with pytest.raises(ValueError, match="the trees expect 6 features, found instances with 5"):
        model.fit(bags[..., :5], labels)
