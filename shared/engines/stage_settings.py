"""What the settings of a training stage are called, and which of them are valid."""

from __future__ import annotations

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
        amp_dtype: ``"bfloat16"`` or ``"float16"`` for autocast on CUDA, None (on the command line ``'$None'``) for float32. On a
            CPU bfloat16 is used where it is fast (see `computes_bfloat16`), for images and instances above 32 px, and float16
            never.

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
        """Of the autocast of MONAI's trainer, which is for CUDA alone; None without it."""
        return {"dtype": getattr(torch, self.amp_dtype)} if self.amp_dtype and self.torch_device.type == "cuda" else None

    @property
    def autocasts_cpu(self) -> bool:
        return self.amp_dtype == "bfloat16" and self.torch_device.type == "cpu" and computes_bfloat16(self.torch_device)


@dataclass(frozen=True)
class Steps:
    """How the optimizer steps.

    Args:
        final_lr_share: the learning rate falls linearly, step by step, to this share of itself at the end of the stage; 1 for a
            constant rate.
        batch: ``"mini"`` for a step every batch; ``"full"`` for one an epoch, with the gradients of all batches added up in the
            memory of one: the loss is then the mean over all training images.
        max_gradient_norm: gradients of a step are scaled down to this norm where it is larger; None to leave them.

    Raises:
        ValueError: for another kind of batch.
    """

    final_lr_share: float = 1.0
    batch: str = "mini"
    max_gradient_norm: float | None = None

    def __post_init__(self) -> None:
        if self.batch not in BATCHES:
            raise ValueError(f"batch must be 'mini' or 'full', got {self.batch!r}")


@dataclass(frozen=True)
class Weights:
    """Which weights a stage begins with, which it keeps, and whether it publishes them.

    Args:
        initial: a file to begin with, for instance the ``model.pt`` of another stage, see
            `shared.networks.load_initial_weights`; None for those that the network has.
        keep_best: name of a validation metric (in the validator's ``state.metrics``): the epoch in which it was largest is kept.
            None: the last epoch, as in the papers.
        publish: put a copy of the final weights into the run's folder, where evaluation and inference look for them.
    """

    initial: str | Path | None = None
    keep_best: str | None = None
    publish: bool = False
