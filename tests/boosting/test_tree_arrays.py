"""Trees as arrays against scikit-learn's own predictions."""

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeClassifier

from shared.boosting.tree_arrays import complete_tree
from shared.networks import tree_scores


def margins(tree, instances):
    shares = tree.predict_proba(instances)
    both = {label: shares[:, column] for column, label in enumerate(tree.classes_)}
    zero = np.zeros(len(instances))
    return both.get(1, zero) - both.get(0, zero)


def arrays_say(tree, instances, max_depth):
    arrays = (torch.as_tensor(array[None]) for array in complete_tree(tree, max_depth))
    return tree_scores(torch.as_tensor(instances.T)[None], *arrays)[0].numpy()


@pytest.mark.parametrize("max_depth", [1, 2, 3, 4])
def test_a_tree_decides_the_same(max_depth):
    rng = np.random.default_rng(max_depth)
    # Few distinct values, so that many instances lie where a threshold does.
    instances = rng.integers(0, 12, (400, 5)).astype(np.float32) / np.float32(3)
    labels = rng.integers(0, 2, 400)
    tree = DecisionTreeClassifier(max_depth=max_depth, random_state=0).fit(
        instances, labels, sample_weight=rng.uniform(0, 2, 400)
    )
    np.testing.assert_allclose(arrays_say(tree, instances, max_depth), margins(tree, instances), atol=1e-12)
    assert tree.get_depth() == max_depth


def test_branches_that_end_early():
    """One side is pure at once, the other only at the third level."""
    instances = np.arange(8, dtype=np.float32)[:, None]
    labels = np.array([0, 0, 0, 0, 1, 0, 1, 1])
    tree = DecisionTreeClassifier(max_depth=3).fit(instances, labels)
    assert arrays_say(tree, instances, 3).tolist() == (2 * labels - 1).tolist()


def test_a_tree_of_one_label_has_no_split():
    tree = DecisionTreeClassifier(max_depth=2).fit(np.zeros((3, 1), np.float32), np.ones(3, int))
    feature, threshold, margin = complete_tree(tree, 2)
    assert feature.tolist() == [0, 0, 0]
    assert np.isinf(threshold).all()
    assert margin.tolist() == [1, 1, 1, 1]


def test_neighbouring_floats_stay_apart():
    """The threshold between them, rounded to float32, would be the upper one."""
    instances = np.ones((3, 1), np.float32)
    for row in (1, 2):
        instances[row] = np.nextafter(instances[row - 1], np.float32(2))
    for labels in ([0, 1, 1], [0, 0, 1]):
        tree = DecisionTreeClassifier(max_depth=1).fit(instances, labels)
        assert (arrays_say(tree, instances, 1) > 0).tolist() == (tree.predict(instances) > 0).tolist()
