import math

import pytest
import torch

from shared.selection import alpha_beta_labels


def naive_labels(logits, alpha, beta):
    """The definition, tile by tile: (label or None) of each."""
    number = len(logits)
    ranked = sorted(range(number), key=lambda index: (-logits[index], index))
    num_tumour, num_normal = (math.floor(round(number * share, 6)) for share in (alpha, beta))
    return {index: 1 if place < num_tumour else 0 if place >= number - num_normal else None for place, index in enumerate(ranked)}


def test_counts_of_the_paper():
    labels, mask = alpha_beta_labels(torch.randn(150), alpha=0.2, beta=0.2)
    assert (labels.sum(), mask.sum()) == (30, 60)


def test_share_that_is_a_hair_too_small_in_floats():
    assert 150 * (1 - 0.8) < 30
    assert alpha_beta_labels(torch.randn(150), alpha=1 - 0.8, beta=0.8)[0].sum() == 30


@pytest.mark.parametrize("number", [1, 4, 7, 150])
@pytest.mark.parametrize(("alpha", "beta"), [(0.2, 0.2), (0.2, 0.0), (1.0, 0.0), (0.2, 0.8), (0.5, 0.25), (0.01, 0.01)])
def test_equals_the_definition(number, alpha, beta):
    generator = torch.Generator().manual_seed(number)
    # Few distinct values, so that there are ties.
    logits = torch.randint(-2, 3, (number,), generator=generator).float()
    labels, mask = alpha_beta_labels(logits, alpha, beta)
    found = {index: int(labels[index]) if mask[index] else None for index in range(number)}
    assert found == naive_labels(logits.tolist(), alpha, beta)


def test_equal_logits_go_by_index():
    labels, mask = alpha_beta_labels(torch.zeros(5), alpha=0.4, beta=0.4)
    assert labels.tolist() == [1, 1, 0, 0, 0]
    assert mask.tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("beta", [0.0, 0.2, 0.4, 0.6, 0.8])
def test_beta_leaves_the_ones_as_they_are(beta):
    logits = torch.randn(50, generator=torch.Generator().manual_seed(0))
    ones = alpha_beta_labels(logits, 0.2, 0.0)[0]
    labels, mask = alpha_beta_labels(logits, 0.2, beta)
    assert torch.equal(labels, ones)
    assert mask.sum() == 10 + round(50 * beta)


def test_every_tile_has_a_label_where_the_shares_fill_the_slide():
    labels, mask = alpha_beta_labels(torch.randn(10), alpha=0.3, beta=0.7)
    assert mask.all()
    assert labels.sum() == 3


def test_only_the_order_counts():
    logits = torch.randn(40, generator=torch.Generator().manual_seed(1))
    before, after = (alpha_beta_labels(values, 0.25, 0.5) for values in (logits, logits.double().exp() * 7 - 3))
    assert torch.equal(before[0], after[0].float())
    assert torch.equal(before[1], after[1])


def test_no_gradient_and_the_type_of_the_logits():
    logits = torch.randn(8, dtype=torch.float64, requires_grad=True)
    labels, mask = alpha_beta_labels(logits, 0.5, 0.25)
    assert not labels.requires_grad
    assert not mask.requires_grad
    assert labels.dtype == torch.float64


@pytest.mark.parametrize(("alpha", "beta"), [(0.7, 0.6), (0.0, 0.5), (0.5, -0.1), (1.1, 0.0), (-0.2, 0.2), (float("nan"), 0.0)])
def test_rejects_impossible_shares(alpha, beta):
    with pytest.raises(ValueError, match=f"alpha={alpha}, beta={beta}"):
        alpha_beta_labels(torch.rand(4), alpha, beta)


def test_rejects_several_slides():
    with pytest.raises(ValueError, match=r"\(2, 4\)"):
        alpha_beta_labels(torch.rand(2, 4), 0.5, 0.0)


@pytest.mark.gpu
def test_equal_on_the_gpu():
    logits = torch.randint(-3, 4, (500,), generator=torch.Generator().manual_seed(2)).float()
    for here, there in zip(alpha_beta_labels(logits, 0.2, 0.4), alpha_beta_labels(logits.cuda(), 0.2, 0.4), strict=True):
        assert torch.equal(here, there.cpu())
