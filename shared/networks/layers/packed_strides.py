"""Feature maps of several strides in one tensor, and back, without a loss."""

from typing import List, Optional  # noqa: UP035  TorchScript reads these

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["pack_strides", "packed_channels", "unpack_strides"]


def pack_strides(maps: List[Tensor], strides_px: Optional[List[int]] = None) -> Tensor:  # noqa: UP006, UP045
    """Bring maps to the grid of the coarsest one, by moving their places into channels, and join them along the channels.

    Args:
        maps: of one image, finest first: ``(B, C_i, h * s / s_i, w * s / s_i)``, s the last stride.
        strides_px: s_i, ascending; each divides the last one. None finds them by the widths of the maps.

    Returns:
        ``(B, C', h, w)`` with ``C' = sum C_i * (s / s_i) ** 2``, see `packed_channels`.

    >>> pack_strides([torch.zeros(1, 3, 4, 4), torch.zeros(1, 5, 2, 2)], [8, 16]).shape
    torch.Size([1, 17, 2, 2])
    """
    packed: List[Tensor] = []  # noqa: UP006
    for index, one in enumerate(maps):
        factor = one.shape[-1] // maps[-1].shape[-1] if strides_px is None else strides_px[-1] // strides_px[index]
        packed.append(one if factor == 1 else F.pixel_unshuffle(one, factor))
    return packed[0] if len(packed) == 1 else torch.cat(packed, dim=1)


def unpack_strides(packed: Tensor, channels: List[int], strides_px: List[int]) -> List[Tensor]:  # noqa: UP006
    """The maps that `pack_strides` joined.

    Args:
        packed: ``(B, C', h, w)``.
        channels: C_i of the maps, finest first.
        strides_px: s_i, as given to `pack_strides`.

    Returns:
        of each stride ``(B, C_i, h * s / s_i, w * s / s_i)``, finest first.

    Raises:
        RuntimeError: if C' is not that of these channels and strides.
    """
    sizes: List[int] = []  # noqa: UP006
    for index, count in enumerate(channels):
        factor = strides_px[-1] // strides_px[index]
        sizes.append(count * factor * factor)
    maps: List[Tensor] = []  # noqa: UP006
    for index, part in enumerate(torch.split(packed, sizes, dim=1)):
        factor = strides_px[-1] // strides_px[index]
        maps.append(part if factor == 1 else F.pixel_shuffle(part, factor))
    return maps


def packed_channels(channels: List[int], strides_px: List[int]) -> int:  # noqa: UP006
    """Channels of what `pack_strides` returns.

    >>> packed_channels([3, 5], [8, 16])
    17
    """
    return sum(count * (strides_px[-1] // stride) ** 2 for count, stride in zip(channels, strides_px, strict=True))
