import math

import pytest
import torch

from shared.losses import (
    DeepWeakSupervisionLoss,
    GeneralizedMeanLoss,
    area_constraint,
    deep_weak_supervision_loss,
    generalized_mean_loss,
)

LABELS = torch.tensor([1, 0, 1, 0])
AREAS = torch.tensor([0.1, math.nan, 0.3, 0.2])
FUSION_WEIGHTS = torch.tensor([0.2, 0.35, 0.45], dtype=torch.float64)


def network_outputs(num_images=4, height=6, width=5, shift=0.0, dtype=torch.float64):
    logits = 2 * torch.randn(num_images, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = (logits + shift).to(dtype)
    return logits, (logits.sigmoid() * FUSION_WEIGHTS.to(dtype)[:, None, None]).sum(1, keepdim=True)


def random_superpixels(num_images=4, height=6, width=5, dtype=torch.int32):
    """Ids with gaps, another number of super-pixels in each image."""
    generator = torch.Generator().manual_seed(1)
    highest = (3, 40, 9, 17)[:num_images]
    return torch.stack([3 * torch.randint(0, most, (1, height, width), generator=generator) + 2 for most in highest]).to(dtype)


def naive_loss(outputs, labels, areas, etas, eta_fuse, superpixels=None, area_weighted=False, r=4):
    logits, fusion = outputs
    maps, weights = [*logits.sigmoid().unbind(1)], [*etas]
    if fusion is not None:
        maps, weights = [*maps, fusion[:, 0]], [*weights, eta_fuse]
    total = 0.0
    for probabilities, eta in zip(maps, weights, strict=True):
        for image, label in enumerate(labels.tolist()):
            instances = [(p, 1) for p in probabilities[image].flatten().tolist()]
            if superpixels is not None:
                ids = superpixels[image, 0]
                inside = [probabilities[image][ids == index].tolist() for index in ids.unique().tolist()]
                instances = [(sum(pixels) / len(pixels), len(pixels) if area_weighted else 1) for pixels in inside]
            mass = sum(weight for _, weight in instances)
            bag = (sum(weight * p**r for p, weight in instances) / mass) ** (1 / r)
            mean = sum(weight * p for p, weight in instances) / mass
            total -= math.log(bag if label else 1 - bag) / len(labels)
            if eta and label and mean > areas[image].item():
                total += eta * (mean - areas[image].item()) ** 2 / len(labels)
    return total


def test_value_by_hand():
    # Every probability is 1/2, so are GM and v: log 2 an image and map. The areas exceed by 0.4 and 0.2 in two of three
    # images, the third is normal: (0.16 + 0.04) / 3 a map.
    outputs = torch.zeros(3, 3, 4, 4), torch.full((3, 1, 4, 4), 0.5)
    loss = DeepWeakSupervisionLoss()(outputs, torch.tensor([1, 0, 1]), torch.tensor([0.1, math.nan, 0.3]))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(4 * math.log(2) + (2.5 + 5 + 10 + 10) * 0.2 / 3, abs=1e-5)


@pytest.mark.parametrize("labels", [[1, 0, 1, 0], [0] * 4, [1] * 4])
@pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0])
def test_equals_a_loop(labels, shift):
    outputs, labels = network_outputs(shift=shift), torch.tensor(labels)
    areas = torch.tensor([0.1, 0.9, 0.3, 0.2])
    loss = DeepWeakSupervisionLoss(r=4)(outputs, labels, areas)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(naive_loss(outputs, labels, areas, (2.5, 5, 10), 10), abs=1e-11)


@pytest.mark.parametrize("area_weighted", [False, True])
@pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_superpixels_equal_a_loop(area_weighted, shift, dtype):
    outputs, superpixels = network_outputs(shift=shift), random_superpixels(dtype=dtype)
    assert len({len(image.unique()) for image in superpixels}) == 4
    loss = DeepWeakSupervisionLoss((1, 0, 3), 7.5, r=2.5, area_weighted_superpixels=area_weighted)
    expected = naive_loss(outputs, LABELS, AREAS, (1, 0, 3), 7.5, superpixels, area_weighted, r=2.5)
    assert loss(outputs, LABELS, AREAS, superpixels).item() == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("area_weighted", [False, True])
@pytest.mark.parametrize("shift", [-25.0, 0.0, 25.0])
def test_superpixels_of_one_pixel_are_pixels(area_weighted, shift):
    ids = torch.randperm(64, generator=torch.Generator().manual_seed(2))[:30].view(1, 1, 6, 5).expand(4, -1, -1, -1)
    loss = DeepWeakSupervisionLoss(area_weighted_superpixels=area_weighted)
    losses, gradients = [], []
    for superpixels in (None, ids):
        # In float32 at 25 the sigmoid is exactly 1: only what is computed from logits still learns.
        logits = network_outputs(shift=shift, dtype=torch.float32)[0].requires_grad_()
        fusion = torch.full((4, 1, 6, 5), 0.4)
        losses.append(loss((logits, fusion), LABELS, AREAS, superpixels))
        losses[-1].backward()
        gradients.append(logits.grad)
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-12)
    assert gradients[0][1].abs().min() > 0


