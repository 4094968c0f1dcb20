import pytest
import torch

from shared.selection import CRITERIA, criterion, max_max, max_min


def naive_pick(name, bag, label):
    best = 0
    for i in range(1, len(bag)):
        want_lowest = name == "max_min" and label == 0
        if (bag[i] < bag[best]) if want_lowest else (bag[i] > bag[best]):
            best = i
    return best


@pytest.mark.parametrize("name", ["max_max", "max_min"])
@pytest.mark.parametrize("num_instances", [1, 16, 64])
def test_equals_a_loop(name, num_instances, device):
    generator = torch.Generator().manual_seed(0)
    # Few distinct values, so that most bags hold ties.
    logits = torch.randint(-3, 4, (50, num_instances), generator=generator).float()
    labels = torch.randint(0, 2, (50,), generator=generator)
    expected = [naive_pick(name, bag, label) for bag, label in zip(logits.tolist(), labels.tolist(), strict=True)]
    picked = criterion(name)(logits.to(device), labels.to(device))
    assert picked.dtype == torch.int64
    assert picked.tolist() == expected


def test_criteria_agree_on_tumour_bags_and_differ_on_normal_ones():
    logits = torch.randn(20, 16, generator=torch.Generator().manual_seed(1))
    ones, zeros = torch.ones(20), torch.zeros(20)
    assert torch.equal(max_max(logits, ones), max_min(logits, ones))
    assert torch.equal(max_max(logits, zeros), max_max(logits, ones))
    assert (max_max(logits, zeros) != max_min(logits, zeros)).all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64])
def test_labels_of_any_type(dtype):
    logits = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert max_min(logits, torch.tensor([0, 1]).to(dtype)).tolist() == [0, 1]


@pytest.mark.parametrize("pick", [max_max, max_min])
def test_equal_logits_give_the_lowest_index(pick, device):
    logits = torch.zeros(2, 1000, device=device)
    assert pick(logits, torch.tensor([0, 1], device=device)).tolist() == [0, 0]


def test_infinite_logits():
    inf = float("inf")
    logits = torch.tensor([[-inf, -inf, 0.0], [-inf, -inf, -inf], [1.0, inf, inf]])
    labels = torch.tensor([0, 0, 1])
    assert max_max(logits, labels).tolist() == [2, 0, 1]
    assert max_min(logits, labels).tolist() == [0, 0, 1]


def test_half_precision_and_no_bags():
    logits = torch.tensor([[1.0, 3.0, 2.0]], dtype=torch.bfloat16, requires_grad=True)
    assert max_max(logits, torch.tensor([0])).tolist() == [1]
    empty = max_min(torch.zeros(0, 4), torch.zeros(0))
    assert empty.shape == (0,)
    assert empty.dtype == torch.int64


@pytest.mark.parametrize("pick", [max_max, max_min])
def test_rejects_nan(pick):
    logits = torch.tensor([[0.0, 1.0], [0.0, float("nan")]])
    with pytest.raises(ValueError, match="NaN in bag 1"):
        pick(logits, torch.tensor([0, 0]))


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((2, 3, 1), [0, 1], r"got \(2, 3, 1\)"),
        ((2, 0), [0, 1], r"got \(2, 0\)"),
        ((2, 3), [0, 1, 1], r"labels must be \(2,\), one per bag; got \(3,\)"),
        ((2, 3), [[0], [1]], r"got \(2, 1\)"),
        ((2, 3), [0, 2], "0 or 1; got 2"),
        ((2, 3), [0, 0.5], "0 or 1; got 0.5"),
    ],
)
@pytest.mark.parametrize("pick", [max_max, max_min])
def test_rejects_wrong_bags(pick, shape, labels, message):
    with pytest.raises(ValueError, match=message):
        pick(torch.zeros(shape), torch.tensor(labels))


def test_criterion_by_name():
    assert {"max_max": max_max, "max_min": max_min} == CRITERIA
    with pytest.raises(ValueError, match="max_max, max_min; got 'min_min'"):
        criterion("min_min")
