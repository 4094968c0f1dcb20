"""From a loader's batch to what a stage's inferer and loss take: the ``prepare_batch`` of each kind of training.

Losses look at values on the CPU only, as to look at those of another device would wait for it: what they would refuse is
refused here, before it is moved there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..data.transforms.view_sampling import sample_views
from ..losses.cancer_area import check_areas
from ..losses.superpixels import num_ids
from ..losses.tumour_images import check_labels
from ..selection.criteria import check_bag_labels

Device = torch.device | str | None


def image_and_label(batch: dict[str, Any], device: Device = None, non_blocking: bool = False, **_: Any) -> tuple[Tensor, Tensor]:
    """Images uint8 ``(B, 3, H, W)``, channels last, and image labels float32 ``(B,)``."""
    images = batch["image"].to(device, non_blocking=non_blocking).contiguous(memory_format=torch.channels_last)
    return images, batch["label"].to(device, dtype=torch.float32, non_blocking=non_blocking)


def image_and_class(batch: dict[str, Any], device: Device = None, non_blocking: bool = False, **_: Any) -> tuple[Tensor, Tensor]:
    """Like `image_and_label`, with class indices int64 ``(B,)``: 1 for every label above 0."""
    images, labels = image_and_label(batch, device, non_blocking)
    return images, (labels > 0).long()


def bag_and_label(
    batch: dict[str, Any], device: Device = None, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, Tensor, tuple[()], dict[str, Tensor]]:
    """Like `image_and_label`, with the labels for the inferer too: Max-Min cannot pick without them."""
    check_bag_labels(batch["label"])
    images, labels = image_and_label(batch, device, non_blocking)
    return images, labels, (), {"labels": labels}


def instance_and_label(
    batch: dict[str, Any], device: Device = None, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, Tensor]:
    """Like `image_and_label`, with labels ``(B, 1)``, the shape of a classifier's logits."""
    images, labels = image_and_label(batch, device, non_blocking)
    return images, labels[:, None]


def image_and_mask(batch: dict[str, Any], device: Device = None, non_blocking: bool = False, **_: Any) -> tuple[Tensor, Tensor]:
    """Images uint8 ``(B, 3, H, W)``, channels last, and class indices a pixel int64 ``(B, H, W)``."""
    images = batch["image"].to(device, non_blocking=non_blocking).contiguous(memory_format=torch.channels_last)
    return images, batch["mask"].to(device, non_blocking=non_blocking)[:, 0].long()


def image_and_area(
    batch: dict[str, Any], device: Device = None, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, dict[str, Any]]:
    """Like `image_and_label`, with the cancer areas ``(B,)`` (NaN where not known) and super-pixels where the batch has them.

    Raises:
        ValueError: for labels, areas of tumour images or super-pixels that `shared.losses` refuse.
    """
    check_labels(batch["label"])
    images, labels = image_and_label(batch, device, non_blocking)
    targets: dict[str, Any] = {"labels": labels}
    if "area" in batch:
        check_areas(batch["area"], batch["label"] == 1)
        targets["areas"] = batch["area"].to(device, dtype=torch.float32, non_blocking=non_blocking)
    if "superpixels" in batch:
        known = batch.get("num_superpixels")
        targets["num_superpixels"] = num_ids(batch["superpixels"]) if known is None else known
        targets["superpixels"] = batch["superpixels"].to(device, non_blocking=non_blocking)
    return images, targets


def constrained_instances(
    batch: dict[str, Any], device: Device = None, non_blocking: bool = False, **_: Any
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A batch of `shared.data.PairedLoader`, for `ConstrainedRetrainInferer` and `shared.losses.ConstrainedRetrainLoss`."""
    check_bag_labels(batch["images"]["label"])
    instances, instance_labels = image_and_label(batch["instances"], device, non_blocking)
    images, image_labels = image_and_label(batch["images"], device, non_blocking)
    inputs = {"instances": instances, "images": images, "image_labels": image_labels}
    return inputs, {"instance_labels": instance_labels, "image_labels": image_labels}


def masked_and_labelled(
    batch: dict[str, Any], device: Device = None, non_blocking: bool = False, **_: Any
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A batch of a `shared.data.PairedLoader` with ``masked`` images, ``labelled`` ones, or both.

    Returns:
        inputs ``images (B, 3, H, W)`` and ``labelled (K, 3, h, w)``, uint8, channels last; targets ``masks (B, H, W)``,
        ``labels (K,)`` and, where known, ``labels_of_masked (B,)``, int64.
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


def images_in(inputs: Any) -> Iterator[Tensor]:
    """The tensors of images or features among a network's inputs, which may be a dictionary of dictionaries."""
    if isinstance(inputs, dict):
        for values in inputs.values():
            yield from images_in(values)
    elif isinstance(inputs, Tensor) and inputs.ndim >= 4:
        yield inputs


class AugmentedOnDevice:
    """A ``prepare_batch`` before which deferred augmentation is done, see `shared.data.RegionDataset.defer_augmentation`.

    Args:
        prepare_batch: of the augmented batch.
    """

    def __init__(self, prepare_batch: Callable[..., Any]) -> None:
        self.prepare_batch = prepare_batch

    def __call__(self, batch: dict[str, Any], device: Device = None, non_blocking: bool = False, **options: Any) -> Any:
        """Apply the ``prepare_batch`` to the batch."""
        if "superpixels" in batch:
            # While they are here: sampling adds no ids, and to look at them on a GPU would wait for it.
            batch = {**batch, "num_superpixels": num_ids(batch["superpixels"])}
        return self.prepare_batch(sample_views(batch, device, non_blocking), device, non_blocking, **options)


class SlideBags:
    """The ``prepare_batch`` of bags: tiles as the network expects them, augmented on the device, and the slides' labels.

    Args:
        augmentation: of tiles ``(N, 3, H, W)``, each on its own, such as `shared.data.TileAugmentation`; None for none.
    """

    def __init__(self, augmentation: Callable[[Tensor], Tensor] | None = None) -> None:
        self.augmentation = augmentation

    def __call__(self, batch: dict[str, Any], device: Any = None, non_blocking: bool = False, **_: Any) -> tuple[Tensor, Tensor]:
        """A batch of `shared.data.SlideBagDataset` to tiles ``(B, n, 3, H, W)``, channels last, and labels float32 ``(B,)``.

        Of `shared.features.FeatureBagDataset` the tiles are features ``(B, n, C, 1, 1)``.
        """
        tiles = batch["tiles"].to(device, non_blocking=non_blocking)
        flat = tiles.flatten(0, 1)
        if tiles.dtype == torch.uint8:
            # Pixels travel as bytes; a permuted view of (N, H, W, 3) is channels last already.
            flat = flat.permute(0, 3, 1, 2)
        if self.augmentation is not None:
            flat = self.augmentation(flat)
        return flat.unflatten(0, tiles.shape[:2]), batch["label"].to(device, dtype=torch.float32, non_blocking=non_blocking)
