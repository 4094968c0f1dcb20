"""How well scores rank positives above negatives: area under the ROC curve and best threshold, of values or pooled histograms."""

import torch
from torch import Tensor

__all__ = ["counts_at", "roc_auc", "roc_auc_of_histograms", "score_histograms", "youden_threshold_of_histograms"]

NUM_SCORES = 256


def roc_auc(scores: Tensor, labels: Tensor) -> Tensor:
    """Area under the ROC curve: the chance that a positive scores higher than a negative, equal scores counting half.

    Args:
        scores: probabilities or logits, ``(n,)``, of any number type; infinities are in order.
        labels: 0 or 1, ``(n,)``, bool, integer or float.

    Returns:
        float64 scalar in [0, 1]; NaN without a positive or without a negative.

    Raises:
        ValueError: if the shapes are not both ``(n,)``, a score is NaN or a label neither 0 nor 1.

    Reference:
        Hanley and McNeil, Radiology 1982: the area is the Mann-Whitney statistic over midranks.

    >>> roc_auc(torch.tensor([0.9, 0.5, 0.5, 0.1]), torch.tensor([1, 1, 0, 0])).item()
    0.875
    """
    _, histograms = _distinct_scores(scores, labels)
    return roc_auc_of_histograms(histograms)


def score_histograms(scores: Tensor, targets: Tensor) -> Tensor:
    """How often each score occurs among the negatives and among the positives.

    The sum over slides pools them in constant memory, however many pixels there are.

    Args:
        scores: uint8, any shape.
        targets: 0 or 1, same shape, bool, integer or float.

    Returns:
        int64 ``(2, 256)``: counts of each score of the negatives, then of the positives.

    Raises:
        ValueError: if the scores are not uint8, the shapes differ or a target is neither 0 nor 1.

    >>> score_histograms(torch.tensor([0, 2, 2, 2], dtype=torch.uint8), torch.tensor([0, 0, 1, 1]))[:, :4]
    tensor([[1, 0, 1, 0],
            [0, 0, 2, 0]])
    """
    if scores.dtype != torch.uint8:
        raise ValueError(f"scores must be uint8; got {scores.dtype}")
    if scores.shape != targets.shape:
        raise ValueError(f"targets must be {tuple(scores.shape)} like the scores; got {tuple(targets.shape)}")
    _check_binary(targets, "targets")
    # int16 holds both the score and the class, and is a quarter of int64's memory.
    cells = targets.flatten().to(torch.int16).mul_(NUM_SCORES).add_(scores.flatten())
    return torch.bincount(cells, minlength=2 * NUM_SCORES).reshape(2, NUM_SCORES)


def roc_auc_of_histograms(histograms: Tensor) -> Tensor:
    """`roc_auc` of the values counted in histograms, exact for these quantised scores.

    Args:
        histograms: counts of each score, lowest first, of the negatives and the positives, ``(2, num_scores)``, such as a sum
            of `score_histograms`.

    Returns:
        float64 scalar in [0, 1]; NaN without a positive or without a negative.

    Raises:
        ValueError: if the shape is another.

    >>> roc_auc_of_histograms(torch.tensor([[1, 1, 0], [0, 1, 1]])).item()
    0.875
    """
    _check_histograms(histograms)
    negatives, positives = histograms
    num_below = negatives.cumsum(0) - negatives
    # Doubles from here on: the number of pairs of 10^10 pixels overflows int64.
    num_won = (positives.double() * (num_below.double() + negatives.double() / 2)).sum()
    return num_won / (positives.sum().double() * negatives.sum().double())


def counts_at(histograms: Tensor, threshold: int) -> Tensor:
    """Counts of the decision ``score >= threshold``, for `shared.metrics.binary_scores`.

    Args:
        histograms: counts of each score of the negatives and the positives, ``(2, num_scores)``.
        threshold: in 0 ... num_scores; 0 makes everything positive, num_scores nothing.

    Returns:
        int64 ``(4,)``: tp, fp, fn, tn.

    Raises:
        ValueError: if the shape is another or the threshold is out of range.

    >>> counts_at(torch.tensor([[5, 1, 0], [0, 2, 3]]), threshold=1)
    tensor([5, 1, 0, 5])
    """
    _check_histograms(histograms)
    if not 0 <= threshold <= histograms.shape[1]:
        raise ValueError(f"threshold must be in 0 ... {histograms.shape[1]}; got {threshold}")
    tn, fn = histograms[:, :threshold].sum(dim=1).long()
    fp, tp = histograms[:, threshold:].sum(dim=1).long()
    return torch.stack([tp, fp, fn, tn])


def youden_threshold_of_histograms(histograms: Tensor) -> int:
    """The level t of counted scores for which ``score >= t`` has the largest sensitivity + specificity.

    Of equally good ones the highest is taken. "Nothing positive" is no candidate: "everything positive" is as good.

    Args:
        histograms: counts of each score of the negatives and the positives, ``(2, num_scores)``.

    Returns:
        a level in 0 ... num_scores - 1; in the middle of a gap between two scores, where there is one.

    Raises:
        ValueError: if the shape is another or a class missing.

    Reference:
        Youden, Cancer 1950: the index J = sensitivity + specificity - 1.

    >>> youden_threshold_of_histograms(torch.tensor([[3, 2, 0, 0, 0, 0], [0, 0, 0, 0, 0, 4]]))
    3
    """
    _check_histograms(histograms)
    negatives, positives = histograms.long()
    num_negatives, num_positives = int(negatives.sum()), int(positives.sum())
    if num_negatives == 0 or num_positives == 0:
        raise ValueError(f"need both classes; got {num_positives} positives and {num_negatives} negatives")
    tp, fp = (counts.flip(0).cumsum(0).flip(0) for counts in (positives, negatives))
    # In Python's own integers: two slides' pixels multiplied may pass 64 bits.
    youden = [int(t) * num_negatives - int(f) * num_positives for t, f in zip(tp, fp, strict=True)]
    # Above the highest score nothing is positive.
    youden = youden[: int((negatives + positives).nonzero().max()) + 1]
    highest = max(level for level, value in enumerate(youden) if value == max(youden))
    lowest = highest
    while lowest > 0 and int(negatives[lowest - 1]) == 0 and int(positives[lowest - 1]) == 0:
        lowest -= 1
    return (lowest + highest) // 2


def _distinct_scores(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct scores, ascending ``(k,)``, and how often each occurs among negatives and positives, ``(2, k)``."""
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(f"scores and labels must both be (n,); got {tuple(scores.shape)}, {tuple(labels.shape)}")
    if scores.isnan().any():
        raise ValueError(f"scores must be numbers; got NaN {int(scores.isnan().sum())} times")
    _check_binary(labels, "labels")
    distinct, ranks = scores.detach().unique(return_inverse=True)
    counts = torch.bincount(ranks + labels.long() * len(distinct), minlength=2 * len(distinct))
    return distinct, counts.reshape(2, len(distinct))


def _check_binary(values: Tensor, name: str) -> None:
    wrong = None if values.dtype == torch.bool else (values != 0) & (values != 1)
    if wrong is not None and wrong.any():
        raise ValueError(f"{name} must be 0 or 1; got {values[wrong][0].item()}")


def _check_histograms(histograms: Tensor) -> None:
    if histograms.ndim != 2 or len(histograms) != 2:
        raise ValueError(f"histograms must be (2, num_scores): negatives, positives; got {tuple(histograms.shape)}")
