"""The visible progress of a training: bars in a terminal, a line per epoch everywhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar

logger = logging.getLogger(__name__)


class StageProgress:
    """Ignite's `ProgressBar` over an epoch's steps where standard error is a terminal, and a log line after every epoch.

    Args:
        stage: name shown.
        validator: the evaluator whose metrics are in the line.
        shown: names of metrics (of trainer or validator) for the line; those that are missing are left out.
        quiet: True on all ranks but the first.
    """

    def __init__(self, stage: str, validator: Any = None, shown: tuple[str, ...] = (), quiet: bool = False) -> None:
        self.stage, self.validator, self.shown, self.quiet = stage, validator, shown, quiet
        self._started = 0.0

    def attach(self, engine: Engine) -> None:
        if self.quiet:
            return
        if sys.stderr.isatty():
            bar = ProgressBar(
                desc=self.stage,
                bar_format="{desc}[{n_fmt}/{total_fmt}] {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
            )
            bar.attach(engine)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)

    def _start(self, engine: Engine) -> None:
        self._started = time.perf_counter()

    def _report(self, engine: Engine) -> None:
        metrics = dict(engine.state.metrics)
        if self.validator is not None:
            metrics.update(self.validator.state.metrics)
        values = ", ".join(f"{name} {metrics[name]:.4f}" for name in self.shown if name in metrics)
        seconds = time.perf_counter() - self._started
        logger.info(f"{self.stage}: epoch {engine.state.epoch}/{engine.state.max_epochs}: {values} ({seconds:.1f} s)")
