"""Networks as the evaluations take them, against the same numbers by hand."""

import torch
from torch import nn

from shared.data import split_into_instances
from shared.engines import image_and_class
from shared.evaluation import InstanceMap, ProbabilityMaps, ScoredMaps


class Colours(nn.Module):
    """Red and green are the logits of two classes; an image's scores are the means of them."""

    def forward(self, images):
        return images[:, :2].float()

    def image_scores(self, images):
        return self(images).mean(dim=(2, 3))


class MeanRed(nn.Module):
    """An instance's logit is the mean of its red."""

    def forward(self, instances):
        return instances[:, :1].float().mean(dim=(2, 3))


def images_of(height, width):
    return torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_a_map_is_the_softmax_of_the_second_class():
    images = images_of(5, 7)
    maps = ProbabilityMaps(Colours()).maps(images)
    assert maps.shape == (3, 1, 5, 7)
    torch.testing.assert_close(maps[:, 0], images[:, :2].softmax(dim=1)[:, 1])


def test_an_image_with_scores_of_its_own():
    images = images_of(5, 7)
    probability = ScoredMaps(Colours()).image_probability(images)
    torch.testing.assert_close(probability, images[:, :2].mean(dim=(2, 3)).softmax(dim=1)[:, 1])
    assert not hasattr(ProbabilityMaps(Colours()), "image_probability")


def test_answers_are_painted_on_their_instances():
    images = images_of(6, 9)
    logits = InstanceMap(MeanRed(), instances_per_side=3)(images)
    assert logits.shape == (3, 1, 6, 9)
    # Cut again, every instance is constant, and what the classifier says of it.
    cut = split_into_instances(logits, 3)[:, :, 0]
    expected = split_into_instances(images, 3)[:, :, 0].mean(dim=(2, 3))
    torch.testing.assert_close(cut, expected[:, :, None, None].expand_as(cut))


def test_labels_as_class_indices():
    images, classes = image_and_class({"image": torch.zeros(3, 3, 4, 4, dtype=torch.uint8), "label": torch.tensor([0, 1, 3])})
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert classes.dtype == torch.int64
    assert classes.tolist() == [0, 1, 1]
