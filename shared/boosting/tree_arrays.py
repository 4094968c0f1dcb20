"""A scikit-learn tree as arrays of fixed size, which a network can hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeClassifier

NO_CHILD = -1


def complete_tree(
    tree: DecisionTreeClassifier, max_depth: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float64]]:
    """A fitted tree of two labels as the complete tree of `max_depth` that decides the same.

    Args:
        tree: no deeper than `max_depth`; fitted with labels 0 and 1, or with one of them.
        max_depth: at least 1.

    Returns:
        features ``(2^d - 1,)`` and thresholds ``(2^d - 1,)`` of the inner nodes, see `shared.networks.tree_scores`, and of each
        leaf ``(2^d,)`` the weighted share of label 1 minus that of label 0.
    """
    inner = tree.tree_
    num_nodes = 2**max_depth - 1
    feature = np.zeros(num_nodes, np.int64)
    # Of a branch that has ended both sides are the same: it does not matter which one is taken.
    threshold = np.full(num_nodes, np.inf, np.float32)
    margin = np.zeros(num_nodes + 1)
    waiting = [(0, 0)]
    while waiting:
        place, node = waiting.pop()
        is_split = inner.children_left[node] != NO_CHILD
        if place >= num_nodes:
            margin[place - num_nodes] = _margin(inner.value[node, 0], tree.classes_)
            continue
        if is_split:
            feature[place], threshold[place] = inner.feature[node], _rounded_down(inner.threshold[node])
        left, right = (inner.children_left[node], inner.children_right[node]) if is_split else (node, node)
        waiting += [(2 * place + 1, left), (2 * place + 2, right)]
    return feature, threshold, margin


def _rounded_down(threshold: float) -> np.float32:
    """The largest float32 that is not above: float32 features compare with it as with the float64 threshold."""
    rounded = np.float32(threshold)
    return np.nextafter(rounded, np.float32(-np.inf)) if float(rounded) > threshold else rounded


def _margin(shares: NDArray[np.float64], classes: NDArray[np.integer]) -> float:
    by_label = dict(zip(classes.tolist(), (shares / shares.sum()).tolist(), strict=True))
    return by_label.get(1, 0.0) - by_label.get(0, 0.0)
