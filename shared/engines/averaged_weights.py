"""The running mean of a network's weights over the steps of a training, which swings less than the weights themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AveragedWeights:
    """An exponential moving average of what a network's state dict holds, parameters and running statistics alike.

    With the mean M and the weights W after step t = 0, 1, ... it is ``M = d * M + (1 - d) * W`` with ``d = min(decay, (1 + t) /
    (10 + t))``: without this warm-up a training of some dozens of steps would be dominated by the weights that it began with.
    Entries that are no floating-point numbers, such as counts of batches, are those of the last step.

    Neither torch's `AveragedModel` nor Ignite's `EMAHandler` serves: both copy the whole module, a frozen encoder that its
    state dict leaves out included, and validate the copy, whereas a stage's validator has the network; the handler also keeps
    no state to resume its warm-up from. The arithmetic is torch's own.

    Args:
        network: whose weights are averaged.
        decay: in [0, 1): the mean goes over about the last ``1 / (1 - decay)`` steps.

    Raises:
        ValueError: for a decay out of range.

    Reference:
        Polyak and Juditsky, SIAM J. Control Optim. 1992; Tarvainen and Valpola, NeurIPS 2017; the warm-up is that of
        TensorFlow's ``ExponentialMovingAverage``.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), or null for no averaging; got {decay}")
        self.network, self.decay = network, decay
        self.num_steps = 0
        self.mean: dict[str, Any] = {}

    def update(self) -> None:
        """Take in the weights after a step of the optimizer."""
        weights = self.network.state_dict()
        if not self.mean:
            self.mean = _copy(weights)
        names = [name for name, values in weights.items() if _is_averaged(values)]
        decay = min(self.decay, (1 + self.num_steps) / (10 + self.num_steps))
        means, now = ([values[name] for name in names] for values in (self.mean, weights))
        for together in _of_one_kind(means, now):
            get_ema_multi_avg_fn(decay)(*together, self.num_steps)
        self.mean |= _copy({name: values for name, values in weights.items() if name not in names})
        self.num_steps += 1

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the network's weights and their mean; a second call brings both back, bit by bit."""
        if not self.mean:
            return
        weights = self.network.state_dict()
        now = _copy(weights)
        for name, values in weights.items():
            if isinstance(values, Tensor):
                values.copy_(self.mean[name])
        self.mean = now

    def state_dict(self) -> dict[str, Any]:
        """The state that a resume point must hold."""
        return {"num_steps": self.num_steps, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num_steps, self.mean = state["num_steps"], dict(state["mean"])


def _is_averaged(values: Any) -> bool:
    return isinstance(values, Tensor) and values.is_floating_point()


def _copy(weights: dict[str, Any]) -> dict[str, Any]:
    return {name: values.clone() if isinstance(values, Tensor) else values for name, values in weights.items()}


def _of_one_kind(means: list[Tensor], now: list[Tensor]) -> list[tuple[list[Tensor], list[Tensor]]]:
    """Both lists by device and type of number, as torch computes with many tensors at once."""
    kinds: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}
    for mean, weights in zip(means, now, strict=True):
        of_kind = kinds.setdefault((mean.device, mean.dtype), ([], []))
        of_kind[0].append(mean)
        of_kind[1].append(weights)
    return list(kinds.values())
