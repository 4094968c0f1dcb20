"""The threshold that a network's weights carry themselves, in the metadata that every state dict of PyTorch has room for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..writers.atomic import atomic_path

# PyTorch keeps a dictionary for every module in `_metadata`, under the module's name; that of the network itself is "".
_METADATA, _NETWORK = "_metadata", ""
_THRESHOLD = "tumour_threshold"


def carry_threshold(checkpoint: str | Path, threshold: float) -> None:
    """Write a threshold into a file of weights, which is otherwise left as it is; nothing is done where there is no such file.

    The file stays a state dict of tensors alone: ``torch.load(..., weights_only=True)`` and ``load_state_dict`` read it in
    programs that know nothing of the threshold, and those that copy the tensors into another dictionary lose it.

    Raises:
        StorageError: if the file cannot be written.
    """
    path = Path(checkpoint)
    if not path.is_file() or carried_threshold(path) == threshold:
        return
    state = torch.load(path, map_location="cpu", weights_only=True)
    with atomic_path(path) as temporary:
        # What a killed run has left may be another file's second name.
        temporary.unlink(missing_ok=True)
        torch.save(with_threshold(state, threshold), temporary)


def with_threshold(state: Mapping[str, Any], threshold: float | None) -> Mapping[str, Any]:
    """The same state dict, to be saved with a threshold; with None as it is."""
    if threshold is None:
        return state
    carrying = OrderedDict(state)
    known = getattr(state, _METADATA, {})
    setattr(carrying, _METADATA, {**known, _NETWORK: {**known.get(_NETWORK, {}), _THRESHOLD: float(threshold)}})
    return carrying


def carried_threshold(checkpoint: str | Path) -> float | None:
    """The threshold in a file of weights; None where it has none, or cannot be read, which loading its weights reports."""
    try:
        # Mapped, because the tensors are not needed.
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # pickle has its own kinds for what is no checkpoint at all
        return None
    value = getattr(state, _METADATA, {}).get(_NETWORK, {}).get(_THRESHOLD)
    return None if value is None else float(value)
