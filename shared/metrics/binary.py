"""Scores of a binary decision, pooled over all instances or pixels as in CAMEL's tables."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.metric import MetricUsage, reinit__is_reduced, sync_all_reduce
from monai.utils import convert_to_tensor
from torch import Tensor

__all__ = ["SCORES", "PooledBinaryScores", "binary_counts", "binary_scores"]

SCORES = ("sensitivity", "specificity", "accuracy", "precision", "f1", "iou")
_ALL_SCORES = (*SCORES, "balanced_accuracy")


def binary_counts(prediction: Tensor, target: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """True positives, false positives, false negatives and true negatives.

    Args:
        prediction: decisions 0 or 1, any shape, bool, integer or float.
        target: truth 0 or 1, same shape.
        dim: dimensions to count over; all of them by default.

    Returns:
        int64, ``(..., 4)``: tp, fp, fn, tn for each index of the dimensions that are left.

    Raises:
        ValueError: if the shapes differ or a value is neither 0 nor 1.

    >>> binary_counts(torch.tensor([1, 1, 0, 0, 0]), torch.tensor([1, 0, 1, 0, 0]))
    tensor([1, 1, 1, 2])
    """
    if prediction.shape != target.shape:
        raise ValueError(f"target must be {tuple(prediction.shape)} like the prediction; got {tuple(target.shape)}")
    is_predicted, is_true = _to_bool(prediction, "prediction"), _to_bool(target, "target")
    cells = (is_predicted & is_true, is_predicted & ~is_true, ~is_predicted & is_true, ~is_predicted & ~is_true)
    dims = tuple(range(prediction.ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    # sum() over no dimension at all would be the sum over every one.
    counts = [cell.sum(dim=dims) if dims else cell.long() for cell in cells]
    return torch.stack(counts, dim=-1)


def _to_bool(values: Tensor, name: str) -> Tensor:
    if values.dtype == torch.bool:
        return values
    wrong = values[(values != 0) & (values != 1)]
    if len(wrong):
        raise ValueError(f"{name} must be 0 or 1; got {wrong[0].item()}")
    return values != 0


def binary_scores(counts: Tensor) -> dict[str, Tensor]:
    """Sensitivity, specificity, accuracy, precision, F1 and IoU of the positive class.

    Args:
        counts: tp, fp, fn, tn, ``(..., 4)``, of any number type.

    Returns:
        float64 ``(...,)`` in [0, 1] for each name in `SCORES`; NaN where a ratio is 0/0, such as the sensitivity
        without any positive. F1 and IoU, which ignore true negatives, are NaN if nothing is positive or predicted so.

    Raises:
        ValueError: if the last dimension is not 4.

    Reference:
        Xu et al., CAMEL, ICCV 2019, tables 1 to 4. IoU = F1 / (2 - F1) holds for pooled counts.

    >>> {name: round(score.item(), 3) for name, score in binary_scores(torch.tensor([1, 1, 2, 4])).items()}
    {'sensitivity': 0.333, 'specificity': 0.8, 'accuracy': 0.625, 'precision': 0.5, 'f1': 0.4, 'iou': 0.25}
    """
    if counts.ndim == 0 or counts.shape[-1] != 4:
        raise ValueError(f"counts must be (..., 4): tp, fp, fn, tn; got {tuple(counts.shape)}")
    tp, fp, fn, tn = counts.double().unbind(dim=-1)
    return {
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "accuracy": (tp + tn) / (tp + fp + fn + tn),
        "precision": tp / (tp + fp),
        "f1": 2 * tp / (2 * tp + fp + fn),
        "iou": tp / (tp + fp + fn),
    }


class PooledBinaryScores(Metric):
    """All `SCORES` of a validation run, from counts pooled over every instance or pixel and every rank.

    Attach it under a name that ends in a score, such as ``val_instance_accuracy``: that is the score which MONAI's
    ``key_val_metric`` compares, and all the others are added to ``engine.state.metrics`` with the same beginning
    (``val_instance_sensitivity``, ...), and ``balanced_accuracy``, the mean of sensitivity and specificity, which a class that
    is always said cannot lift above 0.5. It keeps four numbers, however many pixels there are.

    A NaN score (see `binary_scores`) as key metric of the first epoch would never be surpassed: where a validation set
    may lack tumour, choose the accuracy.

    Args:
        threshold: a probability of at least this much is a positive decision, as in MONAI's ``AsDiscrete``.
            For logits, 0 is the threshold that equals a probability of 0.5.
        output_transform: from ``engine.state.output`` to (probabilities, targets), as tensors or lists of tensors,
            such as ``monai.handlers.from_engine(["pred", "label"])``.
        device: where the counts are kept between iterations.

    >>> metric = PooledBinaryScores()
    >>> metric.update((torch.tensor([0.9, 0.5, 0.1]), torch.tensor([1, 0, 0])))
    >>> round(metric.compute()["accuracy"], 3)
    0.667
    """

    def __init__(
        self,
        threshold: float = 0.5,
        output_transform: Callable = lambda output: output,
        device: str | torch.device = "cpu",
    ) -> None:
        self.threshold = threshold
        super().__init__(output_transform=output_transform, device=device)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all counts."""
        self._counts = torch.zeros(4, dtype=torch.int64, device=self._device)

    @reinit__is_reduced
    def update(self, output: Sequence[Any]) -> None:
        """Count one batch.

        Args:
            output: probabilities and targets 0 or 1. Dimensions of size 1 may differ, so that the logits ``(B, 1)``
                of a classifier meet labels ``(B,)``.

        Raises:
            ValueError: if the shapes do not fit or a target is neither 0 nor 1.
        """
        probabilities, target = (convert_to_tensor(values, track_meta=False) for values in output)
        if probabilities.squeeze().shape != target.squeeze().shape:
            raise ValueError(
                "probabilities and target must have the same shape, except for dimensions of size 1; "
                f"got {tuple(probabilities.shape)}, {tuple(target.shape)}"
            )
        target = target.to(probabilities.device).reshape(probabilities.shape)
        self._counts += binary_counts(probabilities >= self.threshold, target).to(self._device)

    @sync_all_reduce("_counts")
    def compute(self) -> dict[str, float]:
        """All `SCORES` and the balanced accuracy by name, over all ranks.

        Raises:
            NotComputableError: if nothing was counted.
        """
        if not self._counts.any():
            raise NotComputableError("PooledBinaryScores needs at least one update before compute; got none")
        scores = {name: score.item() for name, score in binary_scores(self._counts).items()}
        return scores | {"balanced_accuracy": (scores["sensitivity"] + scores["specificity"]) / 2}

    def attach(self, engine: Engine, name: str, usage: str | MetricUsage = "epoch_wise") -> None:
        """Attach under ``<beginning>_<score>``.

        Raises:
            ValueError: if the name does not end in a score, or has no beginning.
        """
        if _beginning(name) is None:
            raise ValueError(f"name must be <prefix>_<score> with a score of {', '.join(_ALL_SCORES)}; got {name!r}")
        super().attach(engine, name, usage)

    def completed(self, engine: Engine, name: str) -> None:
        """Write every score in addition to the one called `name`."""
        for score, value in self.compute().items():
            engine.state.metrics[f"{_beginning(name)}_{score}"] = value


def _beginning(name: str) -> str | None:
    # The longest: val_balanced_accuracy is no accuracy, and balanced_accuracy has no beginning.
    score = max((score for score in _ALL_SCORES if f"_{name}".endswith(f"_{score}")), key=len, default=None)
    return None if score is None else name.removesuffix(score).removesuffix("_") or None