def test_one_superpixel_is_the_mean():
    outputs = network_outputs()
    mean_logits = outputs[0].sigmoid().mean((2, 3), keepdim=True).logit(), outputs[1].mean((2, 3), keepdim=True)
    loss = DeepWeakSupervisionLoss()
    pooled = loss(outputs, LABELS, AREAS, torch.full((4, 1, 6, 5), 3))
    torch.testing.assert_close(pooled, loss(mean_logits, LABELS, AREAS))


def test_renumbered_superpixels_give_the_same_loss():
    # After a crop or a rotation ids are missing and in another order.
    outputs, superpixels = network_outputs(), random_superpixels()
    loss = DeepWeakSupervisionLoss()
    expected = loss(outputs, LABELS, AREAS, superpixels)
    torch.testing.assert_close(loss(outputs, LABELS, AREAS, 1000 - 7 * superpixels), expected)


def test_area_weighted_superpixels_constrain_the_pixels_mean():
    logits, fusion = network_outputs()
    superpixels = random_superpixels()
    difference = [
        DeepWeakSupervisionLoss(etas, 0, area_weighted_superpixels=True)((logits, fusion), LABELS, AREAS, superpixels)
        for etas in ((0, 2, 0), (0, 0, 0))
    ]
    expected = 2 * area_constraint(logits[:, 1].sigmoid(), LABELS, AREAS)
    torch.testing.assert_close(difference[0] - difference[1], expected)


def test_one_side_output_without_fusion_is_the_baseline():
    logits = network_outputs()[0][:, 2:]
    loss = DeepWeakSupervisionLoss(etas=[0], eta_fuse=0)((logits, None), LABELS)
    torch.testing.assert_close(loss, GeneralizedMeanLoss()(logits, LABELS))
    with_constraint = DeepWeakSupervisionLoss(etas=[10], eta_fuse=10)((logits, None), LABELS, AREAS)
    torch.testing.assert_close(with_constraint, loss + 10 * area_constraint(logits.sigmoid(), LABELS, AREAS))


def test_without_constraint_areas_are_not_needed():
    outputs = network_outputs()
    loss = DeepWeakSupervisionLoss(etas=(0, 0.0, 0), eta_fuse=0)
    expected = loss(outputs, LABELS)
    assert loss(outputs, LABELS, torch.full((4,), math.nan)) == expected
    # eta_fuse constrains nothing where there is no fusion.
    sides_only = DeepWeakSupervisionLoss(etas=(0, 0, 0))((outputs[0], None), LABELS)
    sides = sum(generalized_mean_loss(outputs[0][:, side], LABELS) for side in range(3))
    torch.testing.assert_close(sides_only, sides)


@pytest.mark.parametrize("superpixels", [None, random_superpixels()], ids=["pixels", "superpixels"])
def test_gradcheck(superpixels):
    logits, _ = network_outputs()
    logits[1] += 3
    logits[2] -= 3
    fusion = (torch.rand(4, 1, 6, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 0.9).requires_grad_()

    def loss(side_logits, probabilities):
        return deep_weak_supervision_loss(side_logits, probabilities, LABELS, AREAS, superpixels)

    assert torch.autograd.gradcheck(loss, (logits.requires_grad_(), fusion))


def test_learns_through_learned_fusion_weights():
    logits = network_outputs()[0].requires_grad_()
    weights = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    fusion = (logits.sigmoid() * weights.softmax(0)[:, None, None]).sum(1, keepdim=True)
    DeepWeakSupervisionLoss()((logits, fusion), LABELS, AREAS).backward()
    assert logits.grad.abs().flatten(2).sum(2).gt(0).all()
    assert weights.grad.abs().min() > 0
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("superpixels", [None, random_superpixels()], ids=["pixels", "superpixels"])
@pytest.mark.parametrize("logit", [100.0, -100.0, 30.0, -30.0, 1e4])
def test_large_logits_stay_finite(logit, superpixels):
    logits = torch.full((4, 3, 6, 5), logit, requires_grad=True)
    # Exactly 0 or 1, as the sigmoid rounds.
    fusion = logits.detach()[:, :1].sigmoid().round().requires_grad_()
    loss = DeepWeakSupervisionLoss()((logits, fusion), LABELS, AREAS, superpixels)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert fusion.grad.isfinite().all()


@pytest.mark.parametrize("superpixels", [None, random_superpixels()], ids=["pixels", "superpixels"])
@pytest.mark.parametrize("shift", [0.0, 10.0, 25.0, -10.0, -25.0])
def test_float32_agrees_with_float64(superpixels, shift):
    fusion = torch.rand(4, 1, 6, 5, generator=torch.Generator().manual_seed(3))
    losses, gradients = [], []
    for dtype in (torch.float32, torch.float64):
        logits = network_outputs(shift=shift, dtype=torch.float32)[0]
        leaves = [leaf.to(dtype, copy=True).requires_grad_() for leaf in (logits, fusion)]
        losses.append(DeepWeakSupervisionLoss()(leaves, LABELS, AREAS, superpixels))
        losses[-1].backward()
        gradients.append([leaf.grad.double() for leaf in leaves])
    torch.testing.assert_close(losses[0].double(), losses[1], rtol=1e-5, atol=0)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-30)


