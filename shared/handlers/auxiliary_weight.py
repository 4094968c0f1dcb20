"""The weight of auxiliary losses, which fades during a training."""

from __future__ import annotations

from typing import Protocol

from ignite.engine import Engine, Events


class HasAuxiliaryWeight(Protocol):
    """A loss such as `shared.losses.AuxiliarySegmentationLoss`."""

    auxiliary_weight: float


class FadingAuxiliaryWeight:
    """Sets a loss's ``auxiliary_weight`` before every step: `first`, a tenth of it after `every_steps`, and so on to `least`.

    It follows from the step's number alone, so that a training that resumes after an interruption has the weights of an
    uninterrupted one.

    Args:
        loss: of the engine.
        first: weight of the first steps.
        every_steps: steps of the optimiser between two falls.
        least: the weight falls no lower.

    Raises:
        ValueError: if ``every_steps`` is below 1, or not ``first >= least >= 0``.

    Reference:
        Chen et al., DCAN, CVPR 2016, section 2.1: 1 at first, a tenth after every 10,000 steps, 0.001 at last.
    """

    def __init__(self, loss: HasAuxiliaryWeight, first: float = 1.0, every_steps: int = 10_000, least: float = 0.001) -> None:
        if every_steps < 1 or not first >= least >= 0:
            raise ValueError(f"need every_steps >= 1 and first >= least >= 0; got {every_steps=}, {first=}, {least=}")
        self.loss, self.first, self.every_steps, self.least = loss, first, every_steps, least

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self._set)

    def _set(self, engine: Engine) -> None:
        falls = (engine.state.iteration - 1) // self.every_steps
        self.loss.auxiliary_weight = max(self.least, self.first / 10**falls)
