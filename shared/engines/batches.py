"""From a loader's batch to what a stage's inferer and loss take: the ``prepare_batch`` of each kind of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..losses.constrained_retrain import ConstrainedRetrainLoss
from ..losses.deep_weak_supervision import DeepWeakSupervisionLoss

Device = torch.device | str | None


def image_and_label(batch: dict[str, Any], device: Device = None, non_blocking: bool = False, **_: Any) -> tuple[Tensor, Tensor]:
    """Images uint8 ``(B, 3, H, W)``, channels last, and image labels float32 ``(B,)``."""
    images = batch["image"].to(device, non_blocking=non_blocking).contiguous(memory_format=torch.channels_last)
    return images, batch["label"].to(device, dtype=torch.float32, non_blocking=non_blocking)


def image_and_class(batch: dict[str, Any], device: Device = None, non_blocking: bool = False, **_: Any) -> tuple[Tensor, Tensor]:
    """As `image_and_label` with class indices int64 ``(B,)``: 1 for every label above 0."""
    images, labels = image_and_label(batch, device, non_blocking)
    return images, (labels > 0).long()


def bag_and_label(
    batch: dict[str, Any], device: Device = None, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, Tensor, tuple[()], dict[str, Tensor]]:
    """As `image_and_label`, and the labels for the inferer too: Max-Min cannot pick without them."""
    images, labels = image_and_label(batch, device, non_blocking)
    return images, labels, (), {"labels": labels}


def instance_and_label(
    batch: dict[str, Any], device: Device = None, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, Tensor]:
    """As `image_and_label` with labels ``(B, 1)``, the shape of a classifier's logits."""
    images, labels = image_and_label(batch, device, non_blocking)
    return images, labels[:, None]


def image_and_mask(batch: dict[str, Any], device: Device = None, non_blocking: bool = False, **_: Any) -> tuple[Tensor, Tensor]:
    """Images uint8 ``(B, 3, H, W)``, channels last, and class indices a pixel int64 ``(B, H, W)``."""
    images = batch["image"].to(device, non_blocking=non_blocking).contiguous(memory_format=torch.channels_last)
    return images, batch["mask"].to(device, non_blocking=non_blocking)[:, 0].long()


def image_and_area(
    batch: dict[str, Any], device: Device = None, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """As `image_and_label`, with the cancer areas ``(B,)`` (NaN where not known) and super-pixels where the batch has them."""
    images, labels = image_and_label(batch, device, non_blocking)
    targets = {"labels": labels}
    if "area" in batch:
        targets["areas"] = batch["area"].to(device, dtype=torch.float32, non_blocking=non_blocking)
    if "superpixels" in batch:
        targets["superpixels"] = batch["superpixels"].to(device, non_blocking=non_blocking)
    return images, targets


def constrained_instances(
    batch: dict[str, Any], device: Device = None, non_blocking: bool = False, **_: Any
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A batch of `shared.data.PairedLoader`, for `ConstrainedRetrainInferer` and `ConstrainedLoss`."""
    instances, instance_labels = image_and_label(batch["instances"], device, non_blocking)
    images, image_labels = image_and_label(batch["images"], device, non_blocking)
    inputs = {"instances": instances, "images": images, "image_labels": image_labels}
    return inputs, {"instance_labels": instance_labels, "image_labels": image_labels}


class ConstrainedLoss(ConstrainedRetrainLoss):
    """`shared.losses.ConstrainedRetrainLoss` of the named logits and labels that a constrained step hands over."""

    def forward(self, logits: dict[str, Tensor], labels: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(**logits, **labels)


class WeakAreaLoss(DeepWeakSupervisionLoss):
    """`shared.losses.DeepWeakSupervisionLoss` of what `image_and_area` hands over, for a known number of side outputs.

    Args:
        num_side_outputs: of the network.
        etas: weight of the area constraint at each of them, >= 0.
        eta_fuse: the same at their fusion; without effect for a single side output, which has none.
        r: sharpness of the generalised mean, > 0.
        area_weighted_superpixels: weight super-pixels by their numbers of pixels.

    Raises:
        ValueError: if there is not one eta a side output, or as `DeepWeakSupervisionLoss`.
    """

    def __init__(
        self,
        num_side_outputs: int,
        etas: Sequence[float] = (2.5, 5, 10),
        eta_fuse: float = 10,
        r: float = 4,
        area_weighted_superpixels: bool = False,
    ) -> None:
        super().__init__(etas, eta_fuse, r, area_weighted_superpixels)
        if len(self.etas) != num_side_outputs:
            raise ValueError(
                f"the network has {num_side_outputs} side outputs, and there are {len(self.etas)} etas, {list(self.etas)}: "
                "give one eta a side output"
            )
        self.num_side_outputs = num_side_outputs

    @property
    def needs_areas(self) -> bool:
        """Whether the area constraint has a weight at any map."""
        return any(self.etas) or (self.num_side_outputs > 1 and self.eta_fuse > 0)

    def forward(self, outputs: tuple[Tensor, Tensor | None], targets: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(outputs, targets["labels"], targets.get("areas"), targets.get("superpixels"))