def test_float32_of_half_outputs_and_under_autocast():
    logits, fusion = (output.bfloat16() for output in network_outputs(shift=2.0))
    loss, superpixels = DeepWeakSupervisionLoss(), random_superpixels()
    expected = loss((logits.float(), fusion.float()), LABELS, AREAS)
    expected_pooled = loss((logits.float(), fusion.float()), LABELS, AREAS, superpixels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pixels = loss((logits, fusion), LABELS, AREAS)
        pooled = loss((logits, fusion), LABELS, AREAS, superpixels)
    assert (pixels.dtype, pooled.dtype) == (torch.float32, torch.float32)
    assert pixels == expected
    assert pooled == expected_pooled


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 3.0])
def test_a_scale_multiplies_every_weight_of_the_constraint(scale):
    outputs = network_outputs()
    scaled = DeepWeakSupervisionLoss(etas=[2.5, 5, 10], eta_fuse=10, eta_scale=scale)
    expected = deep_weak_supervision_loss(*outputs, LABELS, AREAS, etas=[2.5 * scale, 5 * scale, 10 * scale], eta_fuse=10 * scale)
    assert torch.equal(scaled(outputs, LABELS, AREAS), expected)
    assert scaled.needs_areas == (scale > 0)
    for wrong in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="eta_scale must be >= 0 and finite"):
            DeepWeakSupervisionLoss(eta_scale=wrong)


def test_rejects_weights_that_do_not_fit():
    with pytest.raises(ValueError, match=r"etas must be >= 0; got etas=\(1, -2\), eta_fuse=10"):
        DeepWeakSupervisionLoss(etas=[1, -2])
    with pytest.raises(ValueError, match=r"etas must be >= 0; .* eta_fuse=nan"):
        DeepWeakSupervisionLoss(eta_fuse=math.nan)
    with pytest.raises(ValueError, match=r"etas must be >= 0; got etas=\(1, 1, 1\), eta_fuse=-3"):
        deep_weak_supervision_loss(*network_outputs(), LABELS, AREAS, etas=[1, 1, 1], eta_fuse=-3)
    with pytest.raises(ValueError, match="r must be > 0 and finite; got 0"):
        DeepWeakSupervisionLoss(r=0)
    with pytest.raises(ValueError, match=r"one eta per side output: 3; got etas=\(1, 2\)"):
        DeepWeakSupervisionLoss(etas=[1, 2])(network_outputs(), LABELS, AREAS)


def test_without_a_fusion_its_weight_needs_no_areas():
    logits = network_outputs()[0][:, 2:]
    loss = DeepWeakSupervisionLoss(etas=[0], eta_fuse=10)((logits, None), LABELS)
    torch.testing.assert_close(loss, GeneralizedMeanLoss()(logits, LABELS))


@pytest.mark.parametrize(("etas", "eta_fuse"), [((0, 0, 1), 0), ((0, 0, 0), 0.5), ((2.5, 5, 10), 10)])
def test_rejects_a_constraint_without_areas(etas, eta_fuse):
    with pytest.raises(ValueError, match="needs areas unless every eta is 0; got none"):
        DeepWeakSupervisionLoss(etas, eta_fuse)(network_outputs(), LABELS)


def test_rejects_what_does_not_fit():
    logits, fusion = network_outputs()
    loss = DeepWeakSupervisionLoss()
    with pytest.raises(ValueError, match=r"\(B, T, H, W\) and not empty; got \(3, 6, 5\)"):
        loss((logits[0], fusion), LABELS, AREAS)
    with pytest.raises(ValueError, match=r"not empty; got \(0, 3, 6, 5\)"):
        loss((logits[:0], fusion[:0]), LABELS[:0], AREAS[:0])
    with pytest.raises(ValueError, match=r"fusion probabilities must be \(4, 1, 6, 5\); got \(4, 1, 5, 6\)"):
        loss((logits, fusion.mT), LABELS, AREAS)
    with pytest.raises(ValueError, match=r"superpixels must be \(4, 1, 6, 5\); got \(4, 6, 5\)"):
        loss((logits, fusion), LABELS, AREAS, random_superpixels()[:, 0])
    with pytest.raises(ValueError, match=r"labels must be \(4,\), one per image; got \(3,\)"):
        loss((logits, fusion), LABELS[:3], AREAS)
    with pytest.raises(ValueError, match="got nan at position 0"):
        loss((logits, fusion), LABELS, torch.tensor([math.nan, 0.1, 0.1, 0.1]))
