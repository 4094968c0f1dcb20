import math
from decimal import Decimal, localcontext
from itertools import pairwise

import pytest
import torch

from shared.losses import GeneralizedMeanLoss, generalized_mean, generalized_mean_loss, image_cross_entropy, log_generalized_mean
from shared.losses.tumour_images import tumour_images

# A logit per pixel, four pixels an image. At 30 the float64 of p itself has lost three digits of 1 - p.
SATURATED = [
    [30.0, 30.0, 30.0, 30.0],
    [30.0, 28.5, 29.0, 27.0],
    [80.0, 75.0, 70.0, 85.0],
    [30.0, 30.0, 30.0, -30.0],
    [12.0, 9.0, 15.0, 11.0],
    [2.0, 1.5, 3.0, 1.9],
    [0.0, 1.0, -1.0, 0.5],
    [-12.0, -9.0, -15.0, -11.0],
    [-30.0, -30.0, -30.0, -30.0],
    [30.0, -30.0, -30.0, -30.0],
    [-20.0, -19.0, -21.0, -18.5],
]


def exact_loss(logits, label, r=4):
    """Loss and gradient of one image, with 120 digits."""
    with localcontext() as context:
        context.prec = 120
        r, num_pixels = Decimal(r), len(logits)
        probabilities = [1 / (1 + (-Decimal(logit)).exp()) for logit in logits]
        mean = (sum(p**r for p in probabilities) / num_pixels) ** (1 / r)
        loss = -(mean if label else 1 - mean).ln()
        slope = -1 / mean if label else 1 / (1 - mean)
        # dY/dp_k = p_k^(r-1) Y^(1-r) / n and dp/dz = p (1 - p).
        gradient = [slope * p ** (r - 1) * mean ** (1 - r) / num_pixels * p * (1 - p) for p in probabilities]
        return float(loss), [float(value) for value in gradient]


def naive_loss(logits, labels, r):
    total = 0.0
    for image, label in zip(logits.flatten(1).tolist(), labels.tolist(), strict=True):
        powers = [(1 / (1 + math.exp(-logit))) ** r for logit in image]
        mean = (sum(powers) / len(powers)) ** (1 / r)
        total -= math.log(mean) if label else math.log(1 - mean)
    return total / len(labels)


@pytest.mark.parametrize("probability", [0.001, 0.25, 0.5, 0.9, 0.9999])
@pytest.mark.parametrize("r", [1, 2.5, 4, 16])
def test_mean_of_a_constant_is_the_constant(probability, r):
    logits = torch.full((2, 1, 5, 7), probability, dtype=torch.float64).logit()
    torch.testing.assert_close(generalized_mean(logits, r), torch.full((2,), probability, dtype=torch.float64))


