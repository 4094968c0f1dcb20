from math import nan

import pytest
import torch

from shared.data import PairedLoader, RegionDataset, RegionLoader, training_augmentation
from shared.engines import (
    bag_and_label,
    constrained_instances,
    image_and_area,
    image_and_label,
    image_and_mask,
    instance_and_label,
)
from shared.engines.batches import AugmentedOnDevice
from tests.simulated_device import simulated_device


def batch(num_images=4, size_px=6):
    generator = torch.Generator().manual_seed(num_images)
    image = torch.randint(0, 256, (num_images, 3, size_px, size_px + 2), generator=generator, dtype=torch.uint8)
    mask = (image[:, :1] > 128).to(torch.uint8)
    return {"image": image, "label": torch.arange(num_images) % 2, "mask": mask, "index": torch.arange(num_images)}


def test_images_are_uint8_and_channels_last():
    data = batch()
    for prepare in (image_and_label, bag_and_label, instance_and_label, image_and_mask):
        images = prepare(data, torch.device("cpu"), non_blocking=True)[0]
        assert torch.equal(images, data["image"])
        assert images.dtype == torch.uint8
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_labels_have_the_shape_of_the_logits():
    expected = torch.tensor([0.0, 1.0, 0.0, 1.0])
    torch.testing.assert_close(image_and_label(batch())[1], expected)
    torch.testing.assert_close(instance_and_label(batch())[1], expected[:, None])
    _, labels, args, kwargs = bag_and_label(batch())
    assert args == ()
    assert kwargs == {"labels": labels}
    torch.testing.assert_close(labels, expected)


def test_masks_are_class_indices():
    data = batch()
    masks = image_and_mask(data)[1]
    assert masks.dtype == torch.int64
    assert torch.equal(masks, data["mask"][:, 0].long())


def test_a_pair_for_the_constrained_step():
    instances, images = batch(5, 4), batch(2, 12)
    inputs, targets = constrained_instances({"instances": instances, "images": images}, "cpu")
    assert torch.equal(inputs["instances"], instances["image"])
    assert torch.equal(inputs["images"], images["image"])
    assert torch.equal(inputs["image_labels"], targets["image_labels"])
    assert (targets["instance_labels"].tolist(), targets["image_labels"].tolist()) == ([0, 1, 0, 1, 0], [0, 1])


@pytest.mark.parametrize(
    ("prepare", "wrong", "message"),
    [
        (image_and_area, {"label": [0, 2]}, "image labels must be 0 or 1; got 2"),
        (image_and_area, {"area": [nan, 1.5]}, "must be in \\[0, 1\\]; got 1.5 at position 1"),
        (image_and_area, {"area": [0.5, nan]}, "must be in \\[0, 1\\]; got nan at position 1"),
        (image_and_area, {"superpixels": [[[[0, -1]]]] * 2}, "ids must be >= 0; got -1"),
        (bag_and_label, {"label": [0, 3]}, "bag labels must be 0 or 1; got 3"),
    ],
)
def test_values_are_refused_before_they_are_moved(prepare, wrong, message, monkeypatch):
    """On a device the losses do not look at them."""
    right = {"area": torch.tensor([nan, 0.5]), "superpixels": torch.tensor([[[[0, 2]]], [[[1, 0]]]])}
    with simulated_device(monkeypatch):
        targets = image_and_area(batch(2) | right, "cuda", True)[1]
        assert targets["num_superpixels"] == 3
        with pytest.raises(ValueError, match=message):
            prepare(batch(2) | right | {name: torch.tensor(values) for name, values in wrong.items()}, "cuda", True)


def test_deferred_augmentation_is_done_before_batches_are_prepared(records):
    dataset = RegionDataset(records, size_px=8, transform=training_augmentation(stain_jitter=0.1))
    pairs = []
    for _ in range(2):
        loaders = {"instances": RegionLoader(dataset, 5), "images": RegionLoader(dataset, 5, shuffle=False)}
        pairs.append(list(PairedLoader(loaders)))
        PairedLoader(loaders).defer_augmentation()
    prepare = AugmentedOnDevice(constrained_instances)
    for at_once, deferred in zip(*pairs, strict=True):
        expected, got = (prepare(batch, torch.device("cpu"), non_blocking=True)[0] for batch in (at_once, deferred))
        assert not torch.equal(deferred["images"]["image"], expected["images"])
        for name in ("instances", "images", "image_labels"):
            assert torch.equal(got[name], expected[name])
