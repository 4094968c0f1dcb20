"""How well a validation run's scores rank positives above negatives, whatever the threshold: of images, instances and pixels."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce
from torch import Tensor

from .ranking import roc_auc, roc_auc_of_histograms

__all__ = ["PixelRanking", "ScoreRanking"]

_NUM_LEVELS = 4096
_LARGEST_LOGIT = 14.0


class ScoreRanking(Metric):
    """The `roc_auc` of all scores of a validation run, over all ranks: NaN without a positive or without a negative.

    It keeps every score, as for images and instances there is room; pixels have `PixelRanking`. Where a network answers NaN, so
    does the metric.

    Args:
        output_transform: from ``engine.state.output`` to (scores, targets 0 or 1), of as many values.

    >>> metric = ScoreRanking()
    >>> metric.update((torch.tensor([0.9, 0.4, 0.6]), torch.tensor([1, 0, 0])))
    >>> metric.compute()
    1.0
    """

    def __init__(self, output_transform: Callable = lambda output: output) -> None:
        super().__init__(output_transform=output_transform)

    def reset(self) -> None:
        """Forget all scores."""
        self._scored: list[tuple[Tensor, Tensor]] = []

    def update(self, output: Sequence[Any]) -> None:
        """Take in a batch."""
        scores, targets = output
        self._scored.append((scores.detach().float().cpu().flatten(), targets.cpu().flatten()))

    def compute(self) -> float:
        """The AUC over all ranks.

        Raises:
            NotComputableError: if there was no score.
        """
        scored = self._scored
        if dist.is_available() and dist.is_initialized():
            gathered: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(gathered, scored)
            scored = [batch for rank in gathered for batch in rank]
        if not scored:
            raise NotComputableError("ScoreRanking needs at least one score before compute; got none")
        scores, targets = (torch.cat(values) for values in zip(*scored, strict=True))
        return math.nan if scores.isnan().any() else float(roc_auc(scores, targets))


class PixelRanking(Metric):
    """Like `ScoreRanking`, for any number of probabilities, which are counted in 4096 steps of their logits from -14 to 14; NaN
    if any of them is.

    Args:
        output_transform: from ``engine.state.output`` to (probabilities, targets 0 or 1), of as many values.
        device: where the counts are kept between iterations.
    """

    def __init__(self, output_transform: Callable = lambda output: output, device: str | torch.device = "cpu") -> None:
        super().__init__(output_transform=output_transform, device=device)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all counts."""
        self._counts = torch.zeros(2, _NUM_LEVELS, dtype=torch.int64, device=self._device)
        self._unknown = torch.zeros(1, dtype=torch.int64, device=self._device)

    @reinit__is_reduced
    def update(self, output: Sequence[Any]) -> None:
        """Count one batch."""
        probabilities, targets = output
        logits = probabilities.detach().float().flatten().logit()
        self._unknown += logits.isnan().sum().to(self._device)
        logits = logits.nan_to_num(nan=0.0)
        steps = (logits.clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT) / _LARGEST_LOGIT + 1) / 2 * (_NUM_LEVELS - 1)
        cells = steps.round().long() + _NUM_LEVELS * targets.to(steps.device).flatten().long()
        counts = torch.bincount(cells, minlength=2 * _NUM_LEVELS)
        self._counts += counts.reshape(2, _NUM_LEVELS).to(self._device)

    @sync_all_reduce("_counts", "_unknown")
    def compute(self) -> float:
        """The AUC over all ranks.

        Raises:
            NotComputableError: if nothing was counted.
        """
        if not self._counts.any():
            raise NotComputableError("PixelRanking needs at least one update before compute; got none")
        return math.nan if self._unknown else float(roc_auc_of_histograms(self._counts))
