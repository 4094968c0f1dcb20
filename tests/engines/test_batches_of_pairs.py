"""A step of joint segmentation and classification: from a pair of batches through the network to the loss."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from shared.engines import JointInferer, masked_and_labelled
from shared.losses import JointSegClsLoss, inverse_frequency_weights
from shared.networks import SegClsResNet18

COUNTS = {"num_masked": 2, "num_labelled": 3, "pixels": [900, 90, 0, 10], "images": [1, 1, 2, 0]}
WEIGHTS = {"pixels": [1 / 90, 1 / 9, 0, 1], "images": [1, 1, 0.5, 0]}
LOSS = JointSegClsLoss.from_counts(COUNTS)


def masked_batch(with_labels=True):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 32, 48), generator=generator, dtype=torch.uint8)
    batch = {"image": images, "mask": images[:, :1] % 3, "index": torch.arange(2)}
    return batch | ({"label": torch.tensor([2, 1])} if with_labels else {})


def labelled_batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (3, 3, 48, 32), generator=generator, dtype=torch.uint8)
    return {"image": images, "label": torch.tensor([1, 2, 0]), "index": torch.arange(3)}


def batches():
    return {"masked": masked_batch(), "labelled": labelled_batch()}


def test_both_kinds_of_images():
    inputs, targets = masked_and_labelled(batches(), torch.device("cpu"), non_blocking=True)
    assert list(inputs) == ["images", "labelled"]
    assert torch.equal(inputs["images"], masked_batch()["image"])
    assert torch.equal(inputs["labelled"], labelled_batch()["image"])
    for images in inputs.values():
        assert images.dtype == torch.uint8
        assert images.is_contiguous(memory_format=torch.channels_last)
    assert targets.keys() == {"masks", "labels", "labels_of_masked"}
    assert {values.dtype for values in targets.values()} == {torch.int64}
    assert torch.equal(targets["masks"], masked_batch()["mask"][:, 0].long())
    assert (targets["labels_of_masked"].tolist(), targets["labels"].tolist()) == ([2, 1], [1, 2, 0])


def test_one_kind_alone():
    inputs, targets = masked_and_labelled({"masked": masked_batch(with_labels=False)})
    assert (list(inputs), list(targets)) == (["images"], ["masks"])
    inputs, targets = masked_and_labelled({"labelled": labelled_batch()})
    assert (list(inputs), list(targets)) == (["labelled"], ["labels"])


@pytest.mark.parametrize("head", ["paper", "released"])
def test_the_inferer_names_what_the_network_gives(head):
    torch.manual_seed(0)
    network = SegClsResNet18(head=head).eval()
    names = {
        ("masked",): {"pixel_logits": (2, 4, 32, 48)},
        ("labelled",): {"image_logits": (3, 4)},
        ("masked", "labelled"): {"pixel_logits": (2, 4, 32, 48), "image_logits": (3, 4)},
    }
    if head == "released":
        names["labelled",] |= {"pixel_logits_of_labelled": (3, 4, 48, 32)}
        names["masked", "labelled"] |= {"pixel_logits_of_labelled": (3, 4, 48, 32), "image_logits_of_masked": (2, 4)}
    for kinds, expected in names.items():
        inputs, targets = masked_and_labelled({kind: batches()[kind] for kind in kinds})
        with torch.inference_mode():
            logits = JointInferer()(inputs, network)
            assert {name: tuple(values.shape) for name, values in logits.items()} == expected
            # Whatever there is, the loss takes it.
            assert LOSS(**logits, **targets).isfinite()
    with torch.inference_mode():
        assert torch.equal(
            JointInferer()({"images": masked_batch()["image"]}, network)["pixel_logits"], network(masked_batch()["image"])
        )


@pytest.mark.parametrize("kinds", [kinds for n in (1, 2) for kinds in itertools.combinations(("masked", "labelled"), n)])
def test_the_loss_is_that_of_the_weighted_classes(kinds):
    generator = torch.Generator().manual_seed(3)
    _, targets = masked_and_labelled({kind: batches()[kind] for kind in kinds})
    logits, expected = {}, 0.0
    if "masked" in kinds:
        logits["pixel_logits"] = torch.randn(2, 4, 32, 48, generator=generator)
        expected += F.cross_entropy(logits["pixel_logits"], targets["masks"], torch.tensor(WEIGHTS["pixels"]))
    if "labelled" in kinds:
        logits["image_logits"] = torch.randn(3, 4, generator=generator)
        expected += F.cross_entropy(logits["image_logits"], targets["labels"], torch.tensor(WEIGHTS["images"]))
    torch.testing.assert_close(LOSS(**logits, **targets), expected)


def test_weights_follow_from_the_counts():
    loss = LOSS
    torch.testing.assert_close(loss.pixel_weights, torch.tensor(WEIGHTS["pixels"]))
    torch.testing.assert_close(loss.image_weights, torch.tensor(WEIGHTS["images"], dtype=torch.float32))
    torch.testing.assert_close(loss.pixel_weights, inverse_frequency_weights(COUNTS["pixels"]))
    assert JointSegClsLoss.from_counts(COUNTS | {"pixels": None}).pixel_weights is None
    assert JointSegClsLoss.from_counts(COUNTS | {"images": None}).image_weights is None


def test_a_step_teaches_every_parameter():
    """Encoder and decoder by both kinds of images, the classifier by the labelled ones alone."""
    torch.manual_seed(0)
    network = SegClsResNet18().train()
    taught = {}
    for kinds in (("masked",), ("labelled",), ("masked", "labelled")):
        network.zero_grad(set_to_none=True)
        inputs, targets = masked_and_labelled({kind: batches()[kind] for kind in kinds})
        LOSS(**JointInferer()(inputs, network), **targets).backward()
        taught[kinds] = {name for name, values in network.named_parameters() if values.grad is not None}
    everything = {name for name, _ in network.named_parameters()}
    assert taught["labelled",] == taught["masked", "labelled"] == everything
    assert taught["masked",] == {name for name in everything if not name.startswith("classifier")}
