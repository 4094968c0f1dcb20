"""Calibration error and temperature by hand, against loops, and on logits whose truth is drawn from them."""

import math

import numpy as np
import pytest
import torch

from shared.metrics import (
    LOGIT_LEVELS,
    fit_temperature,
    fit_temperature_of_logits,
    logit_histograms,
    nll_of_histograms,
    reliability_of_histograms,
    reliability_of_logits,
    reliability_of_map_histograms,
    score_histograms,
)


def drawn(scale, num=40000, seed=0):
    """Logits that are `scale` times those of the coins that the truth was drawn with."""
    generator = torch.Generator().manual_seed(seed)
    true_logits = 2 * torch.randn(num, generator=generator)
    return scale * true_logits, torch.bernoulli(true_logits.sigmoid(), generator=generator)


def expected_error(logits, truth):
    """The calibration error of single logits, in a loop over 15 bins."""
    gap = 0.0
    probability, hits = logits.sigmoid().numpy(), truth.numpy()
    for low in np.arange(15) / 15:
        inside = (probability >= low) & ((probability < low + 1 / 15) | (low == 14 / 15))
        gap += abs(probability[inside].sum() - hits[inside].sum()) / len(hits)
    return gap


def test_curve_by_hand():
    # 0.1 twice, none is 1; 0.9 four times, three are 1: gaps of 0.1 and 0.15.
    probability = torch.tensor([0.1, 0.1, 0.9, 0.9, 0.9, 0.9])
    curve = reliability_of_histograms(logit_histograms(probability.logit(), torch.tensor([0.0, 0, 1, 1, 1, 0])), num_bins=5)
    assert curve.counts.tolist() == [2, 0, 0, 0, 4]
    assert curve.confidence[[0, 4]].tolist() == pytest.approx([0.1, 0.9], abs=1e-3)
    assert curve.frequency[[0, 4]].tolist() == [0, 0.75]
    assert curve.confidence[1:4].isnan().all()
    assert curve.ece == pytest.approx((2 * 0.1 + 4 * 0.15) / 6, abs=1e-3)
    assert curve.mce == pytest.approx(0.15, abs=1e-3)
    nll = -(2 * math.log(0.9) + 3 * math.log(0.9) + math.log(0.1)) / 6
    assert curve.nll == pytest.approx(nll, abs=1e-3)
    assert curve.scores() == {"ece": curve.ece, "mce": curve.mce, "nll": curve.nll}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_histograms_say_what_the_logits_do(temperature):
    logits, truth = drawn(1.5, num=5000)
    histograms = logit_histograms(logits, truth)
    scaled = logits / temperature
    expected = torch.nn.functional.binary_cross_entropy_with_logits(scaled, truth)
    assert nll_of_histograms(histograms, temperature) == pytest.approx(expected.item(), abs=1e-3)
    assert reliability_of_histograms(histograms, temperature).ece == pytest.approx(expected_error(scaled, truth), abs=2e-3)


def test_parts_add_up_to_the_whole():
    logits, truth = drawn(1.0, num=1000)
    parts = sum(logit_histograms(*part) for part in zip(logits.split(300), truth.split(300), strict=True))
    assert torch.equal(parts, logit_histograms(logits, truth))


def test_shares_count_as_so_many_pixels():
    """A logit over four pixels, one of them tumour, against four logits."""
    one = logit_histograms(torch.tensor([[0.3]]), torch.tensor([[0.25]]))
    four = logit_histograms(torch.full((2, 2), 0.3), torch.tensor([[0.0, 1], [0, 0]]))
    torch.testing.assert_close(4 * one, four)


@pytest.mark.parametrize("temperature", [1.0, 3.0, 100.0])
def test_levels_are_near_whatever_the_temperature(temperature):
    logits = torch.cat([torch.linspace(-30, 30, 999), torch.linspace(-3000, 3000, 9999)]).sort().values
    histogram = logit_histograms(logits, torch.ones(len(logits)))[1]
    counted = torch.repeat_interleave(LOGIT_LEVELS, histogram.long())
    assert ((counted / temperature).sigmoid() - (logits.double() / temperature).sigmoid()).abs().max() < 1 / 1024
    inside = logits.abs() <= 24
    assert (counted - logits)[inside].abs().max() <= 1 / 256 + 1e-6


def test_every_number_has_its_level():
    """Also the largest of float32, and none is nearer than the one that it is counted at."""
    largest = torch.finfo(torch.float32).max
    logits = torch.tensor([0.0, 24.05, -24.05, 191.7, -191.7, 1e6, largest, -largest])
    for logit in logits:
        (index,) = logit_histograms(logit[None], torch.ones(1))[1].nonzero()[0]
        assert index == (LOGIT_LEVELS - logit.double()).abs().argmin()
    assert len(LOGIT_LEVELS) * 16 < 2**19, "the two histograms stay below half a megabyte"


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_the_temperature_is_found(scale):
    logits, truth = drawn(scale)
    histograms = logit_histograms(logits, truth)
    temperature = fit_temperature(histograms)
    assert temperature == pytest.approx(scale, rel=0.05)
    assert reliability_of_histograms(histograms, temperature).ece < 0.01
    # No neighbour is better.
    best = nll_of_histograms(histograms, temperature)
    assert all(nll_of_histograms(histograms, temperature * factor) > best for factor in (0.9, 1.1))


