"""Mean and deviation of features over the training data: heads standardise what they see by them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

# Channels that are always the same would otherwise be divided by nothing.
SMALLEST_STD = 1e-3


def feature_statistics(dataset: Any) -> dict[str, Tensor]:
    """Mean and standard deviation of every channel over a data set's items of the first epoch.

    Args:
        dataset: items with features as ``image (C, h, w)`` or as ``tiles (n, C, h, w)``.

    Returns:
        ``mean`` and ``std``, float32 ``(C,)`` each; no deviation is below 0.001.
    """
    total = torch.zeros(3, 1, dtype=torch.float64)
    for index in tqdm(range(len(dataset)), desc="feature statistics", unit="item", leave=False, disable=None):
        item = dataset[index]
        features = item["tiles"].transpose(0, 1) if "tiles" in item else item["image"]
        values = features.flatten(1).double()
        total = total + torch.stack([values.sum(1), values.square().sum(1), torch.full((len(values),), float(values.shape[1]))])
    mean = total[0] / total[2]
    deviation = (total[1] / total[2] - mean.square()).clamp(min=0).sqrt()
    return {"mean": mean.float(), "std": deviation.clamp(min=SMALLEST_STD).float()}
