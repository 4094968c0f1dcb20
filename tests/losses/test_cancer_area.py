import math

import pytest
import torch

from shared.losses import AreaConstraintLoss, area_constraint


def naive_constraint(probabilities, labels, areas):
    total = 0.0
    for image, label, area in zip(probabilities.flatten(1).tolist(), labels.tolist(), areas.tolist(), strict=True):
        mean = sum(image) / len(image)
        if label == 1 and mean > area:
            total += (mean - area) ** 2
    return total / len(labels)


def test_value_by_hand():
    # v = 0.5 in every image. Excess 0.2 for a = 0.3 and none for a = 0.6, 0.5 and label 0: 0.04 over four images.
    loss = AreaConstraintLoss()(
        torch.tensor([0.25, 0.75]).repeat(4, 1).view(4, 1, 2, 1), torch.tensor([1, 1, 1, 0]), torch.tensor([0.3, 0.6, 0.5, 0.1])
    )
    assert loss.shape == ()
    assert loss.item() == pytest.approx(0.04 / 4, abs=1e-7)


@pytest.mark.parametrize("labels", [[0, 1, 1, 0, 1, 1], [0] * 6, [1] * 6])
def test_equals_a_loop(labels):
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(6, 1, 5, 3, generator=generator, dtype=torch.float64)
    areas, labels = torch.rand(6, generator=generator, dtype=torch.float64), torch.tensor(labels)
    loss = AreaConstraintLoss()(probabilities, labels, areas)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(naive_constraint(probabilities, labels, areas), abs=1e-14)


def test_gradient_only_through_the_gate():
    probabilities = torch.rand(4, 1, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    mean = probabilities.detach().flatten(1).mean(1)
    # Beyond the area with label 1, below it with label 1, exactly at it with label 1, beyond it with label 0.
    areas = mean + torch.tensor([-0.25, 0.125, 0.0, -0.25])
    AreaConstraintLoss()(probabilities, torch.tensor([1, 1, 1, 0]), areas).backward()
    # 2 (v - a) / n a pixel of the one image, which the mean divides by 4 images.
    expected = torch.zeros_like(probabilities)
    expected[0] = 2 * 0.25 / 15 / 4
    torch.testing.assert_close(probabilities.grad, expected, rtol=1e-12, atol=0)


def test_area_of_a_normal_image_is_not_used():
    probabilities = torch.full((3, 1, 2, 2), 0.75, requires_grad=True)
    loss = AreaConstraintLoss()(probabilities, torch.tensor([0, 1, 0]), torch.tensor([math.nan, 0.25, -7.0]))
    loss.backward()
    assert loss.item() == pytest.approx(0.25 / 3, abs=1e-7)
    assert probabilities.grad.isfinite().all()
    assert not probabilities.grad[[0, 2]].any()


def test_weights_count_instances():
    probabilities, weights = torch.tensor([[0.2, 0.9, 0.6]]), torch.tensor([[3, 0, 1]])
    # (3 * 0.2 + 0.6) / 4 = 0.3
    loss = area_constraint(probabilities, torch.tensor([1]), torch.tensor([0.1]), weights)
    assert loss.item() == pytest.approx(0.04, abs=1e-7)


def test_gradcheck():
    probabilities = torch.rand(4, 1, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    labels, areas = torch.tensor([0, 1, 1, 1]), torch.tensor([math.nan, 0.1, 0.9, 0.2])
    assert torch.autograd.gradcheck(lambda values: area_constraint(values, labels, areas), probabilities)


def test_float32_of_half_probabilities_and_under_autocast():
    probabilities = torch.rand(2, 1, 40, 40, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels, areas = torch.tensor([1, 1]), torch.tensor([0.1, 0.3])
    expected = area_constraint(probabilities.float(), labels, areas)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = AreaConstraintLoss()(probabilities, labels, areas)
    assert loss.dtype == torch.float32
    assert loss == expected


def test_large_map_keeps_its_precision():
    probabilities = torch.rand(1, 1, 3000, 3000, generator=torch.Generator().manual_seed(0))
    loss = area_constraint(probabilities, torch.tensor([1]), torch.tensor([0.25]))
    assert loss.item() == pytest.approx((probabilities.double().mean().item() - 0.25) ** 2, rel=1e-6)


@pytest.mark.parametrize("area", [math.nan, -0.1, 1.5, math.inf])
def test_rejects_an_area_that_is_no_share(area):
    labels = torch.tensor([0, 1, 1])
    with pytest.raises(ValueError, match=rf"in \[0, 1\]; got {area}\d* at position 2"):
        AreaConstraintLoss()(torch.rand(3, 1, 2, 2), labels, torch.tensor([math.nan, 1.0, area], dtype=torch.float64))


def test_rejects_what_does_not_fit():
    loss, probabilities = AreaConstraintLoss(), torch.rand(2, 1, 2, 2)
    labels, areas = torch.tensor([0, 1]), torch.tensor([0.5, 0.5])
    with pytest.raises(ValueError, match=r"areas must be \(2,\), one per image; got \(2, 1\)"):
        loss(probabilities, labels, areas[:, None])
    with pytest.raises(ValueError, match=r"labels must be \(2,\), one per image; got \(3,\)"):
        loss(probabilities, torch.ones(3), areas)
    with pytest.raises(ValueError, match=r"labels must be 0 or 1; got 2"):
        loss(probabilities, torch.tensor([0, 2]), areas)
    with pytest.raises(ValueError, match=r"one instance; got \(2,\)"):
        loss(torch.rand(2), labels, areas)
    with pytest.raises(ValueError, match=r"one image and one instance; got \(0, 1, 2, 2\)"):
        loss(probabilities[:0], labels[:0], areas[:0])
    with pytest.raises(ValueError, match=r"weights must be \(2, 1, 2, 2\); got \(2, 4\)"):
        area_constraint(probabilities, labels, areas, torch.ones(2, 4))
