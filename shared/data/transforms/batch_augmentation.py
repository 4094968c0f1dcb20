"""Augmentation of a whole batch of tiles on its device, each tile on its own: rotation and mirroring, colour and stain."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .stain_jitter import FACTOR_TO_SHIFT, density_map

# ITU-R BT.601: shares of R, G and B in the grey value.
LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
# Y, I and Q of R, G, B (NTSC, 1953). I and Q of grey are 0: their rows sum to 0.
YIQ = torch.stack([LUMA, *torch.tensor([[0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], dtype=torch.float64)])
NUM_ORIENTATIONS = 8
# Of one tile: orientation, brightness, contrast, saturation, hue, three stain factors and three stain shifts.
NUM_DRAWS = 11


class TileAugmentation:
    """Turns and mirrors each tile of a batch, then changes the amounts of its stains, then its colours.

    All random numbers come from torch's global CPU generator, 11 for each tile whatever the tiles show, the device and the
    strengths: ``torch.manual_seed`` repeats an epoch on any device, and a run with stain jitter sees the same rotations as one
    without. Strengths of 0 give exactly the turned pixels.

    Args:
        colour_jitter: brightness, contrast and saturation are multiplied by a factor each, uniform in ``1 +- colour_jitter``.
        hue_jitter: the hue is turned by a share of the full circle, uniform in ``+- hue_jitter``.
        stain_jitter: strength of the stain jitter, as in `shared.data.RandomStainJitterd`; 0 for none.

    Raises:
        ValueError: if a jitter is out of [0, 1], or the hue's out of [0, 0.5].

    >>> tiles = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    >>> TileAugmentation(colour_jitter=0.0, hue_jitter=0.0)(tiles).dtype
    torch.float32
    """

    def __init__(self, colour_jitter: float = 0.2, hue_jitter: float = 0.05, stain_jitter: float = 0.0) -> None:
        if not (0 <= colour_jitter <= 1 and 0 <= hue_jitter <= 0.5 and 0 <= stain_jitter <= 1):
            raise ValueError(
                "need jitters of colour and stain in [0, 1] and of hue in [0, 0.5]; "
                f"got colour_jitter={colour_jitter}, hue_jitter={hue_jitter}, stain_jitter={stain_jitter}"
            )
        self.colour_jitter = colour_jitter
        self.hue_jitter = hue_jitter
        self.stain_jitter = stain_jitter

    def __call__(self, tiles: Tensor) -> Tensor:
        """Augment a batch.

        Args:
            tiles: RGB ``(N, 3, S, S)``, uint8 or float in [0, 255].

        Returns:
            float32 ``(N, 3, S, S)`` in [0, 255], not rounded, channels_last if the tiles are.

        Raises:
            ValueError: if the tiles are no square RGB tiles.
        """
        if tiles.ndim != 4 or tiles.shape[1] != 3:
            raise ValueError(f"tiles must be (N, 3, S, S); got {tuple(tiles.shape)}")
        draws = torch.rand(len(tiles), NUM_DRAWS, device="cpu", dtype=torch.float32)
        tiles = dihedral(tiles, (draws[:, 0] * NUM_ORIENTATIONS).long())
        amounts = 2 * draws - 1
        if self.stain_jitter > 0:
            stains = self.stain_jitter * amounts[:, 5:]
            tiles = scale_tile_stains(tiles, 1 + stains[:, :3], stains[:, 3:] / FACTOR_TO_SHIFT)
        if self.colour_jitter > 0 or self.hue_jitter > 0:
            brightness, contrast, saturation = (1 + self.colour_jitter * amounts[:, 1:4]).unbind(1)
            tiles = apply_colour(tiles, *colour_matrices(brightness, contrast, saturation, self.hue_jitter * amounts[:, 4]))
        return tiles.float()


def dihedral(tiles: Tensor, which: Tensor) -> Tensor:
    """Each tile in one of the eight orientations of a square, pixel for pixel.

    Args:
        tiles: ``(N, C, S, S)`` of any type.
        which: orientation of each, ``(N,)``, integers in 0 ... 7: bit 0 reverses the rows, bit 1 the columns, then bit 2
            transposes. 0 is the tile itself, 3 half a turn, 5 and 6 the two quarter turns.

    Returns:
        ``(N, C, S, S)``, new memory of the same type, channels_last if the tiles are.

    Raises:
        ValueError: if the tiles are not square or `which` does not fit.

    >>> dihedral(torch.arange(4).reshape(1, 1, 2, 2), torch.tensor([5])).squeeze()  # a quarter turn to the right
    tensor([[2, 0],
            [3, 1]])
    """
    if tiles.ndim != 4 or tiles.shape[2] != tiles.shape[3]:
        raise ValueError(f"tiles must be square, (N, C, S, S); got {tuple(tiles.shape)}")
    if which.shape != tiles.shape[:1] or ((which < 0) | (which >= NUM_ORIENTATIONS)).any():
        raise ValueError(f"which must be {len(tiles)} integers in 0 ... 7; got {which.tolist()}")
    return _dihedral_by_masks(tiles, which) if tiles.is_cuda else _dihedral_by_tile(tiles, which)


def _dihedral_by_tile(tiles: Tensor, which: Tensor) -> Tensor:
    """Transform one tile at a time, for the CPU: it stays in its cache, five times as fast as indexing groups of tiles."""
    result = torch.empty_like(tiles, memory_format=_format_of(tiles))
    for tile, turned, orientation in zip(tiles, result, which.tolist(), strict=True):
        reversed_dims = [dim for dim, bit in ((1, 1), (2, 2)) if orientation & bit]
        tile = tile.flip(reversed_dims) if reversed_dims else tile
        if orientation & 4:
            # Channel by channel: in channels_last torch would copy three values at a time.
            for channel, turned_channel in zip(tile, turned, strict=True):
                turned_channel.copy_(channel.mT)
        else:
            turned.copy_(tile)
    return result


def _dihedral_by_masks(tiles: Tensor, which: Tensor) -> Tensor:
    """Transform the whole batch with a handful of kernels, for the GPU."""
    turned = tiles
    bits = which.to(tiles.device, non_blocking=True)[:, None, None, None]
    turned = torch.where((bits & 1).bool(), turned.flip(2), turned)
    turned = torch.where((bits & 2).bool(), turned.flip(3), turned)
    turned = torch.where((bits & 4).bool(), turned.mT, turned)
    return turned.contiguous(memory_format=_format_of(tiles))


def colour_matrices(brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> tuple[Tensor, Tensor]:
    """Brightness, contrast, saturation and hue, in this order, as one affine map of each tile's colours.

    Brightness b scales; contrast c scales about the tile's mean grey value; saturation s mixes with the pixel's grey value
    (s = 0 is grey); hue h turns the chroma plane (I, Q) of YIQ. With the mean grey value m of the tile as it came in, all
    four are ``x -> b c H S x + b (1 - c) m``, since S and H leave grey as it is. Nothing is clamped in between.

    Args:
        brightness: factor, ``(N,)``; 1 leaves it.
        contrast: factor, ``(N,)``; 1 leaves it.
        saturation: factor, ``(N,)``; 1 leaves it.
        hue: share of a full turn, ``(N,)``; 0 leaves it.

    Returns:
        float32 matrices ``(N, 3, 3)``, for colours as columns, and grey shares ``(N,)``: the multiple of the tile's mean grey
        value that is added to R, G and B.

    Reference:
        The factors are those of torchvision's ``ColorJitter``; the hue turns in YIQ rather than HSV, which is linear.
    """
    brightness, contrast, saturation, hue = (values.double() for values in (brightness, contrast, saturation, hue))
    grey_of = LUMA.expand(3, 3)
    mixing = saturation[:, None, None] * (torch.eye(3, dtype=torch.float64) - grey_of) + grey_of
    cos, sin = torch.cos(2 * math.pi * hue), torch.sin(2 * math.pi * hue)
    zeros, ones = torch.zeros_like(hue), torch.ones_like(hue)
    turn = torch.stack([ones, zeros, zeros, zeros, cos, -sin, zeros, sin, cos], dim=1).reshape(-1, 3, 3)
    matrices = (brightness * contrast)[:, None, None] * (torch.linalg.inv(YIQ) @ turn @ YIQ @ mixing)
    return matrices.float(), (brightness * (1 - contrast)).float()


def apply_colour(tiles: Tensor, matrices: Tensor, grey_shares: Tensor) -> Tensor:
    """An affine map of the colours of each tile, such as one of `colour_matrices`, clamped.

    Args:
        tiles: RGB ``(N, 3, H, W)``, uint8 or float in [0, 255].
        matrices: ``(N, 3, 3)``, for colours as columns.
        grey_shares: multiple of the tile's mean grey value that is added to R, G and B, ``(N,)``.

    Returns:
        float32 ``(N, 3, H, W)`` in [0, 255], channels_last if the tiles are.
    """
    result = torch.empty_like(tiles, dtype=torch.float32, memory_format=_format_of(tiles))
    # For colours as rows.
    matrices = matrices.mT.contiguous().to(tiles.device, non_blocking=True)
    grey_of = (grey_shares[:, None] * LUMA.float()).to(tiles.device, non_blocking=True)
    for block in _blocks(tiles):
        colours = tiles[block].permute(0, 2, 3, 1).float()
        # Over rows first, which adds up contiguous memory.
        shifts = (colours.mean(1).mean(1) * grey_of[block]).sum(1)
        mapped = result[block].permute(0, 2, 3, 1).flatten(1, 2)
        torch.bmm(colours.flatten(1, 2), matrices[block], out=mapped)
        mapped.add_(shifts[:, None, None]).clamp_(0, 255)
    return result


def scale_tile_stains(tiles: Tensor, factors: Tensor, shifts: Tensor) -> Tensor:
    """`shared.data.scale_stains` of each tile.

    Args:
        tiles: RGB ``(N, 3, H, W)``, uint8 or float in [0, 255].
        factors: of each of the three stains, ``(N, 3)``; 1 leaves it.
        shifts: added to each, ``(N, 3)``, in optical density; 0 leaves it.

    Returns:
        float32 ``(N, 3, H, W)`` in [0, 255], channels_last if the tiles are.
    """
    result = torch.empty_like(tiles, dtype=torch.float32, memory_format=_format_of(tiles))
    matrices, offsets = density_map(factors, shifts)
    matrices = matrices.mT.contiguous().to(tiles.device, non_blocking=True)
    offsets = offsets.to(tiles.device, non_blocking=True)
    for block in _blocks(tiles):
        colours = tiles[block].permute(0, 2, 3, 1).flatten(1, 2).float()
        # Not in place here: the tiles may be float32 already.
        logarithms = colours.clamp(min=1).div_(255).log_()
        mapped = result[block].permute(0, 2, 3, 1).flatten(1, 2)
        torch.bmm(logarithms, matrices[block], out=mapped)
        mapped.sub_(offsets[block, None]).exp_().mul_(255).clamp_(0, 255)
    return result


def _blocks(tiles: Tensor) -> Iterator[slice]:
    """Slices of the batch: single tiles on the CPU, which stay in its cache from step to step, all at once on a GPU."""
    size = max(1, len(tiles)) if tiles.is_cuda else 1
    return (slice(start, start + size) for start in range(0, len(tiles), size))


def _format_of(tiles: Tensor) -> torch.memory_format:
    # Also of every second tile or a crop, whose memory has gaps.
    return torch.channels_last if tiles.stride(1) == 1 else torch.contiguous_format
