"""F-measure of regions, image by image, as in the tables of CDWS-MIL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.metric import MetricUsage, reinit__is_reduced, sync_all_reduce
from monai.utils import convert_to_tensor
from torch import Tensor

from .binary import binary_counts

__all__ = ["MeanRegionF", "region_f_measure", "region_f_of_counts"]


def region_f_measure(prediction: Tensor, target: Tensor, label: Tensor | int) -> Tensor:
    """F-measure of the predicted region H against the true region G, ``2 |H & G| / (|H| + |G|)``.

    Of an image with tumour (label 1) H is what is predicted tumour and G the tumour. Of one without (label 0) H is what is
    predicted normal and G the whole image, whatever `target` says: a share f of normal pixels gives ``2 f / (1 + f)``.

    Args:
        prediction: decisions 0 or 1, bool, integer or float: ``(H, W)`` of one image, ``(B, H, W)`` or ``(B, 1, H, W)``.
        target: true tumour 0 or 1, same shape.
        label: 0 or 1 of the image; ``(B,)`` of a batch.

    Returns:
        float64 in [0, 1], ``()`` or ``(B,)``; 0 where H is empty.

    Raises:
        ValueError: if the shapes do not fit or a value is neither 0 nor 1.

    Reference:
        Jia et al., IEEE TMI 2017, section V.B.3.

    >>> prediction = torch.tensor([[[1, 1, 0, 0]], [[1, 1, 0, 0]]])
    >>> region_f_measure(prediction, torch.tensor([[[1, 0, 0, 0]], [[0, 0, 0, 0]]]), torch.tensor([1, 0]))
    tensor([0.6667, 0.6667], dtype=torch.float64)
    """
    label = torch.as_tensor(label, device=prediction.device)
    is_batch = prediction.ndim == 3 or (prediction.ndim == 4 and prediction.shape[1] == 1)
    if not is_batch and prediction.ndim != 2:
        raise ValueError(f"prediction must be (H, W), (B, H, W) or (B, 1, H, W); got {tuple(prediction.shape)}")
    if label.shape != prediction.shape[: int(is_batch)]:
        raise ValueError(f"label must be {tuple(prediction.shape[: int(is_batch)])}, one per image; got {tuple(label.shape)}")
    if ((label != 0) & (label != 1)).any():
        raise ValueError(f"label must be 0 or 1; got {label.tolist()}")
    return region_f_of_counts(binary_counts(prediction, target, dim=tuple(range(int(is_batch), prediction.ndim))), label)


def region_f_of_counts(counts: Tensor, label: Tensor) -> Tensor:
    """Like `region_f_measure`, from pixel counts.

    Args:
        counts: tp, fp, fn, tn, ``(..., 4)``.
        label: 0 or 1 of the images, ``(...,)``.

    Returns:
        float64 ``(...,)`` in [0, 1].
    """
    tp, fp, fn, tn = counts.double().unbind(dim=-1)
    is_tumour = label == 1
    hits = torch.where(is_tumour, tp, tn + fn)
    size_h = torch.where(is_tumour, tp + fp, tn + fn)
    size_g = torch.where(is_tumour, tp + fn, tp + fp + fn + tn)
    return 2 * hits / (size_h + size_g).clamp(min=1)


class MeanRegionF(Metric):
    """Mean of `region_f_measure` over the images of a validation run and all ranks.

    Attached as ``val_region_f``, it gives ``val_region_f`` over all images, ``val_region_f_ca`` over those with tumour and
    ``val_region_f_nc`` over those without; NaN where there is no such image.

    Args:
        threshold: a probability of at least this much is tumour.
        output_transform: from ``engine.state.output`` to (probabilities, targets, labels).
        device: where the sums are kept between iterations.

    >>> metric = MeanRegionF()
    >>> metric.update((torch.tensor([[[0.9, 0.5, 0.1]], [[0.9, 0.2, 0.1]]]), torch.zeros(2, 1, 3), torch.tensor([1, 0])))
    >>> {name: round(f, 3) for name, f in metric.compute().items()}
    {'': 0.4, '_ca': 0.0, '_nc': 0.8}
    """

    def __init__(
        self,
        threshold: float = 0.5,
        output_transform: Callable = lambda output: output,
        device: str | torch.device = "cpu",
    ) -> None:
        self.threshold = threshold
        super().__init__(output_transform=output_transform, device=device)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all images."""
        # Sum of F, number of images: of label 0, of label 1.
        self._sums = torch.zeros(2, 2, dtype=torch.float64, device=self._device)

    @reinit__is_reduced
    def update(self, output: Sequence[Any]) -> None:
        """Score one batch.

        Args:
            output: probabilities and targets ``(B, H, W)`` or ``(B, 1, H, W)``, labels ``(B,)``.

        Raises:
            ValueError: as `region_f_measure`.
        """
        probabilities, target, label = (convert_to_tensor(values, track_meta=False) for values in output)
        f = region_f_measure(probabilities >= self.threshold, target.to(probabilities.device), label)
        scored = torch.stack([f, torch.ones_like(f)], dim=1).to(self._device)
        self._sums.index_add_(0, label.long().to(self._device), scored)

    @sync_all_reduce("_sums")
    def compute(self) -> dict[str, float]:
        """The means by the ending of their name: ``""`` (all images), ``"_ca"`` and ``"_nc"``, over all ranks.

        Raises:
            NotComputableError: if no image was scored.
        """
        if not self._sums[:, 1].any():
            raise NotComputableError("MeanRegionF needs at least one update before compute; got none")
        sums = {"": self._sums.sum(0), "_ca": self._sums[1], "_nc": self._sums[0]}
        return {ending: (total / count).item() for ending, (total, count) in sums.items()}

    def attach(self, engine: Engine, name: str, usage: str | MetricUsage = "epoch_wise") -> None:
        """Attach as ``<name>``, ``<name>_ca`` and ``<name>_nc``."""
        super().attach(engine, name, usage)

    def completed(self, engine: Engine, name: str) -> None:
        """Write the three means."""
        for ending, value in self.compute().items():
            engine.state.metrics[f"{name}{ending}"] = value