def test_lies_between_mean_and_maximum():
    logits = 3 * torch.randn(20, 1, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    probabilities = logits.sigmoid().flatten(1)
    means = [generalized_mean(logits, r) for r in (1, 2, 4, 8, 200)]
    torch.testing.assert_close(means[0], probabilities.mean(1))
    for lower, higher in pairwise(means):
        assert (lower < higher).all()
    assert (means[-1] < probabilities.amax(1)).all()
    torch.testing.assert_close(means[-1], probabilities.amax(1), rtol=0.02, atol=0)


@pytest.mark.parametrize(("share", "expected"), [(0.1, 0.5623), (0.5, 0.8409), (0.01, 0.3162), (1.0, 1.0)])
def test_share_of_ones(share, expected):
    # Of a binary map Y = f^(1/4), whereas the mean's fourth root would give it for any map.
    logits = torch.full((1, 1, 10, 10), -99.0)
    logits.flatten()[: round(share * 100)] = 99.0
    assert generalized_mean(logits).item() == pytest.approx(share**0.25, abs=1e-6)
    assert generalized_mean(logits).item() == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("r", [1.0, 4.0, 7.3])
def test_gradient_by_hand(r):
    logits = torch.randn(1, 1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    mean = generalized_mean(logits, r)
    mean.sum().backward()
    with torch.no_grad():
        p = logits.sigmoid()
        expected = p ** (r - 1) * mean ** (1 - r) / p.numel() * p * (1 - p)
    torch.testing.assert_close(logits.grad, expected)


def test_value_by_hand():
    # Every p is 3/4, so Y = 3/4: -log(3/4) for label 1, -log(1/4) for label 0; the mean over three images.
    logits = torch.full((3, 1, 2, 2), math.log(3))
    loss = GeneralizedMeanLoss()(logits, torch.tensor([1, 0, 0]))
    assert loss.shape == ()
    assert loss.item() == pytest.approx((math.log(4 / 3) + 2 * math.log(4)) / 3, abs=1e-6)


@pytest.mark.parametrize("labels", [[0, 1, 1, 0, 1], [0] * 5, [1] * 5])
@pytest.mark.parametrize("r", [1.0, 4.0, 6.5])
def test_equals_a_loop(labels, r):
    logits = 2 * torch.randn(5, 1, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor(labels)
    loss = GeneralizedMeanLoss(r)(logits, labels)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(naive_loss(logits, labels, r), abs=1e-12)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("logits", SATURATED, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-11)], ids=["float32", "float64"])
def test_is_exact_where_the_network_is_sure(logits, label, dtype, tolerance):
    leaf = torch.tensor(logits, dtype=dtype).view(1, 1, 2, 2).requires_grad_()
    loss = generalized_mean_loss(leaf, torch.tensor([label]))
    loss.backward()
    expected_loss, expected_gradient = exact_loss(logits, label)
    # A gradient below the smallest normal number may round to 0.
    assert loss.item() == pytest.approx(expected_loss, rel=tolerance, abs=1e-37)
    assert leaf.grad.flatten().tolist() == pytest.approx(expected_gradient, rel=tolerance, abs=1e-37)


def test_negative_image_learns_at_every_saturation():
    # The gradient of a constant image of label 0 is p / n a pixel, whatever p.
    for logit in (0.0, 5.0, 17.0, 40.0, 86.0):
        logits = torch.full((1, 1, 2, 4), logit, requires_grad=True)
        generalized_mean_loss(logits, torch.tensor([0])).backward()
        torch.testing.assert_close(logits.grad, logits.detach().sigmoid() / 8, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("label", [0, 1])
def test_large_logits_stay_finite(dtype, label):
    for values in ([100.0] * 4, [-100.0] * 4, [100.0, -100.0, 0.0, 100.0], [1e4] * 4, [-1e4] * 4):
        logits = torch.tensor(values, dtype=dtype).view(1, 1, 2, 2).requires_grad_()
        loss = generalized_mean_loss(logits, torch.tensor([label]))
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()


def test_losses_of_large_logits():
    def loss(logit, label):
        return generalized_mean_loss(torch.full((1, 1, 3, 3), logit), torch.tensor([label])).item()

    assert loss(-100.0, 1) == pytest.approx(100, rel=1e-6)
    assert loss(100.0, 1) == pytest.approx(0, abs=1e-37)
    assert loss(-100.0, 0) == pytest.approx(0, abs=1e-37)
    # The end of float32: the logarithm of its smallest normal number.
    assert loss(100.0, 0) == pytest.approx(87.3365, abs=1e-3)


@pytest.mark.parametrize("shift", [0.0, 14.0], ids=["unsure", "saturated"])
def test_large_map_keeps_its_precision(shift):
    logits = torch.randn(1, 1, 3000, 3000, generator=torch.Generator().manual_seed(0)).mul_(2).add_(shift)
    log_powers = 4 * torch.nn.functional.logsigmoid(logits.double())
    complement = -torch.expm1(log_powers).mean()
    log_mean = torch.log1p(-complement) / 4
    logits.requires_grad_()
    for label, expected in ((1, -log_mean), (0, -torch.log(-torch.expm1(log_mean)))):
        loss = generalized_mean_loss(logits, torch.tensor([label]))
        assert loss.item() == pytest.approx(expected.item(), rel=2e-6)
    # Of label 0: dL/dz_k = Y^(1-r) p_k^r (1 - p_k) / (n (1 - Y)).
    loss.backward()
    part = slice(0, 50)
    p = logits.detach().double()[..., part, part].sigmoid()
    one_minus_p = (-logits.detach().double()[..., part, part]).sigmoid()
    expected = torch.exp(-3 * log_mean) * p**4 * one_minus_p / (9e6 * -torch.expm1(log_mean))
    torch.testing.assert_close(logits.grad[..., part, part].double(), expected, rtol=1e-5, atol=0)


def test_weights_count_instances():
    generator = torch.Generator().manual_seed(0)
    log_probabilities = torch.rand(3, 5, generator=generator, dtype=torch.float64).mul_(0.9).add_(0.1).log()
    # Some images below the share 1/2 and some above, which are computed in two ways.
    log_probabilities[1] /= 20
    weights = torch.randint(0, 4, (3, 5), generator=generator)
    weights[:, 2] = 3
    repeated = [image.repeat_interleave(times) for image, times in zip(log_probabilities, weights, strict=True)]
    expected = torch.cat([log_generalized_mean(image[None], r=3.0) for image in repeated])
    torch.testing.assert_close(log_generalized_mean(log_probabilities, r=3.0, weights=weights), expected)


@pytest.mark.parametrize("shift", [-2.0, 0.0, 2.0, 6.0])
def test_gradcheck(shift):
    logits = torch.randn(4, 1, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + shift
    labels = torch.tensor([0, 1, 1, 0])
    assert torch.autograd.gradcheck(lambda values: generalized_mean_loss(values, labels), logits.requires_grad_())


def test_gradcheck_with_weights():
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits[2] += 4
    weights = torch.tensor([[1, 2, 0, 1], [0, 0, 5, 1], [1, 1, 0, 1]])
    assert torch.autograd.gradcheck(
        lambda values: log_generalized_mean(torch.nn.functional.logsigmoid(values), 4.0, weights), logits.requires_grad_()
    )


def test_float32_of_half_logits_and_under_autocast():
    logits = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)).add(5).bfloat16()
    labels = torch.tensor([0, 1, 0])
    expected = generalized_mean_loss(logits.float(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = GeneralizedMeanLoss()(logits, labels)
        mean = generalized_mean(logits)
        double = GeneralizedMeanLoss()(logits.double(), labels)
    assert (loss.dtype, mean.dtype, double.dtype) == (torch.float32, torch.float32, torch.float64)
    assert loss == expected
    torch.testing.assert_close(double.float(), expected)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32, torch.float64])
def test_labels_of_any_type(dtype):
    log_probabilities = torch.tensor([0.2, 0.7]).log()
    loss = image_cross_entropy(log_probabilities, torch.tensor([0, 1]).to(dtype))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(-(math.log(0.8) + math.log(0.7)) / 2, abs=1e-6)


def test_nan_is_not_hidden():
    for label in (0, 1):
        logits = torch.tensor([0.0, math.nan]).view(1, 1, 1, 2)
        assert generalized_mean_loss(logits, torch.tensor([label])).isnan()


@pytest.mark.parametrize("r", [0, -1.0, math.nan, math.inf])
def test_rejects_an_r_that_is_no_positive_number(r):
    with pytest.raises(ValueError, match=f"r must be > 0 and finite; got {r}"):
        GeneralizedMeanLoss(r)
    with pytest.raises(ValueError, match=f"r must be > 0 and finite; got {r}"):
        generalized_mean(torch.zeros(1, 1, 2, 2), r)


def test_rejects_what_does_not_fit():
    loss = GeneralizedMeanLoss()
    with pytest.raises(ValueError, match=r"one instance; got \(3,\)"):
        generalized_mean(torch.zeros(3))
    with pytest.raises(ValueError, match=r"one instance; got \(2, 1, 0, 4\)"):
        loss(torch.zeros(2, 1, 0, 4), torch.zeros(2))
    with pytest.raises(ValueError, match=r"one image and one instance; got \(0, 1, 4, 4\)"):
        loss(torch.zeros(0, 1, 4, 4), torch.zeros(0))
    with pytest.raises(ValueError, match=r"weights must be \(2, 3\); got \(3,\)"):
        log_generalized_mean(torch.zeros(2, 3), weights=torch.ones(3))
    with pytest.raises(ValueError, match=r"labels must be \(2,\), one per image; got \(2, 1\)"):
        loss(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"labels must be 0 or 1; got 0\.5"):
        loss(torch.zeros(2, 1, 4, 4), torch.tensor([1.0, 0.5]))
    with pytest.raises(ValueError, match=r"\(B,\) with at least one image; got \(1, 1\)"):
        image_cross_entropy(torch.zeros(1, 1), torch.zeros(1))
    with pytest.raises(ValueError, match=r"\(B,\) with at least one image; got \(0,\)"):
        image_cross_entropy(torch.zeros(0), torch.zeros(0))
    with pytest.raises(ValueError, match="labels must be 0 or 1; got nan"):
        tumour_images(torch.tensor([math.nan]), num_images=1)
