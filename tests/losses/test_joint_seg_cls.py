"""The joint loss against values by hand, a loop, and torch's cross entropy."""

import math

import pytest
import torch
from torch.nn import functional as F

from shared.losses import JointSegClsLoss, inverse_frequency_weights

PIXEL_WEIGHTS, IMAGE_WEIGHTS = (0.1, 1.0, 0.5), (1.0, 0.25, 0.75)


def random_step(dtype=torch.float64, seed=0):
    """Two masked images of 4 x 5 px and three labelled ones of 2 x 3 px, with three classes."""
    generator = torch.Generator().manual_seed(seed)
    logits = {
        "pixel_logits": torch.randn(2, 3, 4, 5, generator=generator, dtype=dtype),
        "image_logits": torch.randn(3, 3, generator=generator, dtype=dtype),
        "image_logits_of_masked": torch.randn(2, 3, generator=generator, dtype=dtype),
        "pixel_logits_of_labelled": torch.randn(3, 3, 2, 3, generator=generator, dtype=dtype),
    }
    targets = {
        "masks": torch.randint(0, 3, (2, 4, 5), generator=generator),
        "labels": torch.tensor([2, 0, 2]),
        "labels_of_masked": torch.tensor([1, 2]),
    }
    return logits, targets


def paper_step(dtype=torch.float64):
    logits, targets = random_step(dtype)
    return {name: logits[name] for name in ("pixel_logits", "image_logits")} | {
        name: targets[name] for name in ("masks", "labels")
    }


def weighted_mean(pairs, weights):
    """Of cross entropies of (logits of one place, class), number by number."""
    total = sum_of_weights = 0.0
    for logits, target in pairs:
        entropy = math.log(sum(map(math.exp, logits))) - logits[target]
        total += weights[target] * entropy
        sum_of_weights += weights[target]
    return total / sum_of_weights


def places(logits, masks):
    for image, mask in zip(logits, masks, strict=True):
        for y in range(mask.shape[0]):
            for x in range(mask.shape[1]):
                yield image[:, y, x].tolist(), int(mask[y, x])


def test_weights_are_inverse_to_counts():
    # 1/900 : 1/90 : 1/10 = 1 : 10 : 90, and the rarest has 1.
    weights = inverse_frequency_weights([900, 90, 0, 10])
    torch.testing.assert_close(weights, torch.tensor([1 / 90, 1 / 9, 0, 1]))
    assert weights.dtype == torch.float32
    counts = torch.tensor([3e9, 1e6, 7.0], dtype=torch.float64)
    products = inverse_frequency_weights(counts).double() * counts
    torch.testing.assert_close(products, torch.full_like(products, 7.0), rtol=1e-6, atol=0)


def test_weights_depend_on_shares_alone():
    counts = torch.tensor([5, 20, 1, 8])
    expected = inverse_frequency_weights(counts)
    torch.testing.assert_close(inverse_frequency_weights(counts * 1000), expected)
    torch.testing.assert_close(inverse_frequency_weights((counts / counts.sum()).tolist()), expected)
    assert inverse_frequency_weights([4, 4]).tolist() == [1, 1]
    assert inverse_frequency_weights([0, 12]).tolist() == [0, 1]


@pytest.mark.parametrize("counts", [[0, 0], [1, -1], [], [[1, 2]], [1, math.nan]])
def test_rejects_counts_without_weights(counts):
    with pytest.raises(ValueError, match="counts of at least 0 that are not all 0; got"):
        inverse_frequency_weights(counts)


def test_loss_by_hand():
    # One pixel of each class, logits 0 and log 3: the share of class 0 is 1/4, so the entropies are log 4 and log(4/3),
    # and the weights 1 and 3 make their mean (log 4 + 3 log(4/3)) / 4. The image: log 2.
    pixel_logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    masks, image_logits, labels = torch.tensor([[[0, 1]]]), torch.zeros(1, 2), torch.tensor([1])
    loss = JointSegClsLoss(pixel_weights=[1, 3])(pixel_logits, masks, image_logits, labels)
    expected = (math.log(4) + 3 * math.log(4 / 3)) / 4 + math.log(2)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_the_paper_is_the_sum_of_two_of_torch():
    step = paper_step()
    weights = [torch.tensor(values, dtype=torch.float64) for values in (PIXEL_WEIGHTS, IMAGE_WEIGHTS)]
    pixels = F.cross_entropy(step["pixel_logits"], step["masks"], weight=weights[0].float().double())
    images = F.cross_entropy(step["image_logits"], step["labels"], weight=weights[1].float().double())
    torch.testing.assert_close(JointSegClsLoss(PIXEL_WEIGHTS, IMAGE_WEIGHTS)(**step), pixels + images)
    unweighted = F.cross_entropy(step["pixel_logits"], step["masks"]) + F.cross_entropy(step["image_logits"], step["labels"])
    torch.testing.assert_close(JointSegClsLoss()(**step), unweighted)


def test_a_kind_that_is_not_there_adds_nothing():
    step, loss = paper_step(), JointSegClsLoss(PIXEL_WEIGHTS, IMAGE_WEIGHTS)
    masked = loss(pixel_logits=step["pixel_logits"], masks=step["masks"])
    labelled = loss(image_logits=step["image_logits"], labels=step["labels"])
    torch.testing.assert_close(masked + labelled, loss(**step))
    # Labels of masked images without logits of them: the paper's head has no use for them.
    assert loss(pixel_logits=step["pixel_logits"], masks=step["masks"], labels_of_masked=torch.tensor([0, 1])) == masked


