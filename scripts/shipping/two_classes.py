"""An evaluation of two classes in the words of one of tumour: counts of each image, and scores of the second class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from shared.evaluation.report import COUNTS


def as_tumour(metrics: Mapping[str, Any], images: pd.DataFrame) -> tuple[dict[str, Any], pd.DataFrame]:
    """Scores and rows of a `shared.evaluation.ClassEvaluation` of two classes and images of one size.

    Args:
        metrics: with ``class_names``, ``confusion``, ``classes`` and ``image_classes``.
        images: a row per image, with its accuracy and its true and predicted share of the second class.

    Returns:
        ``pixels`` and ``images`` of the method in addition to what else `metrics` has, and the rows with tp, fp, fn and tn.

    Raises:
        ValueError: for more classes, and if the images' counts do not add up to the confusion matrix.
    """
    names, confusion = metrics["class_names"], np.array(metrics["confusion"])
    if len(names) != 2:
        raise ValueError(
            f"a head of {len(names)} classes ({', '.join(names)}) has no scores of tumour: only heads of two classes are shipped"
        )
    num_pixels = int(confusion.sum()) // len(images)
    accuracy, true, predicted = (images[name] for name in ("accuracy", f"true_share_{names[1]}", f"predicted_share_{names[1]}"))
    # Of an image's pixels tp + tn are right, and tn = 1 - true - predicted + tp.
    tp = (accuracy - 1 + true + predicted) / 2
    shares = pd.DataFrame({"tp": tp, "fp": predicted - tp, "fn": true - tp, "tn": accuracy - tp})
    counts = (shares * num_pixels).round().astype(int)
    if counts[list(COUNTS)].sum().tolist() != [confusion[1, 1], confusion[0, 1], confusion[1, 0], confusion[0, 0]]:
        raise ValueError("images.csv and the confusion matrix in metrics.json do not agree: the test images have several sizes")
    method = next(iter(metrics["image_classes"]))
    scores = {"pixels": {method: metrics["classes"][names[1]]}, "images": {method: metrics["image_classes"][method]}}
    scores["pixels"]["Everything is tumour"] = metrics["classes"].get(f"everything is {names[1]}", {})
    return {**metrics, **scores}, images.assign(**counts)
