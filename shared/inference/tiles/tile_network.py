"""A network as the map needs it: tiles in, probabilities on the map's pixels out, as fast as the device can."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...networks.probabilities import class_probabilities, to_map_pixels, tumour_probability
from ..device_errors import device_error
from .image_sizes import USUAL_MULTIPLE_PX, ImageSizes, mirrored_to
from .symmetries import mean_over, symmetries

logger = logging.getLogger(__name__)


class TileNetwork(nn.Module):
    """Probabilities of uint8 tiles, in channels_last, in bfloat16 where that is faster.

    Tiles reach the network at their own size if it accepts that size, see `ImageSizes`; otherwise they are mirrored at the
    right and bottom border, and the output is cropped. If a network does not declare its sizes and fails at one, the next
    multiples of 32 px are tried.

    Args:
        network: raw RGB 0..255, float32 ``(B, 3, H, W)`` -> logits. It normalises itself, on the device.
        num_classes: 1 for a probability of tumour (one or two logits), else the number of logits, softmaxed.
        tta: ``"none"``, ``"flips"`` or ``"dihedral"``: probabilities are averaged over these symmetries.
        bfloat16: compute in bfloat16 where autocast allows, see `computes_bfloat16`.
    """

    def __init__(self, network: nn.Module, num_classes: int = 1, tta: str = "none", bfloat16: bool = False) -> None:
        super().__init__()
        self.network, self.num_classes, self.uses_bfloat16 = network, num_classes, bfloat16
        self.symmetries = symmetries(tta)
        self.sizes = ImageSizes.of_network(network)
        self._is_padded: set[tuple[int, int]] = set()

    def forward(self, tiles: Tensor, map_shape: tuple[int, int]) -> Tensor:
        """Tiles uint8 ``(B, H, W, 3)`` to float32 ``(B, num_classes, *map_shape)``: (H, W) of a tile in map pixels."""
        # The permuted view of (B, H, W, 3) is channels_last already.
        images = tiles.permute(0, 3, 1, 2).float()
        shape = self.sizes.accepted(images.shape[2:])
        if shape[0] % USUAL_MULTIPLE_PX == 0 and shape[1] % USUAL_MULTIPLE_PX == 0:
            return self._map(images, shape, map_shape)
        try:
            return self._map(images, shape, map_shape)
        except (RuntimeError, ValueError) as error:
            if isinstance(error, torch.OutOfMemoryError) or device_error(error) is not None:
                raise
            try:
                return self._map_padded(images, map_shape)
            except (RuntimeError, ValueError):
                raise error from None

    def _map(self, images: Tensor, shape: tuple[int, int], map_shape: tuple[int, int]) -> Tensor:
        """The probabilities of images that are given to the network at this (H, W)."""
        height, width = images.shape[2:]
        probability = mean_over(self.symmetries, self.probability, mirrored_to(images, shape))
        if shape != (height, width) and probability.shape[2:] != (1, 1):
            probability = to_map_pixels(probability, shape)[:, :, :height, :width]
        return to_map_pixels(probability, map_shape)

    def _map_padded(self, images: Tensor, map_shape: tuple[int, int]) -> Tensor:
        usual = ImageSizes(math.lcm(USUAL_MULTIPLE_PX, self.sizes.multiple_px), self.sizes.smallest_px)
        given, shape = (int(images.shape[2]), int(images.shape[3])), usual.accepted(images.shape[2:])
        probability = self._map(images, shape, map_shape)
        if given not in self._is_padded:
            self._is_padded.add(given)
            logger.warning(
                "%s does not accept %d x %d px: mirrored at the border to %d x %d px; define size_multiple_px in the class to "
                "state what it accepts",
                *(type(self.network).__name__, given[1], given[0], shape[1], shape[0]),
            )
        return probability

    def has_one_answer_per_tile(self, tile_size_px: int) -> bool:
        """Whether the network is a classifier of tiles: found by giving it a white one of this side."""
        device = next((part.device for part in self.network.parameters()), torch.device("cpu"))
        with torch.inference_mode():
            side = self.sizes.accepted((tile_size_px, tile_size_px))[0]
            white = torch.full((1, 3, side, side), 255.0, device=device)
            return self.probability(white.contiguous(memory_format=torch.channels_last)).shape[2:] == (1, 1)

    def probability(self, images: Tensor) -> Tensor:
        """The network's probabilities for images ``(B, 3, H, W)``, float32 ``(B, num_classes, h, w)`` of any size."""
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.uses_bfloat16):
            logits = self.network(images)
        return tumour_probability(logits)[:, None] if self.num_classes == 1 else class_probabilities(logits, self.num_classes)


class CompiledTileNetwork:
    """`TileNetwork` or `TileFeatures` through `torch.compile`, for batches of one shape: it compiles once.

    A smaller batch is filled up, and tiles of another size - of images smaller than a tile - go through the network as it is.

    Args:
        tiles: the network.
        batch_size: of the compiled network.
        tile_size_px: its tiles' side.
    """

    def __init__(self, tiles: nn.Module, batch_size: int, tile_size_px: int) -> None:
        self.plain, self.batch_size, self.tile_shape = tiles, batch_size, (tile_size_px, tile_size_px)
        self._compiled: Callable[[Tensor, tuple[int, int]], Tensor] | None = None

    def __call__(self, tiles: Tensor, map_shape: tuple[int, int]) -> Tensor:
        if tuple(tiles.shape[1:3]) != self.tile_shape or len(tiles) > self.batch_size:
            plain: Tensor = self.plain(tiles, map_shape)
            return plain
        if self._compiled is None:
            # What the network has to say of its first images it does not say once it is compiled.
            self.plain(tiles[:1], map_shape)
            # Frozen weights are folded with the batch normalisations and laid out for the matrix units: on CPUs half as
            # fast again. Not on CUDA, where it has not been measured.
            is_cpu = tiles.device.type == "cpu"
            self._compiled = torch.compile(self.plain, dynamic=False, options={"freezing": is_cpu})
        num_tiles = len(tiles)
        if num_tiles < self.batch_size or not tiles.is_inference():
            # Full batches too: a tensor from outside inference mode compiles again, whereas a copy made here does not.
            tiles = functional.pad(tiles, (0, 0, 0, 0, 0, 0, 0, self.batch_size - num_tiles))
        return self._compiled(tiles, map_shape)[:num_tiles]


def compile_problem(device: torch.device) -> str | None:
    """Why `torch.compile` cannot work here, or None if it can."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++")):
        return "there is no C++ compiler (g++, clang++ or $CXX)"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "the headers of Python are missing (Debian: python3-dev)"
    if " " in torch.__path__[0]:
        return f"torch.compile does not quote paths, and there is a space in the path of torch: {torch.__path__[0]}"
    return None
