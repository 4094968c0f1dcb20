"""Scores of a segmentation into several classes, all of them from one confusion matrix, pooled over pixels."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.metric import MetricUsage, reinit__is_reduced, sync_all_reduce
from monai.utils import convert_to_tensor
from torch import Tensor

__all__ = ["CLASS_SCORES", "PooledClassScores", "bach_score", "bach_score_of_confusion", "class_scores", "confusion_matrix"]

CLASS_SCORES = (
    "accuracy",
    "foreground_accuracy",
    "macro_f1",
    "micro_f1",
    "weighted_f1",
    "mean_iou",
    "released_iou",
    "bach_score",
)


def confusion_matrix(prediction: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """How many pixels of each true class were given each class.

    Args:
        prediction: class indices 0 to C - 1, any shape, any integer type.
        target: true class indices, same shape.
        num_classes: C.

    Returns:
        int64 ``(C, C)``: true class down, predicted class across.

    Raises:
        ValueError: if the shapes differ or an index is out of range.

    >>> confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), num_classes=2)
    tensor([[1, 1],
            [0, 1]])
    """
    if prediction.shape != target.shape:
        raise ValueError(f"target must be {tuple(prediction.shape)} like the prediction; got {tuple(target.shape)}")
    prediction, target = prediction.long().flatten(), target.long().flatten()
    for name, values in (("prediction", prediction), ("target", target)):
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < num_classes:
            raise ValueError(
                f"{name} must be class indices 0 to {num_classes - 1}; got {int(values.min())} to {int(values.max())}"
            )
    pairs = torch.bincount(target * num_classes + prediction, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def bach_score(prediction: Tensor, target: Tensor, num_classes: int = 4) -> Tensor:
    """The score of the BACH challenge, which counts confusions by how far apart the classes are.

    ``1 - sum |p - g| / (sum max(g, |g - (C - 1)|) [1 - (1 - [p > 0]) (1 - [g > 0])])`` over all pixels, p predicted and g true:
    pixels that are rightly normal (0) do not count, and each other one is measured against the worst answer that there was.

    Args:
        prediction: class indices 0 to C - 1, any shape.
        target: true class indices, same shape.
        num_classes: C; the challenge has 4: normal, benign, in situ, invasive.

    Returns:
        float64, one number in [0, 1]; 1 where no pixel counts.

    Raises:
        ValueError: as `confusion_matrix`.

    Reference:
        Aresta et al., BACH: grand challenge on breast cancer histology images, Medical Image Analysis 56, 2019; Ciga and
        Martel, equation 6, where the small constant in the denominator avoids 0/0 and gives the 1 of this function.

    >>> bach_score(torch.tensor([0, 1, 3, 2]), torch.tensor([0, 0, 3, 2]))
    tensor(0.8750, dtype=torch.float64)
    """
    return bach_score_of_confusion(confusion_matrix(prediction, target, num_classes))


def bach_score_of_confusion(confusion: Tensor) -> Tensor:
    """Like `bach_score`, from a confusion matrix ``(C, C)``, true class down."""
    num_classes = confusion.shape[0]
    classes = torch.arange(num_classes, dtype=torch.float64, device=confusion.device)
    truth, predicted = classes[:, None], classes[None, :]
    counts = confusion.double()
    worst = torch.maximum(truth, (truth - (num_classes - 1)).abs()).expand(num_classes, num_classes).clone()
    worst[0, 0] = 0
    distance, largest = (counts * (truth - predicted).abs()).sum(), (counts * worst).sum()
    return torch.where(largest > 0, 1 - distance / largest.clamp_min(1e-300), 1.0)


def class_scores(confusion: Tensor) -> dict[str, Tensor]:
    """The paper's scores of pooled pixels.

    Args:
        confusion: counts ``(C, C)``, true class down; class 0 is background or normal.

    Returns:
        float64 in [0, 1] by name, `CLASS_SCORES` and for each class c ``f1_c`` and ``iou_c``. NaN where a ratio is 0/0: of a
        class that neither is there nor was predicted, and the foreground accuracy without foreground. The means over classes
        (macro F1, mean IoU) are over those that are there or were predicted; weighted F1 weighs them by their true pixels. The
        released IoU is the mean over all classes but class 0, of which one that neither is there nor was predicted counts as 1.

    Raises:
        ValueError: if the matrix is not square.

    Reference:
        Ciga and Martel, section 3.2, equations 1 to 5. Micro F1, which the paper names, equals the accuracy (every pixel has one
        class); what its text describes, "weighing the scores per ground truth ratios", is the weighted F1. Both are given.
        The released IoU is that of the released code.
    """
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]:
        raise ValueError(f"the confusion matrix must be (C, C); got {tuple(confusion.shape)}")
    counts = confusion.double()
    right, true, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    f1, iou = 2 * right / (true + predicted), right / (true + predicted - right)
    accuracy = right.sum() / counts.sum()
    scores = {
        "accuracy": accuracy,
        "foreground_accuracy": right[1:].sum() / true[1:].sum(),
        "macro_f1": f1.nanmean(),
        "micro_f1": accuracy,
        "weighted_f1": (f1 * true).nansum() / true.sum(),
        "mean_iou": iou.nanmean(),
        "released_iou": torch.where(counts.sum() > 0, iou[1:].nan_to_num(nan=1.0).mean(), torch.nan),
        "bach_score": bach_score_of_confusion(confusion),
    }
    for index in range(len(counts)):
        scores |= {f"f1_{index}": f1[index], f"iou_{index}": iou[index]}
    return scores


class PooledClassScores(Metric):
    """All scores of `class_scores` of a validation run, from one confusion matrix over every pixel and every rank.

    Attach it under a name that ends in one of `CLASS_SCORES`, such as ``val_pixel_bach_score``: that is the score which MONAI's
    ``key_val_metric`` compares, and all the others are added to ``engine.state.metrics`` with the same beginning.

    Args:
        num_classes: C.
        output_transform: from ``engine.state.output`` to (logits ``(B, C, ...)``, class indices ``(B, ...)``).
        device: where the counts are kept between iterations.
    """

    def __init__(
        self,
        num_classes: int,
        output_transform: Callable = lambda output: output,
        device: str | torch.device = "cpu",
    ) -> None:
        self.num_classes = num_classes
        super().__init__(output_transform=output_transform, device=device)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all counts."""
        self._counts = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64, device=self._device)

    @reinit__is_reduced
    def update(self, output: Sequence[Any]) -> None:
        """Count one batch: logits ``(B, C, ...)`` and class indices ``(B, ...)``.

        Raises:
            ValueError: if the shapes do not fit or an index is out of range.
        """
        logits, target = (convert_to_tensor(values, track_meta=False) for values in output)
        if logits.ndim < 2 or logits.shape[1] != self.num_classes:
            raise ValueError(f"logits must be (B, {self.num_classes}, ...); got {tuple(logits.shape)}")
        self._counts += confusion_matrix(logits.argmax(1), target.to(logits.device), self.num_classes).to(self._device)

    @sync_all_reduce("_counts")
    def compute(self) -> dict[str, float]:
        """Compute all scores by name, over all ranks.

        Raises:
            NotComputableError: if nothing was counted.
        """
        if not self._counts.any():
            raise NotComputableError("PooledClassScores needs at least one update before compute; got none")
        return {name: score.item() for name, score in class_scores(self._counts).items()}

    def attach(self, engine: Engine, name: str, usage: str | MetricUsage = "epoch_wise") -> None:
        """Attach under ``<beginning>_<score>``.

        Raises:
            ValueError: if the name does not end in a score, or has no beginning.
        """
        if _beginning(name) is None:
            raise ValueError(f"name must be <prefix>_<score> with a score of {', '.join(CLASS_SCORES)}; got {name!r}")
        super().attach(engine, name, usage)

    def completed(self, engine: Engine, name: str) -> None:
        """Write every score in addition to the one called `name`."""
        for score, value in self.compute().items():
            engine.state.metrics[f"{_beginning(name)}_{score}"] = value


def _beginning(name: str) -> str | None:
    # The longest: val_foreground_accuracy is no accuracy, and foreground_accuracy has no beginning.
    score = max((score for score in CLASS_SCORES if f"_{name}".endswith(f"_{score}")), key=len, default=None)
    return None if score is None else name.removesuffix(score).removesuffix("_") or None
