"""CLAM's loss of instances by a loop, by hand and by its limits; the share that it has of the whole."""

import math

import pytest
import torch
from torch.nn import functional as F

from shared.losses import AttentionMILLoss, attention_instance_loss, smooth_svm_loss


def naive_svm(scores, target, margin, temperature):
    """The formula of one instance, in float64."""
    terms = [(margin * (j != target) + score - scores[target]) / temperature for j, score in enumerate(scores)]
    return temperature * math.log(sum(map(math.exp, terms)))


def some(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("margin", "temperature"), [(1.0, 1.0), (0.5, 0.2), (0.0, 1.0)])
def test_smooth_svm_is_its_formula(margin, temperature):
    scores, targets = some(6, 3), torch.tensor([0, 2, 1, 1, 0, 2])
    expected = [
        naive_svm(row, target, margin, temperature) for row, target in zip(scores.tolist(), targets.tolist(), strict=True)
    ]
    assert smooth_svm_loss(scores, targets, margin, temperature).item() == pytest.approx(sum(expected) / 6, abs=1e-12)


def test_smooth_svm_lies_between_cross_entropy_and_hinge():
    scores, targets = some(6, 2), torch.tensor([0, 1, 1, 1, 0, 0])
    torch.testing.assert_close(smooth_svm_loss(scores, targets, margin=0), F.cross_entropy(scores, targets))
    hinge = F.multi_margin_loss(scores, targets) * 2  # which is divided by the number of classes
    torch.testing.assert_close(smooth_svm_loss(scores, targets, temperature=1e-3), hinge, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["svm", "cross_entropy"])
@pytest.mark.parametrize("label", [0, 1])
def test_the_instances_of_a_slide_by_a_loop(kind, label):
    scores, attention = some(10, 2, 2), some(10, seed=1)
    ranked = sorted(range(10), key=lambda index: -attention[index])
    targets = dict.fromkeys(ranked[:3], 1) | dict.fromkeys(ranked[-3:], 0)
    margin = 1.0 if kind == "svm" else 0.0
    expected = [naive_svm(scores[index, label].tolist(), target, margin, 1.0) for index, target in targets.items()]
    loss = attention_instance_loss(scores, attention, torch.tensor(label), num_instances=3, kind=kind)
    assert loss.item() == pytest.approx(sum(expected) / 6, abs=1e-6)


def test_gradients_reach_the_chosen_instances_of_the_slides_own_class_alone():
    scores, attention = some(10, 2, 2).requires_grad_(), some(10, seed=1).requires_grad_()
    attention_instance_loss(scores, attention, torch.tensor(1), num_instances=2).backward()
    order = attention.argsort(descending=True)
    assert (scores.grad[:, 0] == 0).all()
    assert (scores.grad[order[2:-2]] == 0).all()
    # Attended instances are drawn to "in", unattended ones to "out".
    assert (scores.grad[order[:2], 1, 1] < 0).all()
    assert (scores.grad[order[-2:], 1, 0] < 0).all()
    # Attention is not learned from its own choice.
    assert attention.grad is None


def test_few_instances_are_halved():
    scores, attention = some(5, 2, 2), torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0])
    with_two = attention_instance_loss(scores, attention, torch.tensor(0), num_instances=2)
    assert attention_instance_loss(scores, attention, torch.tensor(0), num_instances=8) == with_two
    assert attention_instance_loss(scores[:1], attention[:1], torch.tensor(0)) == 0


def test_the_whole_loss_is_shared_between_slides_and_instances():
    labels, logits = torch.tensor([1.0, 0.0]), torch.tensor([0.3, -0.2])
    attention, scores = some(2, 20).float(), some(2, 20, 2, 2).float()
    slides = (math.log1p(math.exp(-0.3)) + math.log1p(math.exp(-0.2))) / 2
    assert AttentionMILLoss()(labels, logits, attention, scores).item() == pytest.approx(slides)
    instances = sum(attention_instance_loss(scores[i], attention[i], labels[i], 4, "svm") for i in (0, 1)) / 2
    loss = AttentionMILLoss("svm", instance_weight=0.4, num_instances=4)
    expected = 0.6 * slides + 0.4 * instances.item()
    assert loss(labels, slide_logits=logits, attention_logits=attention, instance_scores=scores).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"instance_loss": "hinge"}, "instance_loss must be one of svm, cross_entropy or null, got 'hinge'"),
        ({"instance_loss": "svm", "num_instances": 0}, "num_instances must be at least 1, got 0"),
        ({"instance_weight": 1.0}, r"instance_weight must be a share in \[0, 1\), got 1.0"),
    ],
)
def test_what_is_out_of_range_is_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        AttentionMILLoss(**options)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"need instance_scores \(n, 2, 2\) and attention_logits \(n,\); got \(4, 2\), \(4,\)"):
        attention_instance_loss(torch.zeros(4, 2), torch.zeros(4), torch.tensor(0))
    with pytest.raises(ValueError, match="the network has no instance classifiers"):
        AttentionMILLoss("svm")(torch.zeros(1), torch.zeros(1), torch.zeros(1, 4))
