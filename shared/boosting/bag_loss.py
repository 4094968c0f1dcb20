"""The bags' cross entropy under the generalised mean, its gradient in every instance's score, and its line search."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from ..losses.power_mean import image_cross_entropy, log_generalized_mean

Floats = NDArray[np.floating]

# In a first round it makes probabilities of 0.02 and 0.98; a tree that separates all bags would have none that is best.
LONGEST_STEP = 4.0


class BagLoss:
    """``-log Y`` of bags with label 1 and ``-log(1 - Y)`` of the others, Y being the generalised mean of their instances.

    An instance's probability is the sigmoid of its score.

    Args:
        sizes: number of instances of each bag; scores come bag by bag.
        labels: of the bags, 0 or 1.
        r: sharpness of the generalised mean.
        balanced: both labels weigh the same, however many bags they have; else every bag does.

    Reference:
        Viola, Platt and Zhang, NIPS 2005 (MILBoost); Xu et al., MedIA 2014 (MCIL), equations of the generalised mean.
        Deviations: means over bags, where they sum, which scales loss and gradient alike; and sigmoid(h), where they have
        sigmoid(2 h), which halves the scores.
    """

    def __init__(self, sizes: NDArray[np.integer], labels: NDArray[np.integer], r: float, balanced: bool = True) -> None:
        self.r = r
        self.labels = torch.as_tensor(np.ascontiguousarray(labels))
        # One row per bag, filled up at the end.
        columns = np.arange(max(sizes))[None]
        self.is_instance = torch.as_tensor(columns < np.asarray(sizes)[:, None])
        self.is_ragged = not bool(self.is_instance.all())
        members = [self.labels == label for label in (0, 1)] if balanced else [torch.ones_like(self.labels, dtype=torch.bool)]
        self.groups = [group for group in members if group.any()]

    def value(self, scores: Floats) -> float:
        """The loss of scores ``(num_instances,)``."""
        with torch.no_grad():
            return float(self._loss(torch.as_tensor(scores, dtype=torch.float64)))

    def gradient(self, scores: Floats) -> Floats:
        """Gradient of the loss per instance score, ``(num_instances,)``: negative in bags with label 1, positive in the others.

        Equation, for one bag: ``-(p_j / Y)^r (1 - p_j) / n`` with label 1, the same times ``-Y / (1 - Y)`` with label 0.
        """
        leaf = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(self._loss(leaf), leaf)
        return np.asarray(gradient)

    def log_probabilities(self, scores: Tensor) -> Tensor:
        """``log Y`` of each bag, of scores ``(num_instances,)`` float64."""
        if not self.is_ragged:
            return log_generalized_mean(F.logsigmoid(scores).view(self.is_instance.shape), self.r)
        filled = torch.zeros(self.is_instance.shape, dtype=scores.dtype).masked_scatter(self.is_instance, scores)
        return log_generalized_mean(F.logsigmoid(filled), self.r, self.is_instance.double())

    def best_step(self, scores: Floats, direction: Floats) -> float:
        """The step from 0 to `LONGEST_STEP` along a direction after which the loss is least; 0 where none makes it smaller."""

        def after(step: float) -> float:
            return self.value(scores + step * direction)

        found = minimize_scalar(after, bounds=(0.0, LONGEST_STEP), method="bounded", options={"xatol": 1e-3})
        return float(found.x) if found.fun < after(0.0) else 0.0

    def _loss(self, scores: Tensor) -> Tensor:
        log_probabilities = self.log_probabilities(scores)
        parts = [image_cross_entropy(log_probabilities[group], self.labels[group]) for group in self.groups]
        return torch.stack(parts).mean()
