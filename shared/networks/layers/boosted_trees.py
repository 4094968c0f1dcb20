"""Boosted trees as buffers of a network."""

import torch
from torch import Tensor, nn

__all__ = ["BoostedTrees", "tree_scores"]


def tree_scores(features: Tensor, feature: Tensor, threshold: Tensor, value: Tensor) -> Tensor:
    """Sum of the outputs of all trees for each sample.

    Trees are complete: node n has the children 2 n + 1 (left, where ``feature <= threshold``) and 2 n + 2. A branch that ends
    early continues with the same value on both sides.

    Args:
        features: ``(B, F, N)``, B times N samples, float32.
        feature: index of the feature that each inner node looks at, ``(T, 2^d - 1)``, int64.
        threshold: of each inner node, same shape, float32.
        value: of each leaf, from left to right, ``(T, 2^d)``.

    Returns:
        ``(B, N)``, of the type of `value`.

    >>> stump = torch.tensor([[0]]), torch.tensor([[0.5]]), torch.tensor([[-1.0, 2.0]])
    >>> tree_scores(torch.tensor([[[0.5, 0.6]]]), *stump)
    tensor([[-1.,  2.]])
    """
    num_trees, num_nodes = feature.shape[0], feature.shape[1]
    scores = torch.zeros(features.shape[0], features.shape[2], dtype=value.dtype, device=features.device)
    at_once = 16
    for start in range(0, num_trees, at_once):
        chosen, limits = feature[start : start + at_once], threshold[start : start + at_once]
        seen = features.index_select(1, chosen.flatten()).unflatten(1, [chosen.shape[0], num_nodes])
        goes_right = seen > limits[None, :, :, None]
        values = value[start : start + at_once][None, :, :, None]
        # From the leaves to the root, level by level: every inner node takes the value of the side that the sample goes to.
        num_parents = (num_nodes + 1) // 2
        while num_parents > 0:
            is_right = goes_right[:, :, num_parents - 1 : 2 * num_parents - 1]
            values = torch.where(is_right, values[:, :, 1::2], values[:, :, 0::2])
            num_parents = num_parents // 2
        scores = scores + values[:, :, 0].sum(dim=1)
    return scores


class BoostedTrees(nn.Module):
    """A network whose logits are those of boosted trees. Subclasses call `add_trees` in their constructor."""

    feature: Tensor
    threshold: Tensor
    value: Tensor

    def add_trees(self, num_trees: int, max_depth: int) -> None:
        """Register room for trees; fresh, there are none: every logit is 0.

        Raises:
            ValueError: if a number is below 1.
        """
        if num_trees < 1 or max_depth < 1:
            raise ValueError(f"num_trees and max_depth must be at least 1; got {num_trees=}, {max_depth=}")
        num_nodes = 2**max_depth - 1
        self.register_buffer("feature", torch.zeros(num_trees, num_nodes, dtype=torch.int64))
        self.register_buffer("threshold", torch.full((num_trees, num_nodes), torch.inf))
        self.register_buffer("value", torch.zeros(num_trees, num_nodes + 1))

    @torch.jit.unused
    def set_trees(self, feature: Tensor, threshold: Tensor, value: Tensor) -> None:
        """Take the trees of a fitted `shared.boosting.MILBoost`: up to `num_trees`, in its arrays' shapes.

        Raises:
            ValueError: if there are more, or of another depth.
        """
        if len(feature) > len(self.feature) or feature.shape[1:] != self.feature.shape[1:]:
            raise ValueError(f"there is room for trees {tuple(self.feature.shape)}; got {tuple(feature.shape)}")
        for buffer, given, empty in ((self.feature, feature, 0), (self.threshold, threshold, torch.inf), (self.value, value, 0)):
            buffer.fill_(empty)
            buffer[: len(given)] = given.to(buffer)

    def scores(self, features: Tensor) -> Tensor:
        """Features ``(B, F, h, w)`` to the trees' logits ``(B, 1, h, w)``."""
        scores = tree_scores(features.flatten(2), self.feature, self.threshold, self.value)
        return scores.unflatten(1, [1, features.shape[2], features.shape[3]])
