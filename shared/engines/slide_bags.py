"""Bags of a slide's tiles on their way through a network: from the loader's batch to tile logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor


class SlideBags:
    """The ``prepare_batch`` of bags: tiles as the network wants them, augmented on the device, and the slides' labels.

    Args:
        augmentation: of tiles ``(N, 3, H, W)``, each on its own, such as `shared.data.TileAugmentation`; None for none.
    """

    def __init__(self, augmentation: Callable[[Tensor], Tensor] | None = None) -> None:
        self.augmentation = augmentation

    def __call__(self, batch: dict[str, Any], device: Any = None, non_blocking: bool = False, **_: Any) -> tuple[Tensor, Tensor]:
        """A batch of `shared.data.SlideBagDataset` to tiles ``(B, n, 3, H, W)``, channels last, and labels float32 ``(B,)``."""
        # They travel as bytes; a permuted view of (N, H, W, 3) is channels last already.
        tiles = batch["tiles"].to(device, non_blocking=non_blocking)
        flat = tiles.flatten(0, 1).permute(0, 3, 1, 2)
        if self.augmentation is not None:
            flat = self.augmentation(flat)
        return flat.unflatten(0, tiles.shape[:2]), batch["label"].to(device, dtype=torch.float32, non_blocking=non_blocking)


class BagInferer(Inferer):
    """Logits of every tile of every bag: ``(B, n, 3, H, W)`` to ``(B, n)``, of a dense network to ``(B, n * h * w)``.

    The tiles of all bags go through the network together, so that batch normalisation in train mode takes its statistics from
    them: of one slide in the paper, of several where a step holds several.

    Args:
        per_tile: of a dense network, one logit a tile, the mean of its map: ``(B, n)``.
        chunk_size: tiles a forward pass, for scoring with little memory; None for all at once, which training needs.
    """

    def __init__(self, per_tile: bool = False, chunk_size: int | None = None) -> None:
        self.per_tile, self.chunk_size = per_tile, chunk_size

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        num_bags, num_tiles = inputs.shape[:2]
        flat = inputs.flatten(0, 1)
        logits = torch.cat([network(chunk) for chunk in flat.split(self.chunk_size or len(flat))]).float()
        if self.per_tile:
            return logits.flatten(1).mean(dim=1).reshape(num_bags, num_tiles)
        return logits.reshape(num_bags, -1)
