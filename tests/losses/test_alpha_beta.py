import math

import pytest
import torch

from shared.losses import AlphaBetaLoss, alpha_beta_loss


def softplus(value):
    return math.log1p(math.exp(value))


def naive_loss(logits, label, alpha, beta):
    """In float64, tile by tile."""
    number = len(logits)
    ranked = sorted(range(number), key=lambda index: (-logits[index], index))
    if not label:
        terms = [softplus(logits[index]) for index in ranked]
    else:
        num_tumour, num_normal = math.floor(round(number * alpha, 6)), math.floor(round(number * beta, 6))
        terms = [softplus(-logits[index]) for index in ranked[:num_tumour]]
        terms += [softplus(logits[index]) for index in ranked[number - num_normal :]]
    return sum(terms) / len(terms)


def test_value_by_hand():
    # Tumour: 3 -> 1, and of the bottom half -2 -> 0 and 0.5 -> 0; 1 is left out.
    logits = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    expected = (math.log(1 + math.exp(-3)) + math.log(1 + math.exp(-2)) + math.log(1 + math.exp(0.5))) / 3
    assert alpha_beta_loss(logits, 1, alpha=0.25, beta=0.5).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize(("alpha", "beta"), [(0.2, 0.2), (0.2, 0.0), (1.0, 0.0), (0.2, 0.8)])
def test_equals_a_loop(label, alpha, beta):
    logits = 4 * torch.randn(30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loss = alpha_beta_loss(logits, label, alpha, beta)
    assert loss.item() == pytest.approx(naive_loss(logits.tolist(), label, alpha, beta), abs=1e-12)


def test_gradient_is_exactly_zero_where_masked_and_only_there():
    logits = torch.randn(150, requires_grad=True, generator=torch.Generator().manual_seed(0))
    alpha_beta_loss(logits, 1, alpha=0.2, beta=0.2).backward()
    order = logits.detach().argsort(descending=True)
    assert (logits.grad[order[:30]] < 0).all()
    assert (logits.grad[order[30:120]] == 0).all()
    assert (logits.grad[order[120:]] > 0).all()


def test_gradient_check():
    logits = torch.randn(12, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(3))
    for label in (0, 1):
        assert torch.autograd.gradcheck(lambda values, label=label: alpha_beta_loss(values, label, 0.25, 0.25), logits)


def test_normal_slide_does_not_know_the_shares():
    logits = torch.randn(20)
    assert alpha_beta_loss(logits, 0, 0.2, 0.2) == alpha_beta_loss(logits, 0, 1.0, 0.0)


def test_large_logits_stay_finite():
    logits = torch.tensor([1e4, -1e4, 100.0, -100.0], requires_grad=True)
    for label in (0, 1):
        loss = alpha_beta_loss(logits, label, 0.5, 0.5)
        loss.backward()
        assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("label", [0, 1])
def test_an_alpha_that_is_not_even_one_tile_is_refused(label):
    with pytest.raises(ValueError, match=r"alpha 0\.2 of 4 tiles selects none: each slide needs 5 tiles"):
        alpha_beta_loss(torch.randn(4), label, alpha=0.2, beta=0.2)
    with pytest.raises(ValueError, match=r"alpha 0\.04 of 24 tiles selects none: each slide needs 25 tiles"):
        AlphaBetaLoss(0.04, 0.2, tiles_per_slide=24)
    assert alpha_beta_loss(torch.randn(5), label, alpha=0.2, beta=0.2) > 0
    AlphaBetaLoss(0.04, 0.2, tiles_per_slide=25)


def test_weights_of_the_classes():
    logits = torch.randn(10)
    for label, weight in ((0, 3.0), (1, 0.5)):
        plain = alpha_beta_loss(logits, label, 0.2, 0.2)
        assert alpha_beta_loss(logits, label, 0.2, 0.2, weights=(3.0, 0.5)) == pytest.approx(weight * plain.item())


def test_module_takes_one_slide_or_several():
    loss = AlphaBetaLoss(alpha=0.2, beta=0.4)
    logits = torch.randn(2, 10)
    labels = torch.tensor([1.0, 0.0])
    single = [loss(logits[0], 1), loss(logits[1], labels[1])]
    assert loss(logits, labels) == pytest.approx(torch.stack(single).mean().item())
    assert single[0] == alpha_beta_loss(logits[0], 1, 0.2, 0.4)


def test_float32_under_autocast():
    loss = AlphaBetaLoss(alpha=0.5, beta=0.5)
    logits = torch.randn(8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits, 1)
    assert value.dtype == torch.float32
    assert value == loss(logits.float(), 1)


@pytest.mark.parametrize("shape", [(), (0,), (2, 3, 4)])
def test_rejects_other_shapes(shape):
    with pytest.raises(ValueError, match="logits"):
        AlphaBetaLoss(0.2, 0.2)(torch.zeros(shape), torch.zeros(2))


def test_rejects_labels_of_another_number_of_slides():
    with pytest.raises(ValueError, match=r"\(2, 5\), \(3,\)"):
        AlphaBetaLoss(0.2, 0.2)(torch.zeros(2, 5), torch.zeros(3))


@pytest.mark.parametrize(("alpha", "beta"), [(0.7, 0.6), (0.0, 0.5)])
def test_rejects_impossible_shares(alpha, beta):
    with pytest.raises(ValueError, match=f"alpha={alpha}, beta={beta}"):
        AlphaBetaLoss(alpha, beta)


@pytest.mark.gpu
def test_waits_for_nothing_on_the_gpu():
    loss = AlphaBetaLoss(0.2, 0.2)
    logits, labels = torch.randn(2, 50, device="cuda"), torch.tensor([1.0, 0.0], device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = loss(logits, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert value.isfinite()