@pytest.mark.parametrize("scale", [9.0, 14.0, 25.0, 90.0])
def test_the_temperature_of_a_very_sure_network(scale):
    """Up to nine logits in ten are beyond 24, where probabilities of float32 are 0 or 1."""
    logits, truth = drawn(scale)
    histograms = logit_histograms(logits, truth)
    temperature = fit_temperature(histograms)
    both = torch.stack([torch.zeros_like(logits), logits], dim=1)
    one_hot = torch.stack([1 - truth, truth], dim=1)
    assert temperature == pytest.approx(fit_temperature_of_logits(both, one_hot), rel=1e-3)
    for value in (1.0, temperature):
        found, scaled = reliability_of_histograms(histograms, value), logits.double() / value
        expected = torch.nn.functional.binary_cross_entropy_with_logits(scaled, truth.double())
        assert found.nll == pytest.approx(expected.item(), rel=2e-3)
        assert found.ece == pytest.approx(expected_error(scaled, truth), abs=2e-3)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_the_temperature_of_several_classes(scale):
    generator = torch.Generator().manual_seed(0)
    true_logits = 2 * torch.randn(30000, 4, generator=generator)
    classes = true_logits.softmax(1).multinomial(1, generator=generator)[:, 0]
    one_hot = torch.nn.functional.one_hot(classes, 4)
    logits = scale * true_logits
    temperature = fit_temperature_of_logits(logits, one_hot)
    assert temperature == pytest.approx(scale, rel=0.05)
    before, after = (reliability_of_logits(logits, one_hot, value) for value in (1.0, temperature))
    assert after.ece < 0.01 < 0.1 < before.ece
    assert after.nll == pytest.approx(torch.nn.functional.cross_entropy(logits / temperature, classes).item(), rel=1e-5)
    accuracy = (logits.argmax(1) == classes).float().mean()
    frequency = (after.frequency.nan_to_num() * after.counts).sum() / after.counts.sum()
    assert frequency.item() == pytest.approx(accuracy.item())


def test_two_classes_are_the_sigmoid():
    logits, truth = drawn(2.0, num=4000)
    both = torch.stack([torch.zeros_like(logits), logits], dim=1)
    expected = fit_temperature_of_logits(both, torch.stack([1 - truth, truth], dim=1))
    assert fit_temperature(logit_histograms(logits, truth)) == pytest.approx(expected, rel=1e-3)


def test_what_is_separated_gets_the_smallest_temperature():
    histograms = logit_histograms(torch.tensor([-1.0, 1.0]), torch.tensor([0.0, 1.0]))
    assert fit_temperature(histograms) < 0.1
    assert fit_temperature(histograms.flip(0)) == pytest.approx(100, rel=0.01)


def test_maps_by_hand():
    # Of 51 (a fifth) one pixel in four is tumour, of 255 all three are, of 0 one of two.
    histograms = torch.zeros(2, 256, dtype=torch.int64)
    histograms[:, 51] = torch.tensor([3, 1])
    histograms[:, 255] = torch.tensor([0, 3])
    histograms[:, 0] = torch.tensor([1, 1])
    curve = reliability_of_map_histograms(histograms, num_bins=5)
    assert curve.counts.tolist() == [2, 4, 0, 0, 3]
    assert curve.confidence[[0, 1, 4]].tolist() == pytest.approx([0, 0.2, 1])
    assert curve.frequency[[0, 1, 4]].tolist() == pytest.approx([0.5, 0.25, 1])
    assert curve.ece == pytest.approx((2 * 0.5 + 4 * 0.05) / 9)
    sure = 0.25 / 255
    nll = -(3 * math.log(0.8) + math.log(0.2) + 3 * math.log(1 - sure) + math.log(sure) + math.log(1 - sure)) / 9
    assert curve.nll == pytest.approx(nll)


def test_maps_say_what_their_logits_do():
    values = torch.randint(1, 255, (5000,), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    truth = torch.bernoulli(values / 255, generator=torch.Generator().manual_seed(1))
    found = reliability_of_map_histograms(score_histograms(values, truth), num_bins=10)
    expected = reliability_of_histograms(logit_histograms((values.double() / 255).logit(), truth), num_bins=10)
    assert found.nll == pytest.approx(expected.nll, abs=1e-3)
    # A value at the edge of a bin may be counted on its other side.
    assert found.ece == pytest.approx(expected.ece, abs=2e-3)


def test_says_what_is_wrong():
    for histograms, num_bins in ((torch.ones(2, 255), 15), (torch.zeros(2, 256), 15), (torch.ones(2, 256), 0)):
        with pytest.raises(ValueError, match=r"need counts \(2, 256\)"):
            reliability_of_map_histograms(histograms, num_bins)
    with pytest.raises(ValueError, match=r"shares must be \(2,\)"):
        logit_histograms(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="finite; got 1 that are not"):
        logit_histograms(torch.tensor([0.0, math.nan]), torch.zeros(2))
    with pytest.raises(ValueError, match=r"in \[0, 1\]; got 0.0 to 2.0"):
        logit_histograms(torch.zeros(2), torch.tensor([0.0, 2.0]))
    with pytest.raises(ValueError, match="positives and negatives; got 0 and 2"):
        fit_temperature(logit_histograms(torch.zeros(2), torch.zeros(2)))
    with pytest.raises(ValueError, match="the histograms are empty"):
        nll_of_histograms(torch.zeros(2, len(LOGIT_LEVELS)))
    with pytest.raises(ValueError, match="temperature=0"):
        nll_of_histograms(torch.ones(2, len(LOGIT_LEVELS)), 0)
    with pytest.raises(ValueError, match=rf"must be \(2, {len(LOGIT_LEVELS)}\)"):
        reliability_of_histograms(torch.ones(2, 256))
    with pytest.raises(ValueError, match=r"\(N, C\)"):
        fit_temperature_of_logits(torch.zeros(0, 3), torch.zeros(0, 3))
