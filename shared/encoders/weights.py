"""Weights of encoders: state dicts in files."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..networks.backbones.checkpoints import check_finite, read_checkpoint

__all__ = ["load_weights_into", "read_weights"]

COUNTER = "num_batches_tracked"
# Under which a training's checkpoint keeps the network, in files of which it is but a part.
NESTED_IN = ("state_dict", "model", "teacher")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a file that ``torch.save`` or safetensors wrote.

    Raises:
        ValueError: naming the file, if it does not exist, holds no state dict, or objects that `read_checkpoint` does not load.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"the weights {path} do not exist: expected a state dict file (.pt, .pth, .bin or .safetensors)")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else read_checkpoint(path)
    for name in NESTED_IN:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} contains no state dict: expected one tensor per parameter name, found {_kind(state)}")
    return dict(state)


def load_weights_into(network: nn.Module, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Load weights into a network, strictly but for batch normalisation's counters, which have no part in features.

    Args:
        network: changed in place; one on the meta device takes the tensors themselves.
        weights: by the network's parameter names.
        path: where they are from, for the errors.

    Raises:
        ValueError: naming the file, if names or shapes differ, or a weight is NaN or infinite.
    """
    expected = network.state_dict()
    counters = {name: torch.zeros_like(value, device="cpu") for name, value in expected.items() if name.endswith(COUNTER)}
    weights = {**counters, **weights}
    missing = [name for name in expected if name not in weights]
    unexpected = [name for name in weights if name not in expected]
    if missing or unexpected:
        raise ValueError(
            f"{path} does not hold the weights of this encoder: {len(missing)} of {len(expected)} are missing {missing[:3]}, "
            f"{len(unexpected)} are unexpected {unexpected[:3]}"
        )
    for name, value in weights.items():
        if value.shape != expected[name].shape:
            raise ValueError(f"{path}: {name} must be {tuple(expected[name].shape)}; found {tuple(value.shape)}")
    is_empty = any(value.is_meta for value in expected.values())
    network.load_state_dict({name: value.to(expected[name].dtype) for name, value in weights.items()}, assign=is_empty)
    check_finite(network, path)


def _read_safetensors(path: Path) -> object:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path} needs safetensors: pip install -r requirements-encoders.txt") from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error


def _kind(state: object) -> str:
    if not isinstance(state, Mapping):
        return type(state).__name__
    return f"a dictionary with {', '.join(map(str, list(state)[:5]))}"
