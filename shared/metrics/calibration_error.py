"""How far probabilities are from frequencies, and the temperature that brings them nearest, of pooled histograms of logits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "LOGIT_LEVELS",
    "Reliability",
    "fit_temperature",
    "fit_temperature_of_logits",
    "logit_histograms",
    "nll_of_histograms",
    "reliability_of_histograms",
    "reliability_of_logits",
    "reliability_of_map_histograms",
]

# A logit is counted at the nearest of these: even steps to 24, even ratios beyond, as a temperature may bring any logit near 0.
# A probability moves by 1/1024 at most, whatever the temperature from 1 on. The last ones are beyond all numbers of float32.
_EVEN_TO, _STEPS_PER_LOGIT, _RATIO = 24.0, 128, 1 + 1 / 128
_NUM_RATIOS = math.ceil(math.log(torch.finfo(torch.float32).max / _EVEN_TO) / math.log(_RATIO))
_BEYOND = _EVEN_TO * _RATIO ** torch.arange(1, _NUM_RATIOS + 1, dtype=torch.float64)
_EVEN = torch.linspace(-_EVEN_TO, _EVEN_TO, round(2 * _EVEN_TO * _STEPS_PER_LOGIT) + 1, dtype=torch.float64)
LOGIT_LEVELS = torch.cat([-_BEYOND.flip(0), _EVEN, _BEYOND])
LARGEST_TEMPERATURE = 100.0


@dataclass(frozen=True)
class Reliability:
    """A reliability curve: predicted probabilities against observed frequencies, in bins of equal width.

    Args:
        counts: of samples (or pixels) in each bin, ``(num_bins,)``, float64.
        confidence: mean probability in each bin; NaN where it is empty.
        frequency: share of samples for which the statement holds; NaN where the bin is empty.
        nll: mean negative log likelihood of all samples.
    """

    counts: Tensor
    confidence: Tensor
    frequency: Tensor
    nll: float

    @property
    def ece(self) -> float:
        """Expected calibration error: mean gap of the bins, weighted by their samples, in [0, 1]."""
        return float((self.counts * (self.confidence - self.frequency).abs().nan_to_num()).sum() / self.counts.sum())

    @property
    def mce(self) -> float:
        """Largest gap of a bin that is not empty."""
        return float((self.confidence - self.frequency).abs().nan_to_num().max())

    def scores(self) -> dict[str, float]:
        """``ece``, ``mce`` and ``nll``."""
        return {"ece": self.ece, "mce": self.mce, "nll": self.nll}


def logit_histograms(logits: Tensor, shares: Tensor) -> Tensor:
    """How often each of `LOGIT_LEVELS` occurs among the negatives and among the positives. Sums pool in constant memory.

    Args:
        logits: finite, any shape.
        shares: of positives at each logit, same shape, 0 to 1: 0 or 1 of a pixel, between for one that stands for several.

    Returns:
        float64 ``(2, num_levels)``: counts of the negatives, then of the positives.

    Raises:
        ValueError: if the shapes differ, a logit is not finite, or a share is not in [0, 1].

    >>> logit_histograms(torch.tensor([0.0, 0.0, 99.0]), torch.tensor([0.0, 0.25, 1.0])).sum(dim=1)
    tensor([1.7500, 1.2500], dtype=torch.float64)
    """
    if logits.shape != shares.shape:
        raise ValueError(f"shares must be {tuple(logits.shape)} like the logits; got {tuple(shares.shape)}")
    values, weights = logits.detach().double().flatten().cpu(), shares.double().flatten().cpu()
    if not values.isfinite().all():
        raise ValueError(f"logits must be finite; got {int((~values.isfinite()).sum())} that are not")
    if len(weights) and not 0 <= weights.min() <= weights.max() <= 1:
        raise ValueError(f"shares must be in [0, 1]; got {weights.min().item()} to {weights.max().item()}")
    levels = _level(values)
    return torch.stack([torch.bincount(levels, weights=part, minlength=len(LOGIT_LEVELS)) for part in (1 - weights, weights)])


def nll_of_histograms(histograms: Tensor, temperature: float = 1.0) -> float:
    """Mean negative log likelihood of what `logit_histograms` counts, of logits divided by a temperature.

    Raises:
        ValueError: if the shape is another, nothing is counted, or the temperature is not positive.

    >>> round(nll_of_histograms(logit_histograms(torch.zeros(4), torch.tensor([0.0, 1.0, 1.0, 1.0]))), 4)
    0.6931
    """
    _check(histograms, temperature)
    logits = LOGIT_LEVELS / temperature
    return float((histograms[0] * F.softplus(logits) + histograms[1] * F.softplus(-logits)).sum() / histograms.sum())


def fit_temperature(histograms: Tensor) -> float:
    """The temperature by which logits are to be divided for the smallest negative log likelihood.

    It is convex in the temperature's inverse, so that there is one minimum; it lies above 1 where a network is too sure. Ranks,
    and decisions at a probability of 0.5, stay as they are.

    Args:
        histograms: see `logit_histograms`, of validation data.

    Returns:
        in [1 / 100, 100]; at an end where sharper or flatter is always better, such as of classes that a network separates.

    Raises:
        ValueError: if the shape is another or there are not both positives and negatives.

    Reference:
        Guo et al., On calibration of modern neural networks, ICML 2017, section 4.
    """
    _check(histograms, 1.0)
    negatives, positives = histograms.sum(dim=1).tolist()
    if not negatives or not positives:
        raise ValueError(f"a temperature needs positives and negatives; got {positives:g} and {negatives:g}")
    return _minimum(lambda temperature: nll_of_histograms(histograms, temperature))


def reliability_of_histograms(histograms: Tensor, temperature: float = 1.0, num_bins: int = 15) -> Reliability:
    """The reliability curve of the probability of the positive class.

    Args:
        histograms: see `logit_histograms`.
        temperature: by which logits are divided.
        num_bins: of probability, of equal width.

    Raises:
        ValueError: if the shape is another, nothing is counted, or a number is not positive.
    """
    _check(histograms, temperature, num_bins)
    probability = (LOGIT_LEVELS / temperature).sigmoid()
    return _reliability(probability, histograms.sum(0), histograms[1], num_bins, nll_of_histograms(histograms, temperature))


def reliability_of_map_histograms(histograms: Tensor, num_bins: int = 15) -> Reliability:
    """The reliability curve of maps: of the tumour probability that their pixels hold.

    Args:
        histograms: counts of each value 0 to 255 (255 being probability 1) of normal and of tumour pixels, ``(2, 256)``, see
            `shared.metrics.ranking.score_histograms`.
        num_bins: of probability, of equal width.

    Returns:
        the curve; in its ``nll`` a pixel of 0 or 255 counts as a quarter of a value inside, where rounding would have left it.

    Raises:
        ValueError: if the shape is another, nothing is counted, or `num_bins` is not positive.
    """
    if histograms.shape != (2, 256) or not histograms.sum() > 0 or num_bins < 1:
        raise ValueError(
            f"need counts (2, 256) of normal and tumour pixels, not all 0, and at least one bin; got {tuple(histograms.shape)}, "
            f"{histograms.sum():g} pixels, {num_bins} bins"
        )
    counts = histograms.double()
    values = torch.arange(256, dtype=torch.float64)
    inner = values.clamp(0.25, 254.75) / 255
    nll = -(counts[0] * (1 - inner).log() + counts[1] * inner.log()).sum() / counts.sum()
    return _reliability(values / 255, counts.sum(0), counts[1], num_bins, float(nll))


def fit_temperature_of_logits(logits: Tensor, shares: Tensor) -> float:
    """Like `fit_temperature`, for the softmax over several classes.

    Args:
        logits: ``(N, C)``.
        shares: of each class, ``(N, C)``, 0 to 1, that sum up to 1: one-hot where a pixel has one class.

    Raises:
        ValueError: if the shapes differ or there is no sample.
    """
    _check_logits(logits, shares)
    return _minimum(lambda temperature: _nll_of_logits(logits, shares, temperature))


def reliability_of_logits(logits: Tensor, shares: Tensor, temperature: float = 1.0, num_bins: int = 15) -> Reliability:
    """The reliability curve of the likeliest class: how often it is the true one, against its probability.

    Args:
        logits: ``(N, C)``.
        shares: see `fit_temperature_of_logits`.
        temperature: by which logits are divided.
        num_bins: of probability, of equal width.

    Raises:
        ValueError: if the shapes differ or there is no sample.
    """
    _check_logits(logits, shares)
    confidence, chosen = (logits.double() / temperature).softmax(dim=1).max(dim=1)
    hits = shares.double().gather(1, chosen[:, None])[:, 0]
    return _reliability(confidence, torch.ones_like(hits), hits, num_bins, _nll_of_logits(logits, shares, temperature))


def _level(logits: Tensor) -> Tensor:
    """Index of the nearest of `LOGIT_LEVELS`."""
    sizes = logits.abs()
    even = (sizes.clamp(max=_EVEN_TO) * _STEPS_PER_LOGIT).round()
    ratios = ((sizes.clamp(min=_EVEN_TO) / _EVEN_TO).log() / math.log(_RATIO)).round().clamp(max=_NUM_RATIOS)
    return len(LOGIT_LEVELS) // 2 + (logits.sign() * (even + ratios)).long()


def _reliability(probability: Tensor, counts: Tensor, hits: Tensor, num_bins: int, nll: float) -> Reliability:
    bins = (probability * num_bins).long().clamp(0, num_bins - 1)
    sums = [torch.bincount(bins, weights=part, minlength=num_bins) for part in (counts, counts * probability, hits)]
    return Reliability(sums[0], sums[1] / sums[0], sums[2] / sums[0], nll)


def _nll_of_logits(logits: Tensor, shares: Tensor, temperature: float) -> float:
    return float(-(shares.double() * (logits.double() / temperature).log_softmax(dim=1)).sum(dim=1).mean())


def _minimum(nll: Callable[[float], float]) -> float:
    """The temperature of the smallest value, found over its logarithm, which spreads small and large ones alike."""
    bound = math.log(LARGEST_TEMPERATURE)
    found = minimize_scalar(lambda log: nll(math.exp(log)), bounds=(-bound, bound), method="bounded", options={"xatol": 1e-5})
    return math.exp(float(found.x))


def _check(histograms: Tensor, temperature: float, num_bins: int = 1) -> None:
    if histograms.shape != (2, len(LOGIT_LEVELS)):
        raise ValueError(f"histograms must be (2, {len(LOGIT_LEVELS)}): negatives, positives; got {tuple(histograms.shape)}")
    if not histograms.sum() > 0:
        raise ValueError("the histograms are empty")
    if not 0 < temperature < math.inf or num_bins < 1:
        raise ValueError(f"temperature and num_bins must be positive; got {temperature=}, {num_bins=}")


def _check_logits(logits: Tensor, shares: Tensor) -> None:
    if logits.ndim != 2 or logits.shape != shares.shape or len(logits) == 0:
        raise ValueError(f"logits and shares must be (N, C), N at least 1; got {tuple(logits.shape)}, {tuple(shares.shape)}")
