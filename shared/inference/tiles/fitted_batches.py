"""Batches of tiles that a device's memory cannot take whole."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

TilePass = Callable[[Tensor, tuple[int, int]], Tensor]


class FittedBatches:
    """Pass tiles through a network in as few passes as the device's memory allows: after it was too small, in halves.

    Args:
        network: tiles ``(B, ...)`` and the shape of an answer -> answers ``(B, ...)``.
        plain: the same for batches of any size; the parts of a batch go through it.
    """

    def __init__(self, network: TilePass, plain: TilePass) -> None:
        self.network, self.plain = network, plain
        self._most_tiles: int | None = None

    def __call__(self, tiles: Tensor, shape: tuple[int, int]) -> Tensor:
        """The output of `network` for a batch.

        Raises:
            torch.OutOfMemoryError: if the memory does not take a single tile.
        """
        while True:
            num_tiles = len(tiles) if self._most_tiles is None else min(len(tiles), self._most_tiles)
            try:
                return self._pass(tiles, shape)
            except torch.OutOfMemoryError:
                if num_tiles == 1:
                    raise
            # Not in the handler, whose error holds the tensors of the pass that failed.
            self._most_tiles = num_tiles // 2
            if tiles.is_cuda:
                torch.cuda.empty_cache()
            logger.warning(
                "%d tiles at once do not fit into the memory of %s: continuing with %d. Set batch_size to start with fewer",
                *(num_tiles, tiles.device, self._most_tiles),
            )

    def _pass(self, tiles: Tensor, shape: tuple[int, int]) -> Tensor:
        if self._most_tiles is None:
            return self.network(tiles, shape)
        return torch.cat([self.plain(part, shape) for part in tiles.split(self._most_tiles)])
