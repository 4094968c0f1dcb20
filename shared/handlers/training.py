"""The handlers that every training stage carries, as one list."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from ignite.engine import Engine, EventEnum, Events
from monai.handlers import ValidationHandler

from .loading_speed import LoadingSpeed
from .progress import StageProgress
from .tracking import Tracking

SHOWN = (
    "train_loss",
    "val_image_auc",
    "val_image_balanced_accuracy",
    "val_image_accuracy",
    "val_instance_sensitivity",
    "val_instance_specificity",
    "val_instance_accuracy",
    "val_region_f",
    "val_region_f_ca",
    "val_region_f_nc",
    "val_pixel_f1",
    "val_pixel_iou",
    "val_pixel_bach_score",
    "val_pixel_macro_f1",
    "val_pixel_foreground_accuracy",
    "val_slide_auc",
    "val_proxy_auc",
    "val_tile_auc",
)


class StageEvents(EventEnum):
    """Events that a `shared.engines.StageTrainer` fires in addition to Ignite's own."""

    WEIGHTS_SAVED = "weights_saved"


def training_handlers(
    stage: str,
    tracking: Tracking | None = None,
    validator: Any = None,
) -> list[Any]:
    """The loader's speed, validation, MLflow tracking of training and validation, progress bar and log lines, in this order.

    Args:
        stage: its name in logs and in MLflow.
        tracking: the MLflow runs; None for none.
        validator: a MONAI evaluator to run every epoch; None for none.
    """
    rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
    handlers: list[Any] = [LoadingSpeed(stage, quiet=rank > 0)]
    if validator is not None:
        handlers.append(ValidationHandler(interval=1, validator=validator, epoch_level=True))
    if tracking is not None:
        handlers.append(_StageTracking(stage, tracking, validator))
    handlers.append(StageProgress(stage, validator, SHOWN, quiet=rank > 0))
    return handlers


class _StageTracking:
    """Connects to MLflow when training starts, not when the configuration is read: a finished stage opens no run."""

    def __init__(self, stage: str, tracking: Tracking, validator: Any) -> None:
        self.stage, self.tracking, self.validator = stage, tracking, validator

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(StageEvents.WEIGHTS_SAVED, self._finish)

    def _start(self, engine: Engine) -> None:
        train = self.tracking.handler(self.stage)
        if train is None:
            return
        self.tracking.begin_stage(self.stage)
        train.attach(engine)
        train.start(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._log_learning_rates)
        if self.validator is not None:
            # The evaluator's own epoch is always 1.
            validate = self.tracking.handler(self.stage, global_epoch_transform=lambda _: engine.state.epoch)
            if validate is not None:
                validate.attach(self.validator)

    def _log_learning_rates(self, engine: Engine) -> None:
        """Log the learning rate of each parameter group in the epoch's last step."""
        groups = getattr(getattr(engine, "optimizer", None), "param_groups", [])
        rates = {f"learning_rate_{index}" if index else "learning_rate": group["lr"] for index, group in enumerate(groups)}
        if rates:
            self.tracking.log_metrics(self.stage, rates, engine.state.epoch)

    def _finish(self, engine: Engine) -> None:
        self.tracking.log_stage(self.stage, {}, [engine.weights_file, engine.history_file])  # type: ignore[attr-defined]
        self.tracking.finish_stage(self.stage)