def test_the_released_loss_pools_constant_masks_and_labels_of_masked():
    logits, targets = random_step()
    constant = targets["labels"][:, None, None].expand(3, 2, 3)
    pixel_pairs = [
        *places(logits["pixel_logits"], targets["masks"]),
        *places(logits["pixel_logits_of_labelled"], constant),
    ]
    assert len(pixel_pairs) == 2 * 20 + 3 * 6
    image_pairs = [
        *zip(logits["image_logits"].tolist(), targets["labels"].tolist(), strict=True),
        *zip(logits["image_logits_of_masked"].tolist(), targets["labels_of_masked"].tolist(), strict=True),
    ]
    expected = weighted_mean(pixel_pairs, PIXEL_WEIGHTS) + weighted_mean(image_pairs, IMAGE_WEIGHTS)
    loss = JointSegClsLoss(PIXEL_WEIGHTS, IMAGE_WEIGHTS)(**logits, **targets)
    assert loss.item() == pytest.approx(expected, rel=1e-7)


def test_a_class_of_weight_zero_counts_for_nothing():
    step = paper_step()
    others = step["masks"] != 1
    pixels = step["pixel_logits"].movedim(1, -1)[others]
    expected = F.cross_entropy(pixels, step["masks"][others])
    assert JointSegClsLoss([1, 0, 1])(step["pixel_logits"], step["masks"]).item() == pytest.approx(expected.item())


def test_gradcheck():
    logits, targets = random_step()
    names, values = zip(*logits.items(), strict=True)
    loss = JointSegClsLoss(PIXEL_WEIGHTS, IMAGE_WEIGHTS)
    values = [value.requires_grad_() for value in values]
    assert torch.autograd.gradcheck(lambda *inputs: loss(**dict(zip(names, inputs, strict=True)), **targets), values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_of_half_logits_and_under_autocast(dtype):
    logits, targets = random_step(dtype)
    loss = JointSegClsLoss(PIXEL_WEIGHTS, IMAGE_WEIGHTS)
    expected = loss(**{name: value.float() for name, value in logits.items()}, **targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        computed = loss(**logits, **targets)
    assert computed.dtype == torch.float32
    assert computed == expected


def test_targets_of_any_integer_type_and_logits_of_any_layout():
    step, loss = paper_step(), JointSegClsLoss(PIXEL_WEIGHTS)
    expected = loss(**step)
    step["masks"] = step["masks"].to(torch.uint8)
    step["pixel_logits"] = step["pixel_logits"].contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(loss(**step), expected)


def test_large_logits_stay_finite():
    logits = torch.tensor([[1000.0, -1000.0]], requires_grad=True)
    loss = JointSegClsLoss()(image_logits=logits, labels=torch.tensor([1]))
    loss.backward()
    assert loss.item() == 2000
    assert logits.grad.tolist() == [[1, -1]]


def test_weights_move_with_the_loss():
    loss = JointSegClsLoss(PIXEL_WEIGHTS)
    assert loss.image_weights is None
    assert loss.to("meta").pixel_weights.device.type == "meta"


def test_rejects_weights_that_are_none():
    for weights in ([0.0, 0.0], [1.0, -1.0], [[1.0, 1.0]], [1.0, math.nan]):
        with pytest.raises(ValueError, match="pixel_weights must be one number of at least 0 per class, not all 0"):
            JointSegClsLoss(weights)
    with pytest.raises(ValueError, match=r"image_weights must be .*got \[0\.0\]"):
        JointSegClsLoss(None, [0.0])


@pytest.mark.parametrize(
    ("wanting", "missing"),
    [
        ("pixel_logits", "masks"),
        ("image_logits", "labels"),
        ("image_logits_of_masked", "labels_of_masked"),
        ("pixel_logits_of_labelled", "labels"),
    ],
)
def test_rejects_logits_without_targets(wanting, missing):
    logits, _ = random_step()
    with pytest.raises(ValueError, match=f"logits, but no {missing}$"):
        JointSegClsLoss()(**{wanting: logits[wanting]})


def test_rejects_what_does_not_fit():
    logits, targets = random_step()
    with pytest.raises(ValueError, match="masked images, labelled images, or both"):
        JointSegClsLoss()(**targets)
    # As many pixels as wanted, so nothing else would complain.
    with pytest.raises(ValueError, match=r"masks must be \(2, 4, 5\); got \(2, 5, 4\)"):
        JointSegClsLoss()(logits["pixel_logits"], targets["masks"].mT)
    with pytest.raises(ValueError, match=r"labels must be \(3,\); got \(2,\)"):
        JointSegClsLoss()(image_logits=logits["image_logits"], labels=targets["labels"][:2])
    with pytest.raises(ValueError, match=r"labels must be \(3,\); got \(3, 1\)"):
        JointSegClsLoss()(pixel_logits_of_labelled=logits["pixel_logits_of_labelled"], labels=targets["labels"][:, None])
    with pytest.raises(ValueError, match=r"labels_of_masked must be \(2,\); got \(3,\)"):
        JointSegClsLoss()(image_logits_of_masked=logits["image_logits_of_masked"], labels_of_masked=targets["labels"])


def test_targets_that_weigh_nothing_teach_nothing():
    loss = JointSegClsLoss(image_weights=[1, 0, 0])
    logits = torch.randn(2, 3, requires_grad=True)
    value = loss(image_logits=logits, labels=torch.tensor([1, 2]))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()
