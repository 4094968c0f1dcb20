import math

import pytest
import torch

from shared.losses import ConstrainedRetrainLoss, image_constraint_loss
from shared.selection import max_max, max_min


def test_constraint_by_hand():
    # Logit log 3 is p = 3/4. Tumour image: both picks at 3/4, so -2 log(3/4); normal image: Max-Max at 3/4 costs
    # -log(1/4), Max-Min at 1/2 costs log 2. The mean over two images:
    expected = (2 * math.log(4 / 3) + math.log(4) + math.log(2)) / 2
    highest, chosen = torch.tensor([math.log(3)] * 2), torch.tensor([math.log(3), 0.0])
    loss = image_constraint_loss(highest, chosen, torch.tensor([1, 0]))
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_weights_by_hand():
    # All logits 0: every cross entropy is log 2, the constraint 2 log 2.
    loss = ConstrainedRetrainLoss(constraint_weight=0.5, retrain_weight=3.0)(
        torch.zeros(7), torch.ones(7), torch.zeros(2, 2), torch.tensor([0, 1])
    )
    assert loss.item() == pytest.approx((0.5 * 2 + 3) * math.log(2), abs=1e-6)


@pytest.mark.parametrize("labels", [[0, 1, 1], [0, 0, 0], [1, 1, 1]])
def test_equals_a_loop(labels):
    generator = torch.Generator().manual_seed(0)
    bags, labels = torch.randn(3, 16, generator=generator, dtype=torch.float64), torch.tensor(labels)
    picks = torch.stack([bags.gather(1, pick(bags, labels)[:, None])[:, 0] for pick in (max_max, max_min)], dim=1)
    instances = torch.randn(5, generator=generator, dtype=torch.float64)
    instance_labels = torch.tensor([0, 1, 0, 1, 1])

    def cross_entropy(logit, label):
        return math.log1p(math.exp(-logit if label else logit))

    constraint = sum(
        cross_entropy(max(bag), label) + cross_entropy(max(bag) if label else min(bag), label)
        for bag, label in zip(bags.tolist(), labels.tolist(), strict=True)
    )
    retrain = sum(map(cross_entropy, instances.tolist(), instance_labels.tolist()))
    loss = ConstrainedRetrainLoss()(instances, instance_labels, picks, labels)
    assert loss.item() == pytest.approx(constraint / 3 + retrain / 5, abs=1e-12)


def test_gradcheck():
    generator = torch.Generator().manual_seed(0)
    instances = torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True)
    picks = torch.randn(3, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    loss = ConstrainedRetrainLoss(2.0, 0.5)
    instance_labels, image_labels = torch.tensor([0, 1, 1, 0]), torch.tensor([True, False, True])
    assert torch.autograd.gradcheck(lambda a, b: loss(a, instance_labels, b, image_labels), (instances, picks))


def test_float32_of_half_logits():
    half = torch.zeros(2, 2, dtype=torch.float16)
    loss = ConstrainedRetrainLoss()(half[0], torch.tensor([0, 1]), half, torch.tensor([0, 1]))
    assert loss.dtype == torch.float32


def test_rejects_what_does_not_fit():
    with pytest.raises(ValueError, match="constraint_weight=-1"):
        ConstrainedRetrainLoss(constraint_weight=-1)
    with pytest.raises(ValueError, match=r"\(num_images, 2\); got \(2, 3\)"):
        ConstrainedRetrainLoss()(torch.zeros(1), torch.zeros(1), torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(ValueError, match=r"got \(2,\), \(3,\)"):
        ConstrainedRetrainLoss()(torch.zeros(1), torch.zeros(1), torch.zeros(2, 2), torch.zeros(3))
    with pytest.raises(ValueError, match=r"not empty; got \(0,\), \(0,\)"):
        ConstrainedRetrainLoss()(torch.zeros(0), torch.zeros(0), torch.zeros(2, 2), torch.zeros(2))
