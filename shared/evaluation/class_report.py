"""The report on a segmentation into several classes, all of it from confusion matrices, true class down."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..metrics.classes import CLASS_SCORES, class_scores
from .report import number


def pooled_class_scores(confusion: Tensor) -> dict[str, float | None]:
    """`CLASS_SCORES` of pooled pixels, counts ``(C, C)``; None where there is none."""
    scores = class_scores(confusion)
    return {name: number(scores[name]) for name in CLASS_SCORES}


def mean_class_scores(of_images: Tensor, class_names: Sequence[str]) -> dict[str, float | None]:
    """Means over images or slides of `CLASS_SCORES` and of each class's F1, as ``f1 <class>``.

    A score that an image does not have, such as the foreground accuracy of one without foreground, is left out of its mean.

    Args:
        of_images: confusion matrices ``(num_images, C, C)``, true class down; one that counts no pixel is left out.
        class_names: C names.
    """
    scores = [class_scores(confusion) for confusion in of_images if confusion.sum() > 0]
    names = {name: name for name in CLASS_SCORES} | {f"f1_{index}": f"f1 {name}" for index, name in enumerate(class_names)}
    return {
        shown: number(torch.stack([one[name] for one in scores]).nanmean()) if scores else None for name, shown in names.items()
    }


def compared_class_scores(
    method: str, confusion: Tensor, class_names: Sequence[str], constant: Sequence[int] = (0,)
) -> dict[str, dict[str, float | None]]:
    """`pooled_class_scores` of a method, and of the answers "everything is <class>" on the same pixels."""
    rules = {f"Everything is {class_names[index]}": pooled_class_scores(everything_is(index, confusion)) for index in constant}
    return {method: pooled_class_scores(confusion)} | rules


def everything_is(index: int, confusion: Tensor) -> Tensor:
    """The confusion matrix ``(C, C)`` of the answer `index` for every pixel that is counted."""
    everything = torch.zeros_like(confusion)
    everything[:, index] = confusion.sum(1)
    return everything


def scores_of_class(of_images: Tensor, index: int) -> dict[str, float | None]:
    """Scores of one class: of pooled pixels, and the mean Dice of the images that hold it, the mean share wrongly given to it
    in those that do not. `of_images` are confusion matrices ``(num_images, C, C)``; one that counts no pixel is left out."""
    counts = of_images[of_images.sum((1, 2)) > 0].double()
    pooled = counts.sum(0)
    scores = class_scores(pooled)
    right, true, predicted = counts[:, index, index], counts[:, index].sum(1), counts[:, :, index].sum(1)
    dice = 2 * right / (true + predicted)
    return {
        "f1": number(scores[f"f1_{index}"]),
        "iou": number(scores[f"iou_{index}"]),
        "precision": number(pooled[index, index] / pooled[:, index].sum()),
        "recall": number(pooled[index, index] / pooled[index].sum()),
        "dice_positive": number(dice[true > 0].mean()),
        "false_positive_share": number((predicted / counts.sum((1, 2)))[true == 0].mean()),
        "true_share": number(pooled[index].sum() / pooled.sum()),
    }


def confusion_row(confusion: Tensor, class_names: Sequence[str]) -> dict[str, float]:
    """The row of one image: accuracy, macro F1 and BACH score, each class's true and predicted share; NaN if undefined."""
    scores = class_scores(confusion)
    shares = confusion.double() / confusion.sum()
    row = {name: round(float(scores[name]), 6) for name in ("accuracy", "macro_f1", "bach_score")}
    for index, name in enumerate(class_names):
        row[f"true_share_{name}"] = round(float(shares[index].sum()), 6)
        row[f"predicted_share_{name}"] = round(float(shares[:, index].sum()), 6)
    return row
