"""The hash by which results name the weights that they were made with."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor, nn


def weights_sha256(network: nn.Module) -> str:
    """Hash of a network's parameters and buffers with their names."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class WeightsHash:
    """`weights_sha256` of one network, worked out again only where its weights have changed.

    It takes a second for some hundred million weights, as long as small slides take to be mapped.
    """

    def __init__(self) -> None:
        self._known: tuple[dict[str, _State], str] | None = None

    def of(self, network: nn.Module) -> str:
        """The hash of the network's weights as they are now."""
        states = {name: _state(tensor) for name, tensor in network.state_dict().items()}
        known = self._known
        if known is None or known[0] != states:
            self._known = known = (states, weights_sha256(network))
        return known[1]


class _State(NamedTuple):
    """How the state of a tensor is told from an earlier one, in a twentieth of the time that its hash takes.

    PyTorch counts how often a tensor is written, but not what is written through ``.data``; the sum of all bytes in words of
    eight tells of that.
    """

    dtype: torch.dtype
    shape: torch.Size
    address: int
    num_writes: int
    sum_of_words: int


def _state(tensor: Tensor) -> _State:
    tensor = tensor.detach()
    # Those of inference mode are not counted.
    num_writes = 0 if tensor.is_inference() else tensor._version
    return _State(tensor.dtype, tensor.shape, tensor.data_ptr(), num_writes, _sum_of_words(tensor))


def _sum_of_words(tensor: Tensor) -> int:
    """Sum of a tensor's bytes, eight by eight, in the order in which they lie in memory."""
    # Axes as they lie: channels that come last would be copied.
    by_stride = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    content = tensor.permute(by_stride).contiguous().view(-1).view(torch.uint8)
    if content.storage_offset() % 8:
        content = content.clone()
    whole = len(content) // 8 * 8
    return int(content[:whole].view(torch.int64).sum()) + int(content[whole:].sum())
