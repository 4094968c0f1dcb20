"""The samples to which a temperature is fitted: logits of pixels or images with their truth, kept in bounded memory."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from ..losses.power_mean import image_cross_entropy, log_generalized_mean
from ..metrics.calibration_error import (
    LARGEST_TEMPERATURE,
    LOGIT_LEVELS,
    Reliability,
    fit_temperature,
    fit_temperature_of_logits,
    logit_histograms,
    reliability_of_histograms,
    reliability_of_logits,
)
from ..networks.probabilities import to_map_pixels


class TumourPixels:
    """Every pixel's tumour logit, in two histograms: memory does not grow with the images."""

    quantity = "tumour (pixels)"

    def __init__(self) -> None:
        self.histograms = torch.zeros(2, len(LOGIT_LEVELS), dtype=torch.float64)

    def add(self, logits: Tensor, mask: Tensor) -> None:
        """Logits ``(C, h, w)``, C = 1 or 2, of an image with the mask ``(H, W)`` 0 or 1; a coarse logit counts by shares."""
        shares = to_map_pixels(mask[None, None].float(), (logits.shape[1], logits.shape[2]))[0, 0]
        self.histograms += logit_histograms(tumour_logit(logits), shares)

    def fit(self) -> float:
        return fit_temperature(self.histograms)

    def reliability(self, temperature: float) -> Reliability:
        return reliability_of_histograms(self.histograms, temperature)


class ClassPixels:
    """Logits of several classes at pixels that are drawn from every image.

    Args:
        pixels_per_image: drawn without replacement; all where there are fewer.
        seed: of the draw.
    """

    quantity = "the likeliest class (pixels)"

    def __init__(self, pixels_per_image: int, seed: int = 0) -> None:
        self.pixels_per_image, self._random = pixels_per_image, np.random.default_rng(seed)
        self._logits: list[Tensor] = []
        self._shares: list[Tensor] = []

    def add(self, logits: Tensor, mask: Tensor) -> None:
        """Logits ``(C, h, w)`` of an image with the class indices ``(H, W)``."""
        one_hot = F.one_hot(mask.long(), len(logits)).permute(2, 0, 1)[None].float()
        shares = to_map_pixels(one_hot, (logits.shape[1], logits.shape[2]))[0].flatten(1).T
        drawn = self._random.permutation(len(shares))[: self.pixels_per_image]
        self._logits.append(logits.flatten(1).T[drawn].float().cpu())
        self._shares.append(shares[drawn].cpu())

    def fit(self) -> float:
        return fit_temperature_of_logits(*self._pooled())

    def reliability(self, temperature: float) -> Reliability:
        return reliability_of_logits(*self._pooled(), temperature)

    def _pooled(self) -> tuple[Tensor, Tensor]:
        if not self._logits:
            raise ValueError("there is no image with pixel labels")
        return torch.cat(self._logits), torch.cat(self._shares)


class ImageLabels:
    """Every image's histogram of tumour logits and its label: an image's probability is the generalised mean of its pixels'.

    Args:
        r: sharpness of the generalised mean.
    """

    quantity = "tumour (images)"

    def __init__(self, r: float = 4.0) -> None:
        self.r = r
        # Of each image the levels that occur, which are few of all, and how often.
        self._levels: list[Tensor] = []
        self._counts: list[Tensor] = []
        self._labels: list[int] = []

    def add(self, logits: Tensor, label: int) -> None:
        """Logits ``(C, h, w)``, C = 1 or 2, of an image with this label."""
        values = tumour_logit(logits)
        histogram = logit_histograms(values, torch.ones_like(values))[1]
        levels = histogram.nonzero()[:, 0]
        self._levels.append(levels.int())
        self._counts.append(histogram[levels].float())
        self._labels.append(int(label > 0))

    def fit(self) -> float:
        if len(set(self._labels)) < 2:
            raise ValueError(f"a temperature needs images with tumour and without; got {len(self._labels)}, all of one label")
        labels, bound = torch.tensor(self._labels), math.log(LARGEST_TEMPERATURE)

        def nll(log_temperature: float) -> float:
            return float(image_cross_entropy(self._log_probabilities(math.exp(log_temperature)), labels))

        found = minimize_scalar(nll, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-5})
        return math.exp(float(found.x))

    def reliability(self, temperature: float) -> Reliability:
        log_probability = self._log_probabilities(temperature).clamp(max=-torch.finfo(torch.float64).tiny)
        logits = (log_probability - (-log_probability.expm1()).log()).clamp(LOGIT_LEVELS[0], LOGIT_LEVELS[-1])
        return reliability_of_histograms(logit_histograms(logits, torch.tensor(self._labels).double()))

    def _log_probabilities(self, temperature: float) -> Tensor:
        log_levels = F.logsigmoid(LOGIT_LEVELS / temperature)
        found = zip(self._levels, self._counts, strict=True)
        each = [log_generalized_mean(log_levels[levels][None], self.r, counts[None].double()) for levels, counts in found]
        return torch.cat(each)


LogitSamples = TumourPixels | ClassPixels | ImageLabels


def tumour_logit(logits: Tensor) -> Tensor:
    """Logit of tumour ``(h, w)`` of a network's ``(1, h, w)`` or ``(2, h, w)``.

    Raises:
        ValueError: for another number of channels.
    """
    if len(logits) not in (1, 2):
        raise ValueError(f"logits of tumour must have one or two channels, got {len(logits)}")
    return logits[0] if len(logits) == 1 else logits[1] - logits[0]
