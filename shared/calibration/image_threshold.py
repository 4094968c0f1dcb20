"""The threshold of a segmentation network that learned from image labels, from validation images without pixel labels."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.image_dataset import RegionDataset
from ..data.record import label_of
from ..engines.distributed import barrier, over_dataset, rank, unwrap
from ..handlers.tracking import Tracking
from ..networks.probabilities import tumour_probability
from ..writers.atomic import atomic_path
from .threshold import map_threshold, read_calibration

logger = logging.getLogger(__name__)

DEFAULT_THRESHOLD = 0.5
# Each has both classes.
NUM_FOLDS = MIN_IMAGES = 5


class ImageCalibration:
    """Chooses the threshold for tumour on validation images by their labels alone, once, and keeps it in a file, and in the
    weights next to it (`carry_threshold`).

    Pixels of tumour images stand against pixels of normal ones, every image counting as much as any other, and the threshold
    has the largest sensitivity + specificity on them. That tumour images have normal pixels too lowers this sum and does not
    move where it is largest, as long as normal tissue gets the same probabilities in both.

    It does not: a network gives normal tissue beside tumour higher ones, because its receptive field, and the instances from
    which CAMEL learns, take in both. The sum then counts this tissue as found, and is largest at too low a threshold. So 0.5
    is only raised, never lowered, except where a network finds nothing at 0.5: where tumour images do not have a larger share
    of pixels above 0.5 than normal ones, by more than twice the standard error of the difference.

    A poor validation split does not decide. The threshold is 0.5 where a class has fewer than 5 images; and where the best one
    is not better than 0.5 by more than twice the standard error of that gain over the images, which is measured on a fifth of
    them after the other, at the threshold of the other four fifths.

    Args:
        file: JSON to write: ``threshold``, ``reason`` in words, the images of both classes, and the balanced accuracy of pixels
            against the labels of their images at 0.5 and at the threshold (None where it was not computed).
        dataset: the validation images, whole; their masks are not looked at.
        network: trained: images to logits ``(B, 2, H, W)`` or ``(B, 1, H, W)``; not changed.
        device: to compute on.
        threshold: a number to take instead, in (0, 1]; None to choose.
        batch_size: images a forward pass.
        num_workers: processes that read.
        tracking: MLflow runs to log to.

    Raises:
        ValueError: for a threshold out of range.

    Reference:
        Menon et al., Learning from corrupted binary labels via class-probability estimation, ICML 2015: the balanced error is
        immune to such labels.
    """

    def __init__(
        self,
        file: str | Path,
        dataset: RegionDataset,
        network: nn.Module,
        device: torch.device | str,
        threshold: float | None = None,
        batch_size: int = 4,
        num_workers: int = 0,
        tracking: Tracking | None = None,
    ) -> None:
        if threshold is not None and not 0 < threshold <= 1:
            raise ValueError(f"threshold must be in (0, 1], or null to choose it on the validation images; got {threshold}")
        self.file, self.dataset, self.network, self.threshold = Path(file), dataset, network, threshold
        self.device, self.batch_size, self.num_workers = torch.device(device), batch_size, num_workers
        self.tracking = tracking

    def run(self) -> dict[str, Any]:
        """Map the images and write the file; where it exists, read it. The weights beside it carry the threshold then.

        MLflow gets what the file holds either way: the run may have been killed before it was logged.
        """
        if not self.file.is_file():
            result = self._given() if self.threshold is not None else self._chosen()
            # Not before every process has seen that the file is missing.
            barrier()
            if rank() == 0:
                self._write(result)
        barrier()
        result = read_calibration(self.file)
        self._track(result)
        return result

    def _given(self) -> dict[str, Any]:
        return {"threshold": self.threshold, "reason": "given"}

    @torch.inference_mode()
    def _chosen(self) -> dict[str, Any]:
        plain = unwrap(self.network).to(self.device).eval()

        def of_batch(batch: dict[str, Any]) -> list[Tensor]:
            images = batch["image"].to(self.device).contiguous(memory_format=torch.channels_last)
            values = (tumour_probability(plain(images)) * 255).round().long().cpu()
            return [torch.bincount(image.flatten(), minlength=256) for image in values]

        histograms = over_dataset(self.dataset, of_batch, self.batch_size, self.num_workers, "calibration")
        return image_threshold(histograms, [label_of(record) for record in self.dataset.data])

    def _write(self, result: dict[str, Any]) -> None:
        with atomic_path(self.file) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n")
        logger.info(f"calibration: threshold {result['threshold']:.4f} ({result['reason']}); {self.file}")

    def _track(self, result: dict[str, Any]) -> None:
        if self.tracking is not None:
            names = ("threshold", "balanced_accuracy", "balanced_accuracy_at_half")
            logged = {name: result[name] for name in names if result.get(name) is not None}
            self.tracking.log_stage("calibration", logged, [self.file])
            self.tracking.finish_stage("calibration")


def image_threshold(histograms: Sequence[Tensor], labels: Sequence[int]) -> dict[str, Any]:
    """The threshold that separates pixels of normal images from those of tumour images best, see `ImageCalibration`.

    Args:
        histograms: of each image's pixels by their probability in steps of 1/255, ``(256,)``.
        labels: of the images, 0 or above.

    Returns:
        what `ImageCalibration` writes.
    """
    counts = [sum(label <= 0 for label in labels), sum(label > 0 for label in labels)]
    result = {"num_normal_images": counts[0], "num_tumour_images": counts[1]}
    default = {"threshold": DEFAULT_THRESHOLD, "balanced_accuracy": None, "balanced_accuracy_at_half": None}
    if min(counts) < MIN_IMAGES:
        reason = (
            f"0.5, because the validation split has {counts[1]} tumour and {counts[0]} normal images, and a threshold is only "
            f"chosen with at least {MIN_IMAGES} of each"
        )
        return default | {"reason": reason} | result
    threshold = map_threshold(histograms, labels, 1.0)
    gain, error = _gain_on_others(histograms, labels)
    reason = f"{threshold:.3f}, which gains {gain:.4f} (standard error {error:.4f}) on images on which it was not chosen"
    shares = {level: _shares(histograms, level) for level in (threshold, DEFAULT_THRESHOLD)}
    if not _is_clear(gain, error):
        reason = f"0.5, because it is as good as {reason}"
        threshold = DEFAULT_THRESHOLD
    elif threshold < DEFAULT_THRESHOLD and _is_clear(*_difference(shares[DEFAULT_THRESHOLD], labels)):
        reason = f"0.5, because labels do not show whether a lower one adds tumour or the normal tissue beside it; not {reason}"
        threshold = DEFAULT_THRESHOLD
    accuracies = {level: (1 + _difference(shares[level], labels)[0]) / 2 for level in shares}
    return {
        "threshold": threshold,
        "reason": reason,
        "balanced_accuracy": accuracies[threshold],
        "balanced_accuracy_at_half": accuracies[DEFAULT_THRESHOLD],
    } | result


def _gain_on_others(histograms: Sequence[Tensor], labels: Sequence[int]) -> tuple[float, float]:
    """By how much sensitivity + specificity of fold after fold is larger at the other folds' threshold than at 0.5; its error."""
    is_tumour = torch.tensor([label > 0 for label in labels])
    # In turn within each class, so that every fold has both.
    turns = torch.where(is_tumour, is_tumour.cumsum(0), (~is_tumour).cumsum(0))
    gains = torch.zeros(len(labels), dtype=torch.float64)
    for fold in range(NUM_FOLDS):
        kept, left = ((turns % NUM_FOLDS == fold) == is_left for is_left in (False, True))
        others = kept.nonzero()[:, 0].tolist()
        threshold = map_threshold([histograms[index] for index in others], [labels[index] for index in others], 1.0)
        gains[left] = (_shares(histograms, threshold) - _shares(histograms, DEFAULT_THRESHOLD))[left]
    return _difference(gains, labels)


def _difference(values: Tensor, labels: Sequence[int]) -> tuple[float, float]:
    """By how much the mean of tumour images is above that of normal ones, and its standard error."""
    is_tumour = torch.tensor([label > 0 for label in labels])
    parts = values[is_tumour], values[~is_tumour]
    error = math.sqrt(sum(float(part.var()) / len(part) for part in parts))
    return float(parts[0].mean() - parts[1].mean()), error


def _is_clear(difference: float, error: float) -> bool:
    return difference > 2 * error


def _shares(histograms: Sequence[Tensor], threshold: float) -> Tensor:
    """The share of each image's pixels that are tumour at a threshold, float64 ``(num_images,)``."""
    least = math.ceil(255 * threshold - 1e-9)
    return torch.stack([part[least:].sum().double() / part.sum() for part in histograms])
