"""Is a training as fast as its network, or as slow as its loader? Measured in its first steps, by the way."""

from __future__ import annotations

import logging
import os
import time
from typing import Protocol

import torch
from ignite.engine import Engine, Events

logger = logging.getLogger(__name__)

# The first steps choose algorithms and fill caches of the device.
_WARM_UP_STEPS = 2
_STEPS = 8
# A stage that loses less than this by its loader is not worth a warning.
_LEAST_WAIT_S = 60.0


class Reading(Protocol):
    """The reading of a loader's processes so far, see `shared.data.loaders.Reading`."""

    seconds: float
    samples: int
    num_workers: int
    samples_a_step: float


class LoadingSpeed:
    """A log line, once a few steps are done: samples per second of the loader and of the network.

    The loader's rate is that of its processes while they read, alongside the network, whether or not they wait in between; the
    network's is that of whole steps, without what they waited for. Nothing is computed twice, and no random number is drawn; a
    GPU is waited for after each of these steps alone. A loader that is slower than the network is measured again in the next
    epoch, when what is kept of decoded files is there.

    The line is a warning only where its reader can act on it and gains by it: if the rest of the stage would wait for the loader
    for a minute or longer, and the process may use more cores than the loader has workers, or trains on a GPU.

    Args:
        stage: name shown.
        quiet: True on all ranks but the first.
    """

    def __init__(self, stage: str, quiet: bool = False) -> None:
        self.stage, self.quiet = stage, quiet
        self._seconds: list[float] = []
        self._before: list[Reading] = []
        self._started = 0.0
        self._num_logged = 0
        self._is_measuring = False

    def attach(self, engine: Engine) -> None:
        """Attach to a `shared.engines.StageTrainer`, whose loader counts what it has read; other trainers are ignored."""
        if self.quiet or not hasattr(getattr(engine, "data_loader", None), "readings"):
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._start_step)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._end_step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)

    def _start(self, engine: Engine) -> None:
        if self._num_logged < 2 and not self._is_measuring:
            self._seconds, self._before = [], engine.data_loader.readings()  # type: ignore[attr-defined]
            self._is_measuring = True

    def _start_step(self, engine: Engine) -> None:
        if self._is_measuring:
            _wait_for(engine)
            self._started = time.perf_counter()

    def _end_step(self, engine: Engine) -> None:
        if self._is_measuring:
            _wait_for(engine)
            self._seconds.append(time.perf_counter() - self._started)
            if len(self._seconds) == _WARM_UP_STEPS + _STEPS:
                self._log(engine)

    def _end_epoch(self, engine: Engine) -> None:
        # Otherwise the next epoch continues the measurement.
        if self._is_measuring and engine.state.epoch == engine.state.max_epochs:
            self._log(engine)

    def _log(self, engine: Engine) -> None:
        self._is_measuring = False
        readings = engine.data_loader.readings()  # type: ignore[attr-defined]
        samples_a_step = sum(reading.samples_a_step for reading in readings)
        loader = samples_a_step * min(map(_steps_a_second, self._before, readings))
        steps = self._seconds[min(_WARM_UP_STEPS, len(self._seconds) - 1) :]
        network = samples_a_step * len(steps) / sum(steps)
        num_workers = sum(reading.num_workers for reading in readings)
        is_slower, was_logged = loader < network, self._num_logged > 0
        self._num_logged = 1 if is_slower and not was_logged else 2
        speeds = (
            f"{self.stage}: {'now ' if was_logged else ''}the loader gives {loader:.4g} samples/s ({num_workers} workers), the "
            f"network takes {network:.4g} (first steps of epoch {engine.state.epoch})"
        )
        # Without workers the network waits for every sample; with them it works while they read.
        wait_s = _steps_left(engine) * samples_a_step * (1 / loader - (1 / network if num_workers else 0))
        if not is_slower or len(steps) < _STEPS or wait_s < _LEAST_WAIT_S:
            logger.info(speeds)
            return
        speeds = f"{speeds}: the training will wait for the loader for about {wait_s / 60:.3g} min"
        cores = _num_cores()
        if num_workers < cores:
            logger.warning(f"{speeds}. Raise the loader's num_workers, up to the {cores} cores that this process may use")
            return
        speeds = f"{speeds}, although all {cores} cores that this process may use read"
        if _is_on_cpu(engine):
            # Network and readers share the cores, so only less reading helps.
            logger.info(f"{speeds}; a coarser mpp is faster")
        else:
            logger.warning(f"{speeds}: give it more cores, or read at a coarser mpp")


def _steps_a_second(before: Reading, now: Reading) -> float:
    if now.samples == before.samples:
        # All that these steps took was read ahead.
        samples, seconds = now.samples, now.seconds
    else:
        samples, seconds = now.samples - before.samples, now.seconds - before.seconds
    return max(1, now.num_workers) * samples / (seconds * now.samples_a_step)


def _steps_left(engine: Engine) -> int:
    state = engine.state
    return (state.max_epochs or 0) * (state.epoch_length or 0) - state.iteration


def _is_on_cpu(engine: Engine) -> bool:
    device: torch.device = engine.state.device  # type: ignore[attr-defined]
    return device.type == "cpu"


def _wait_for(engine: Engine) -> None:
    device: torch.device = engine.state.device  # type: ignore[attr-defined]
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
