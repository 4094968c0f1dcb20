"""The settings of a training stage, and their valid values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..networks.precision import computes_bfloat16

AMP_DTYPES = ("bfloat16", "float16", None)
BATCHES = ("mini", "full")


@dataclass(frozen=True)
class TrainingDevice:
    """Where a stage trains, and in which precision: the weights stay float32.

    Args:
        device: to train on.
        amp_dtype: ``"bfloat16"`` or ``"float16"`` for autocast on CUDA, None (on the command line ``'$None'``) for float32.
            bfloat16 is used where it is fast (see `computes_bfloat16`), on a CPU for images and instances above 32 px; float16
            on a CPU never.

    Raises:
        ValueError: for another precision.
    """

    device: torch.device | str
    amp_dtype: str | None = "bfloat16"

    def __post_init__(self) -> None:
        if self.amp_dtype not in AMP_DTYPES:
            raise ValueError(f"amp_dtype must be 'bfloat16', 'float16' or null (--amp_dtype '$None'), got {self.amp_dtype!r}")

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)

    @property
    def amp_kwargs(self) -> dict[str, Any] | None:
        """Arguments for the autocast of MONAI's trainer, which is only for CUDA; None without it."""
        is_slow = self.amp_dtype == "bfloat16" and not computes_bfloat16(self.torch_device)
        if self.amp_dtype is None or self.torch_device.type != "cuda" or is_slow:
            return None
        return {"dtype": getattr(torch, self.amp_dtype)}

    @property
    def autocasts_cpu(self) -> bool:
        return self.amp_dtype == "bfloat16" and self.torch_device.type == "cpu" and computes_bfloat16(self.torch_device)


@dataclass(frozen=True)
class Steps:
    """How the optimizer steps.

    Args:
        final_lr_share: the learning rate falls linearly, step by step, to this share of itself at the end of the stage; 1 for a
            constant rate.
        batch: ``"mini"`` for a step every batch; ``"full"`` for one per epoch, with the gradients of all batches added up in
            the memory of one: the loss is then the mean over all training images.
        max_gradient_norm: gradients of a step are scaled down to this norm where it is larger; None to leave them.
        min_steps: a stage whose epochs are fewer steps than this takes more epochs, see `epochs`; 0 for those that it is given.

    Raises:
        ValueError: for another kind of batch, or a negative number of steps.
    """

    final_lr_share: float = 1.0
    batch: str = "mini"
    max_gradient_norm: float | None = None
    min_steps: int = 0

    def __post_init__(self) -> None:
        if self.batch not in BATCHES:
            raise ValueError(f"batch must be 'mini' or 'full', got {self.batch!r}")
        if self.min_steps < 0:
            raise ValueError(f"min_steps must be at least 0, got {self.min_steps}")

    def epochs(self, max_epochs: int, batches_per_epoch: int) -> int:
        """The number of epochs of a stage with `max_epochs`: more if these make fewer than `min_steps` steps.

        >>> Steps(min_steps=200).epochs(max_epochs=12, batches_per_epoch=6)
        34
        """
        steps_per_epoch = 1 if self.batch == "full" else batches_per_epoch
        return max(max_epochs, math.ceil(self.min_steps / steps_per_epoch))


@dataclass(frozen=True)
class Weights:
    """Which weights a stage begins with, which it keeps, and whether it publishes them.

    Args:
        initial: a file to begin with, for instance the ``model.pt`` of another stage, see
            `shared.networks.load_initial_weights`; None for those that the network has.
        keep_best: name of a validation metric (in the validator's ``state.metrics``): the epoch in which it was largest is
            kept, of several the last, which has learned longest and at the lowest rate. Where the metric is NaN, as an area
            under the curve is without images of both classes, the last epoch is kept. None: the last epoch, as in the papers.
        publish: put a copy of the final weights into the run's folder, where evaluation and inference look for them.
        ema_decay: the running mean of the weights over the steps is validated and kept in place of the weights themselves, see
            `AveragedWeights`; None for the weights themselves.
    """

    initial: str | Path | None = None
    keep_best: str | None = None
    publish: bool = False
    ema_decay: float | None = None
