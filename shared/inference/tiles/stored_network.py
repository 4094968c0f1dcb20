"""A network of an encoder and a head, given the encoder's features in place of images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...networks.probabilities import to_map_pixels
from .map_grid import MapGrid
from .stored_tiles import MISSING, STORED
from .tile_network import TileNetwork


class StoredTileNetwork:
    """Probabilities of tiles of stored features, see `StoredCells.read_batches`.

    Cells without a feature are glass: they get 0, and take no part in the interpolation of their neighbours. Where a cell and its
    eight neighbours are stored, the map is what `TileNetwork` makes of the pixels. A head that sees neighbours is given the mean
    of its training's features in place of a missing one, so next to missing cells the map is a little different.

    Args:
        tiles: the network, which takes features as well as images.
        stride_px: of its encoder.
        grid: the slide's tiles.
    """

    def __init__(self, tiles: TileNetwork, stride_px: int, grid: MapGrid) -> None:
        self.tiles, self.grid = tiles, grid
        height, width = (-(-side // stride_px) * stride_px for side in grid.tile_shape)
        self.padded_shape = (height, width)
        # Several networks of one encoder may have learned from different slides; without a mean of its own one gets 0.
        means = [part.mean for part in _with_encoder(tiles.network) if isinstance(getattr(part, "mean", None), Tensor)]
        self.mean = torch.stack(means).mean(dim=0) if means else torch.zeros(())

    def __call__(self, cells: Tensor, map_shape: tuple[int, int]) -> Tensor:
        """Cells float16 ``(B, h, w, dim + 1)`` to float32 ``(B, C, *map_shape)``.

        Raises:
            ValueError: for a network with one answer per tile, where only a part of a tile is stored.
        """
        channels_first = cells.permute(0, 3, 1, 2).float()
        state = channels_first[:, -1:]
        is_stored = (state == STORED).float()
        features = torch.where(state == MISSING, self.mean.to(cells.device), channels_first[:, :-1])
        probability = self.tiles.probability(features)
        if probability.shape[2:] == (1, 1):
            _check_whole(is_stored)
            probability = probability.expand(-1, -1, *is_stored.shape[2:])
        # A head of several strides answers more finely than the cells lie.
        is_known = functional.interpolate(is_stored, size=probability.shape[2:], mode="nearest-exact")
        weight = self._on_map(is_known, map_shape)
        mean = self._on_map(probability * is_known, map_shape) / weight.clamp(min=1e-6)
        return mean * self._touched(is_stored, map_shape)

    def _on_map(self, values: Tensor, map_shape: tuple[int, int]) -> Tensor:
        """Values ``(B, C, h, w)`` of a tile brought to its map pixels, as `TileNetwork` does it."""
        height, width = self.grid.tile_shape
        if self.padded_shape != (height, width):
            values = to_map_pixels(values, self.padded_shape)[:, :, :height, :width]
        return to_map_pixels(values, map_shape)

    def _touched(self, is_stored: Tensor, map_shape: tuple[int, int]) -> Tensor:
        """1 in map pixels that lie on stored cells."""
        height, width = self.grid.tile_shape
        on_pixels = functional.interpolate(is_stored, size=self.padded_shape, mode="nearest-exact")[:, :, :height, :width]
        return (to_map_pixels(on_pixels, map_shape) > 0).to(is_stored.dtype)


def _check_whole(is_stored: Tensor) -> None:
    if not torch.equal(is_stored.amax(dim=(2, 3)), is_stored.amin(dim=(2, 3))):
        raise ValueError(
            "a network that gives one output per tile cannot make a map from features, which exist only for the tissue in a "
            "tile: use its form with one output per cell, or map from pixels"
        )


def head_kernel_size(network: nn.Module) -> int:
    """Side of the square of features that a head on an encoder sees for one answer; of several heads the largest."""
    return max((int(getattr(part, "kernel_size", 1)) for part in _with_encoder(network)), default=1)


def _with_encoder(network: nn.Module) -> list[Any]:
    """The parts that are a network of an encoder and a head."""
    return [part for part in network.modules() if hasattr(getattr(part, "encoder", None), "key")]


def has_trained_encoder(network: nn.Module) -> bool:
    """Whether the encoder was fine-tuned with the network, so that no stored features are its own."""
    return any(getattr(part, "saves_encoder", False) for part in network.modules())


def encoder_of(network: nn.Module) -> Any:
    """The encoder of a network that has one, or of all networks of an ensemble.

    Raises:
        ValueError: if there is none, several that differ, or one that was trained with the network.
    """
    parts = _with_encoder(network)
    if has_trained_encoder(network):
        raise ValueError(
            f"the encoder of this {type(network).__name__} was fine-tuned with it, so it has no stored features: make its maps "
            "from pixels (without --stored_features, --embed_into)"
        )
    found = [part.encoder for part in parts]
    if not found:
        raise ValueError(
            f"{type(network).__name__} has no encoder: only networks of an encoder and a head can make maps from features"
        )
    if len({encoder.key for encoder in found}) > 1:
        names = ", ".join(f"{encoder.name} ({encoder.key})" for encoder in found)
        raise ValueError(f"the networks of the ensemble have different encoders, {names}, so their maps are made from pixels")
    return found[0]
