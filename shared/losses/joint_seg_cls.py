"""The loss of joint segmentation and classification: weighted cross entropy of pixels and of images."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["JointSegClsLoss", "inverse_frequency_weights"]

logger = logging.getLogger(__name__)


def inverse_frequency_weights(counts: Tensor | Sequence[float]) -> Tensor:
    """Weights inversely proportional to frequencies, the largest 1; 0 for a class that does not occur.

    Args:
        counts: of pixels or images of each class, ``(C,)``, at least 0 and not all 0.

    Returns:
        float32 ``(C,)``.

    Raises:
        ValueError: for other counts.

    Reference:
        Ciga and Martel, section 2.3, speaks of weights "proportional to the pixelwise class distributions"; the released code
        takes the inverse, and so does this.

    >>> inverse_frequency_weights([900, 90, 0, 10])
    tensor([0.0111, 0.1111, 0.0000, 1.0000])
    """
    counts = torch.as_tensor(counts, dtype=torch.float64)
    if counts.ndim != 1 or not bool((counts >= 0).all()) or not bool(counts.sum() > 0):
        raise ValueError(f"need counts of at least 0 that are not all 0; got {counts.tolist()}")
    inverse = torch.where(counts > 0, 1 / counts.clamp_min(1e-12), 0.0)
    return (inverse / inverse.max()).float()


class JointSegClsLoss(nn.Module):
    """``L = L_seg + L_cls``, each a weighted cross entropy: of masked images' pixels, and of labelled images.

    Each is a weighted mean, as torch's: the sum of ``weight[class] * cross entropy``, over the sum of those weights. A kind of
    images that is not there adds nothing.

    Args:
        pixel_weights: of each class in L_seg, ``(C,)``; None for all alike.
        image_weights: of each class in L_cls, ``(C,)``; None for all alike.

    Reference:
        Ciga and Martel, section 2.3. The released code instead gives each labelled image a constant mask of its label and each
        masked image a label, and takes both losses of both kinds together: logits that stand for that, where they are given, are
        pooled into the same means.
    """

    pixel_weights: Tensor | None
    image_weights: Tensor | None

    def __init__(
        self, pixel_weights: Sequence[float] | Tensor | None = None, image_weights: Sequence[float] | Tensor | None = None
    ) -> None:
        super().__init__()
        for name, weights in (("pixel_weights", pixel_weights), ("image_weights", image_weights)):
            value = None if weights is None else torch.as_tensor(weights, dtype=torch.float32)
            if value is not None and (value.ndim != 1 or not bool((value >= 0).all()) or not bool(value.any())):
                raise ValueError(f"{name} must be one number of at least 0 per class, not all 0; got {value.tolist()}")
            self.register_buffer(name, value)

    @classmethod
    def from_counts(cls, counts: Mapping[str, Any]) -> JointSegClsLoss:
        """The loss with weights from what the training images hold.

        Args:
            counts: of `shared.data.class_counts`: ``pixels`` and ``images`` of each class, None where there are none; classes
                weigh by `inverse_frequency_weights` of them.
        """
        weights = [None if counts[kind] is None else inverse_frequency_weights(counts[kind]) for kind in ("pixels", "images")]
        shown = [None if values is None else [round(value, 4) for value in values.tolist()] for values in weights]
        logger.info("weights of the classes: pixels %s, images %s", *shown)
        return cls(*weights)

    def forward(
        self,
        pixel_logits: Tensor | None = None,
        masks: Tensor | None = None,
        image_logits: Tensor | None = None,
        labels: Tensor | None = None,
        image_logits_of_masked: Tensor | None = None,
        labels_of_masked: Tensor | None = None,
        pixel_logits_of_labelled: Tensor | None = None,
    ) -> Tensor:
        """The loss of one step.

        Args:
            pixel_logits: of masked images ``(B, C, H, W)``, or None.
            masks: their classes, int64 ``(B, H, W)``.
            image_logits: of labelled images ``(K, C)``, or None.
            labels: their classes, int64 ``(K,)``.
            image_logits_of_masked: ``(B, C)``, of the released head only.
            labels_of_masked: int64 ``(B,)``, needed with them.
            pixel_logits_of_labelled: ``(K, C, h, w)``, of the released head only.

        Returns:
            float32 (float64 for float64 logits), one number.

        Raises:
            ValueError: if there are neither masked nor labelled images, logits without targets, or targets of another shape.
        """
        return _sum_of_means(
            self.terms(
                pixel_logits,
                masks,
                image_logits,
                labels,
                image_logits_of_masked,
                labels_of_masked,
                pixel_logits_of_labelled,
            )
        )

    def terms(
        self,
        pixel_logits: Tensor | None = None,
        masks: Tensor | None = None,
        image_logits: Tensor | None = None,
        labels: Tensor | None = None,
        image_logits_of_masked: Tensor | None = None,
        labels_of_masked: Tensor | None = None,
        pixel_logits_of_labelled: Tensor | None = None,
    ) -> list[tuple[Tensor, Tensor]]:
        """L_seg and L_cls, of those that there are, each as a weighted sum and the sum of its weights: see `forward`."""
        pixels, images = [], []
        if pixel_logits is not None:
            pixels.append((_rows(pixel_logits), _wanted(masks, "masks", pixel_logits[:, 0].shape).flatten()))
        if pixel_logits_of_labelled is not None:
            size = pixel_logits_of_labelled.shape[-2:].numel()
            # Not `repeat_interleave`, which waits for the device to say how long its result is.
            constant = _wanted(labels, "labels", pixel_logits_of_labelled.shape[:1])[:, None].expand(-1, size)
            pixels.append((_rows(pixel_logits_of_labelled), constant.flatten()))
        if image_logits is not None:
            images.append((image_logits, _wanted(labels, "labels", image_logits.shape[:1])))
        if image_logits_of_masked is not None:
            targets = _wanted(labels_of_masked, "labels_of_masked", image_logits_of_masked.shape[:1])
            images.append((image_logits_of_masked, targets))
        terms = [
            _cross_entropy(rows, weights)
            for rows, weights in ((pixels, self.pixel_weights), (images, self.image_weights))
            if rows
        ]
        if not terms:
            raise ValueError("each step needs masked images, labelled images, or both")
        return terms


def _rows(logits: Tensor) -> Tensor:
    """``(B, C, H, W)`` to ``(B * H * W, C)``."""
    return logits.movedim(1, -1).flatten(0, -2)


def _wanted(targets: Tensor | None, name: str, shape: torch.Size) -> Tensor:
    if targets is None:
        raise ValueError(f"there are logits, but no {name}")
    if targets.shape != shape:
        raise ValueError(f"{name} must be {tuple(shape)}; got {tuple(targets.shape)}")
    return targets


def _sum_of_means(terms: list[tuple[Tensor, Tensor]]) -> Tensor:
    # Targets that all weigh nothing teach nothing.
    return torch.stack([total / weight.clamp(min=torch.finfo(weight.dtype).tiny) for total, weight in terms]).sum()


def _cross_entropy(rows: list[tuple[Tensor, Tensor]], weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """The weighted sum of the targets' cross entropies, and the sum of their weights."""
    # Not under autocast: float32 sums of many pixels.
    with torch.autocast(rows[0][0].device.type, enabled=False):
        logits, targets = (torch.cat(parts) for parts in zip(*rows, strict=True))
        precision = torch.promote_types(logits.dtype, torch.float32)
        weights = None if weights is None else weights.to(logits.device, precision)
        losses = F.cross_entropy(logits.to(precision), targets.long(), weight=weights, reduction="sum")
        # A number that is filled in on the device, not copied there.
        count = losses.new_full((), len(targets))
        return losses, count if weights is None else weights[targets.long()].sum()
