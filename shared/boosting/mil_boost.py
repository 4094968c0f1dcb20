"""MILBoost: weak learners on instances, taught by the labels of bags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.validation import check_is_fitted

from ..networks.layers.boosted_trees import tree_scores
from .bag_loss import BagLoss
from .tree_arrays import complete_tree

LEAVES = ("sign", "share")


class MILBoost(ClassifierMixin, BaseEstimator):
    """Boosting for bags: an instance's score is the sum of weighted trees, a bag's probability the generalised mean.

    Every round weighs each instance by the gradient of the bags' loss in its score, fits a tree to the bags' labels under these
    weights, and adds it with the step that lowers the loss most. So in bags with label 1 the instances that speak for the label
    already weigh most, in those with label 0 the ones that speak against it. It ends early where no step lowers the loss.

    Args:
        n_estimators: rounds, a tree each.
        r: sharpness of the generalised mean, > 0.
        max_depth: of a tree: 1 for stumps.
        leaf: what a tree says: ``"sign"``, -1 or 1, whichever label weighs more in the leaf; ``"share"``, the difference of the
            labels' shares of its weight, from -1 to 1.
        learning_rate: share of the best step that is taken, in (0, 1].
        max_features: features that each node chooses among, as in scikit-learn's trees; None for all.
        balanced: both labels weigh the same, however many bags they have.
        warm_start: `fit` continues with the existing trees, up to `n_estimators`.
        random_state: of `max_features` and of ties between features, an integer.

    Attributes:
        feature_, threshold_, value_: the trees, `shared.networks.tree_scores` says how; leaves are multiplied by their step.
        losses_: of the bags before the first round and after each.
        n_features_in_, classes_: as in scikit-learn.

    Reference:
        Viola, Platt and Zhang, NIPS 2005; with the generalised mean for noisy-or: Xu et al., MedIA 2014 (MCIL with one
        cluster).

    >>> bags = [[[0.0], [0.1]], [[0.2], [0.1]], [[0.0], [1.0]], [[0.9], [0.1]]]
    >>> MILBoost(n_estimators=2).fit(bags, [0, 0, 1, 1]).predict(bags)
    array([0, 0, 1, 1])
    """

    feature_: NDArray[np.int64]
    threshold_: NDArray[np.float32]
    value_: NDArray[np.float64]
    losses_: list[float]
    n_features_in_: int
    classes_: NDArray[np.integer]

    def __init__(
        self,
        n_estimators: int = 100,
        *,
        r: float = 20.0,
        max_depth: int = 1,
        leaf: str = "sign",
        learning_rate: float = 1.0,
        max_features: int | float | str | None = None,
        balanced: bool = True,
        warm_start: bool = False,
        random_state: int = 0,
    ) -> None:
        self.n_estimators = n_estimators
        self.r = r
        self.max_depth = max_depth
        self.leaf = leaf
        self.learning_rate = learning_rate
        self.max_features = max_features
        self.balanced = balanced
        self.warm_start = warm_start
        self.random_state = random_state

    def fit(self, bags: Sequence[ArrayLike], labels: ArrayLike) -> MILBoost:
        """Learn from bags of instances.

        Args:
            bags: of each bag its instances ``(n_i, F)``, n_i at least 1; or an array ``(B, n, F)``. Used in float32.
            labels: of the bags, 0 or 1, ``(B,)``.

        Raises:
            ValueError: if a parameter is out of range, shapes do not fit, a feature is not finite or a label is missing.
        """
        self._check_parameters()
        instances, sizes = _stacked(bags)
        bag_labels = _checked_labels(labels, len(sizes))
        if not self.warm_start or not hasattr(self, "value_"):
            self._clear()
        elif instances.shape[1] != self.n_features_in_:
            raise ValueError(f"the trees expect {self.n_features_in_} features, found instances with {instances.shape[1]}")
        self.n_features_in_, self.classes_ = instances.shape[1], np.array([0, 1])
        loss = BagLoss(sizes, bag_labels, self.r, self.balanced)
        targets = np.repeat(bag_labels, sizes)
        scores = self.instance_decision_function(instances)
        if not self.losses_:
            self.losses_ = [loss.value(scores)]
        for _ in range(len(self.value_), self.n_estimators):
            step = self._round(instances, targets, scores, loss)
            if step is None:
                break
            scores += step
            self.losses_.append(loss.value(scores))
        return self

    def instance_decision_function(self, instances: ArrayLike) -> NDArray[np.float64]:
        """Scores of instances ``(n, F)``: logits ``(n,)``."""
        check_is_fitted(self, "value_")
        features = torch.as_tensor(np.asarray(instances, dtype=np.float32).T)[None]
        trees = (torch.as_tensor(array) for array in (self.feature_, self.threshold_, self.value_))
        return tree_scores(features, *trees)[0].numpy()

    def instance_predict_proba(self, instances: ArrayLike) -> NDArray[np.float64]:
        """Probabilities of both labels of instances ``(n, F)``: ``(n, 2)``."""
        return _two_columns(torch.as_tensor(self.instance_decision_function(instances)).sigmoid().numpy())

    def predict_proba(self, bags: Sequence[ArrayLike]) -> NDArray[np.float64]:
        """Probabilities of both labels of bags: ``(B, 2)``."""
        return _two_columns(np.exp(self._log_probabilities(bags)))

    def predict(self, bags: Sequence[ArrayLike]) -> NDArray[np.integer]:
        """Labels of bags, at a probability of 0.5: ``(B,)``."""
        return self.classes_[(self.predict_proba(bags)[:, 1] >= 0.5).astype(int)]

    def set_trees(
        self, feature: NDArray[Any], threshold: NDArray[Any], value: NDArray[Any], losses: Sequence[float], num_features: int
    ) -> MILBoost:
        """Take trees of an earlier fit, from which `fit` continues with `warm_start`."""
        self.feature_, self.threshold_, self.value_ = feature, threshold, value
        self.losses_, self.n_features_in_, self.classes_ = list(losses), num_features, np.array([0, 1])
        return self

    def _clear(self) -> None:
        num_nodes = 2**self.max_depth - 1
        self.feature_ = np.zeros((0, num_nodes), np.int64)
        self.threshold_ = np.zeros((0, num_nodes), np.float32)
        self.value_ = np.zeros((0, num_nodes + 1), np.float64)
        self.losses_ = []

    def _round(
        self, instances: NDArray[np.float32], targets: NDArray[Any], scores: NDArray[np.float64], loss: BagLoss
    ) -> NDArray[np.float64] | None:
        """Add one tree; what it adds to the scores, or None where nothing lowers the loss."""
        weights = np.abs(loss.gradient(scores))
        if not weights.sum() > 0:
            return None
        tree = DecisionTreeClassifier(
            max_depth=self.max_depth,
            max_features=self.max_features,
            # A separate number for each round: a resumed fit draws what an uninterrupted one does.
            random_state=self.random_state * 1_000_003 + len(self.value_),
        )
        tree.fit(instances, targets, sample_weight=weights * (len(weights) / weights.sum()))
        feature, threshold, shares = complete_tree(tree, self.max_depth)
        says = np.where(shares >= 0, 1.0, -1.0) if self.leaf == "sign" else shares
        features = torch.as_tensor(instances.T)[None]
        arrays = (torch.as_tensor(array[None]) for array in (feature, threshold, says))
        direction = tree_scores(features, *arrays)[0].numpy()
        step = self.learning_rate * loss.best_step(scores, direction)
        if step == 0:
            return None
        self.feature_ = np.concatenate([self.feature_, feature[None]])
        self.threshold_ = np.concatenate([self.threshold_, threshold[None]])
        self.value_ = np.concatenate([self.value_, step * says[None]])
        return step * direction

    def _log_probabilities(self, bags: Sequence[ArrayLike]) -> NDArray[np.float64]:
        instances, sizes = _stacked(bags)
        loss = BagLoss(sizes, np.zeros(len(sizes), int), self.r)
        return np.asarray(loss.log_probabilities(torch.as_tensor(self.instance_decision_function(instances))))

    def _check_parameters(self) -> None:
        if self.n_estimators < 1 or self.max_depth < 1 or not 0 < self.learning_rate <= 1 or not 0 < self.r < np.inf:
            raise ValueError(
                "need n_estimators >= 1, max_depth >= 1, 0 < learning_rate <= 1, r > 0 and finite; got "
                f"n_estimators={self.n_estimators}, max_depth={self.max_depth}, learning_rate={self.learning_rate}, r={self.r}"
            )
        if self.leaf not in LEAVES:
            raise ValueError(f"leaf must be one of {', '.join(LEAVES)}, got {self.leaf!r}")


def _stacked(bags: Sequence[ArrayLike]) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
    """All instances ``(N, F)``, and how many each bag has."""
    arrays = [np.asarray(bag, dtype=np.float32) for bag in bags]
    if not arrays or any(array.ndim != 2 or len(array) == 0 or array.shape[1] != arrays[0].shape[1] for array in arrays):
        shapes = [array.shape for array in arrays[:8]]
        raise ValueError(f"bags must be (n_i, F) with at least one instance and the same F; got {shapes}")
    instances = np.concatenate(arrays)
    if not np.isfinite(instances).all():
        raise ValueError(f"features must be finite; got {int((~np.isfinite(instances)).sum())} that are not")
    return instances, np.array([len(array) for array in arrays])


def _checked_labels(labels: ArrayLike, num_bags: int) -> NDArray[np.integer]:
    array = np.asarray(labels)
    if array.shape != (num_bags,) or set(np.unique(array)) != {0, 1}:
        raise ValueError(
            f"labels must be ({num_bags},) and contain both 0 and 1, nothing else; got {np.unique(array)[:8]} {array.shape}"
        )
    return array.astype(np.int64)


def _two_columns(tumour: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([1 - tumour, tumour], axis=1)
