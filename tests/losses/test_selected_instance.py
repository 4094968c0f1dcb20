import math

import pytest
import torch

from shared.losses import SelectedInstanceLoss, binary_cross_entropy, selected_instance_loss
from shared.networks import InstanceClassifier
from shared.selection import max_max, max_min


def naive_loss(name, logits, labels):
    total = 0.0
    for bag, label in zip(logits.tolist(), labels.tolist(), strict=True):
        logit = min(bag) if name == "max_min" and label == 0 else max(bag)
        probability = 1 / (1 + math.exp(-logit))
        total -= label * math.log(probability) + (1 - label) * math.log(1 - probability)
    return total / len(labels)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # p = 1/4 is the logit -log 3, p = 1/2 is 0. Max-Max picks 1/2 in both bags: -log(1/2) each.
        ("max_max", math.log(2)),
        # Max-Min picks 1/2 in the tumour bag and 1/4 in the normal one: mean of log 2 and -log(3/4).
        ("max_min", (math.log(2) + math.log(4 / 3)) / 2),
    ],
)
def test_value_by_hand(name, expected):
    bag = [-math.log(3), 0.0]
    loss = SelectedInstanceLoss(name)(torch.tensor([bag, bag]), torch.tensor([1, 0]))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["max_max", "max_min"])
@pytest.mark.parametrize("labels", [[0, 1, 1, 0, 1], [0] * 5, [1] * 5])
def test_equals_a_loop(name, labels):
    logits = torch.randn(5, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor(labels)
    loss = SelectedInstanceLoss(name)(logits, labels)
    assert loss.item() == pytest.approx(naive_loss(name, logits, labels), abs=1e-12)


@pytest.mark.parametrize("criterion", [max_max, max_min])
def test_gradcheck(criterion):
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 1, 0])
    assert torch.autograd.gradcheck(lambda values: selected_instance_loss(values, labels, criterion), logits)


@pytest.mark.parametrize("criterion", [max_max, max_min])
def test_gradient_reaches_the_picks_only(criterion):
    logits = torch.randn(6, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([0, 1, 1, 0, 0, 1])
    selected_instance_loss(logits, labels, criterion).backward()
    rows, columns = logits.grad.nonzero(as_tuple=True)
    assert rows.tolist() == list(range(6))
    assert torch.equal(columns, criterion(logits, labels))
    # (p - y) / number of bags
    expected = (torch.sigmoid(logits[rows, columns]) - labels) / 6
    torch.testing.assert_close(logits.grad[rows, columns], expected.detach())


def test_one_instance_a_bag_learns_through_a_network_in_eval_mode():
    torch.manual_seed(0)
    network = InstanceClassifier("resnet10").eval()
    instances = torch.randint(0, 256, (2 * 4, 3, 32, 32)).float().requires_grad_()
    logits = network(instances).view(2, 4)
    labels = torch.tensor([1, 0])
    selected_instance_loss(logits, labels, max_min).backward()
    has_gradient = instances.grad.abs().flatten(1).sum(1).view(2, 4) > 0
    assert has_gradient.sum(1).tolist() == [1, 1]
    assert torch.equal(has_gradient.int().argmax(1), max_min(logits, labels))


def test_float32_of_half_logits_and_under_autocast():
    logits = torch.tensor([[0.1, 12.3]], dtype=torch.bfloat16)
    expected = selected_instance_loss(logits.float(), torch.tensor([0]), max_max)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = selected_instance_loss(logits, torch.tensor([0]), max_max)
    assert loss.dtype == torch.float32
    assert loss == expected


def test_a_bag_of_one_is_plain_cross_entropy():
    logits, labels = torch.randn(5, 1, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1, 1])
    assert SelectedInstanceLoss(max_min)(logits, labels) == binary_cross_entropy(logits[:, 0], labels)


def test_large_logits_stay_finite():
    loss = selected_instance_loss(torch.tensor([[1000.0, 0.0]]), torch.tensor([0]), max_max)
    assert loss.item() == 1000


def test_rejects_no_bags_and_unknown_criteria():
    with pytest.raises(ValueError, match=r"not empty; got \(0,\), \(0,\)"):
        selected_instance_loss(torch.zeros(0, 4), torch.zeros(0), max_max)
    with pytest.raises(ValueError, match=r"got \(2,\), \(2, 1\)"):
        binary_cross_entropy(torch.zeros(2), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="max_max, max_min; got 'mean'"):
        SelectedInstanceLoss("mean")
