"""The fixed weights with which a trained network fuses its side outputs, by cross-validation (Jia et al., section III.B.3)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..data.image_dataset import RegionDataset
from ..engines.distributed import over_dataset
from ..metrics.region import region_f_measure

THRESHOLD = 0.5


def weight_grid(num_sides: int, step: float = 0.05) -> Tensor:
    """All weights of side outputs that are multiples of a step and have the sum 1.

    Args:
        num_sides: T, at least 2.
        step: a unit fraction such as 0.05.

    Returns:
        ``(W, T)``, float32, in ascending order.

    Raises:
        ValueError: for fewer side outputs, or a step that does not divide 1.

    >>> weight_grid(2, 0.5)
    tensor([[0.0000, 1.0000],
            [0.5000, 0.5000],
            [1.0000, 0.0000]])
    >>> len(weight_grid(3))
    231
    """
    if num_sides < 2 or not 0 < step <= 1 or abs(round(1 / step) - 1 / step) > 1e-6:
        raise ValueError(f"need at least 2 side outputs and a step that divides 1; got {num_sides} and {step}")
    whole = round(1 / step)
    heads = itertools.product(range(whole + 1), repeat=num_sides - 1)
    return torch.tensor([[*head, whole - sum(head)] for head in heads if sum(head) <= whole]) / whole


def fused_region_f(side_probabilities: Tensor, mask: Tensor, label: int, weights: Tensor, batch_size: int = 32) -> Tensor:
    """Region F of one image with each of many fusions of its side outputs.

    Args:
        side_probabilities: ``(T, H, W)``.
        mask: true tumour 0 or 1, ``(H, W)``.
        label: 0 or 1 of the image.
        weights: ``(W, T)``, each with sum 1.
        batch_size: fusions computed at once.

    Returns:
        float64 ``(W,)``, see `shared.metrics.region_f_measure`; a probability of at least 0.5 is tumour.
    """
    found = []
    for part in weights.split(batch_size):
        fused = torch.einsum("wt,thx->whx", part, side_probabilities)
        found.append(region_f_measure(fused >= THRESHOLD, mask.expand_as(fused), torch.full((len(part),), label)))
    return torch.cat(found)


@torch.inference_mode()
def fusion_scores(
    dataset: RegionDataset,
    network: nn.Module,
    weights: Tensor,
    device: torch.device | str = "cpu",
    batch_size: int = 4,
    num_workers: int = 0,
) -> Tensor:
    """Mean region F over the images of a data set with each of many fusions.

    Args:
        dataset: with ``pixel_labels: mask``.
        network: with ``side_probabilities(images)``, ``(B, T, H, W)``, such as `shared.networks.SideOutputVGG`.
        weights: ``(W, T)``, see `weight_grid`.
        device: to compute on.
        batch_size: images per forward pass.
        num_workers: processes that read.

    Returns:
        float64 ``(W,)``.

    Raises:
        ValueError: if the network has another number of side outputs.
    """
    trained: Any = network.to(device).eval()
    if len(trained.side_outputs) != weights.shape[1]:
        raise ValueError(f"the network has {len(trained.side_outputs)} side outputs, the weights are of {weights.shape[1]}")

    def of_batch(batch: Mapping[str, Any]) -> list[Tensor]:
        sides = trained.side_probabilities(batch["image"].to(device)).float().cpu()
        labels = [int((dataset.data[index]["label"] or 0) > 0) for index in batch["index"].tolist()]
        masks = batch["mask"][:, 0]
        return [fused_region_f(*of_image, weights) for of_image in zip(sides, masks, labels, strict=True)]

    return torch.stack(over_dataset(dataset, of_batch, batch_size, num_workers, "fusions")).mean(0)
