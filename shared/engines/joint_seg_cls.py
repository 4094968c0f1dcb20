"""The parts of a training step of joint segmentation and classification: batch, network call and loss."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from ..losses.joint_seg_cls import JointSegClsLoss, inverse_frequency_weights
from .batches import image_and_mask

# Not the engine's own: Ignite's loggers are silenced in the bundles' logging.conf.
logger = logging.getLogger(__name__)

Device = torch.device | str | None


def masked_and_labelled(
    batch: dict[str, Any], device: Device = None, non_blocking: bool = False, **_: Any
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A batch of a `shared.data.PairedLoader` with ``masked`` images, ``labelled`` ones, or both.

    Returns:
        inputs ``images (B, 3, H, W)`` and ``labelled (K, 3, h, w)``, uint8, channels last; targets ``masks (B, H, W)``, ``labels
        (K,)`` and, where known, ``labels_of_masked (B,)``, int64.
    """
    inputs, targets = {}, {}
    if "masked" in batch:
        inputs["images"], targets["masks"] = image_and_mask(batch["masked"], device, non_blocking)
        if "label" in batch["masked"]:
            targets["labels_of_masked"] = batch["masked"]["label"].to(device, non_blocking=non_blocking)
    if "labelled" in batch:
        images = batch["labelled"]["image"].to(device, non_blocking=non_blocking)
        inputs["labelled"] = images.contiguous(memory_format=torch.channels_last)
        targets["labels"] = batch["labelled"]["label"].to(device, non_blocking=non_blocking)
    return inputs, targets


class JointInferer(Inferer):
    """Both kinds of images through a `shared.networks.SegClsResNet18`, in one call, as gradient exchange wants it."""

    def __call__(  # type: ignore[override]
        self, inputs: dict[str, Tensor], network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """What `masked_and_labelled` gives to the dictionary that the network returns."""
        logits = network(**inputs)
        return {"pixel_logits": logits} if isinstance(logits, Tensor) else logits


class JointLoss(JointSegClsLoss):
    """`shared.losses.JointSegClsLoss` of named logits and targets, with weights from what the training images hold.

    Args:
        counts: of `shared.data.class_counts`; classes weigh by `inverse_frequency_weights` of their pixels and of their images.
    """

    def __init__(self, counts: dict[str, Any]) -> None:
        weights = (None if counts[kind] is None else inverse_frequency_weights(counts[kind]) for kind in ("pixels", "images"))
        super().__init__(*weights)
        shown = [
            None if value is None else [round(v, 4) for v in value.tolist()] for value in (self.pixel_weights, self.image_weights)
        ]
        logger.info("weights of the classes: pixels %s, images %s", *shown)

    def forward(self, logits: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(**logits, **targets)
