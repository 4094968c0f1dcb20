"""WILDCAT's pooling by hand, by the definition over all choices of places, and its network."""

from itertools import combinations

import pytest
import torch
from torch.nn import functional as F

from shared.networks import Wildcat, max_min_pooling


def images_of(height, width):
    return torch.randint(0, 256, (2, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def by_definition(maps, k_max, k_min, alpha):
    """Equation (2): the best of all choices of k+ places, and the worst of all choices of k- places."""
    scores = torch.empty(maps.shape[:2])
    for image, classes in enumerate(maps.flatten(2).tolist()):
        for index, places in enumerate(classes):
            highest = max(sum(chosen) / k_max for chosen in combinations(places, k_max))
            lowest = min(sum(chosen) / k_min for chosen in combinations(places, k_min)) if k_min else 0
            scores[image, index] = highest + alpha * lowest
    return scores


@pytest.mark.parametrize(("k_max", "k_min", "alpha"), [(1, 1, 1.0), (3, 2, 0.7), (6, 6, 0.5), (2, 0, 0.7)])
def test_pooling_is_the_equation(k_max, k_min, alpha):
    maps = torch.randn(2, 3, 2, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(max_min_pooling(maps, k_max, k_min, alpha), by_definition(maps, k_max, k_min, alpha))


def test_pooling_by_hand():
    maps = torch.tensor([[5.0, 1.0, 3.0, -1.0, -3.0]]).view(1, 1, 1, 5)
    # 0.4 of five places are two: (5 + 3) / 2 + 0.7 * (-1 - 3) / 2.
    assert max_min_pooling(maps, 0.4, 0.4, 0.7).item() == pytest.approx(4 - 1.4)
    assert max_min_pooling(maps, 1, 1, 1).item() == 2
    # A share of less than half a place is one place; a number beyond all of them is all.
    assert max_min_pooling(maps, 0.01, 0, 1).item() == 5
    assert max_min_pooling(maps, 99, 99, 0.5).item() == pytest.approx(1.5)


def test_gradients_reach_the_chosen_places_alone():
    maps = torch.arange(10.0, dtype=torch.float64).view(1, 1, 2, 5).requires_grad_()
    max_min_pooling(maps, 0.2, 0.3, 0.6).sum().backward()
    assert maps.grad.flatten().tolist() == pytest.approx([0.2, 0.2, 0.2, 0, 0, 0, 0, 0, 0.5, 0.5])
    assert torch.autograd.gradcheck(lambda values: max_min_pooling(values, 2, 3, 0.7), maps.detach().requires_grad_())


@pytest.mark.parametrize("k", [{"k_max": 0}, {"k_min": -0.1}])
def test_impossible_numbers_of_places_are_refused(k):
    with pytest.raises(ValueError, match="need k_max > 0 and k_min >= 0; got"):
        max_min_pooling(torch.zeros(1, 1, 2, 2), **k)
    with pytest.raises(ValueError, match="need k_max > 0 and k_min >= 0; got"):
        Wildcat("resnet10", **k)


def make(**options):
    torch.manual_seed(0)
    return Wildcat("resnet10", **options).eval()


@pytest.mark.parametrize(("output_stride", "height", "width"), [(32, 3, 4), (16, 5, 7), (8, 9, 13)])
@torch.no_grad()
def test_maps_of_a_class_are_averaged(output_stride, height, width):
    network = make(num_classes=3, maps_per_class=4, output_stride=output_stride)
    images = images_of(70, 100)
    backbone = network.backbone
    features = backbone.maxpool(backbone.act(backbone.bn1(backbone.conv1(network.normalization(images)))))
    for layer in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4):
        features = layer(features)
    # One convolution of the mean weights is the mean of the maps.
    weight = network.transfer.weight.view(3, 4, -1, 1, 1).mean(1)
    expected = F.conv2d(features, weight, network.transfer.bias.view(3, 4).mean(1))
    maps = network.score_maps(images)
    assert maps.shape == (2, 3, height, width)
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_images_are_scored_in_training_and_pixels_afterwards():
    network, images = make(k_max=2, k_min=0.25, alpha=0.3), images_of(64, 96)
    maps = network.score_maps(images)
    pixels = network(images)
    assert pixels.shape == (2, 2, 64, 96)
    torch.testing.assert_close(pixels, F.interpolate(maps, size=(64, 96), mode="bilinear"))
    torch.testing.assert_close(network.image_scores(images), max_min_pooling(maps, 2, 0.25, 0.3))
    torch.testing.assert_close(torch.jit.script(network)(images), pixels, atol=1e-5, rtol=1e-4)
    network.train()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eval()
    torch.testing.assert_close(network(images), max_min_pooling(maps, 2, 0.25, 0.3))


def test_every_parameter_learns_and_weights_return():
    network = make(norm="group").train()
    F.cross_entropy(network(images_of(64, 64)), torch.tensor([0, 1])).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())
    other = make(norm="group")
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(other(images_of(64, 64)), network.eval()(images_of(64, 64)))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"num_classes": 0}, "num_classes=0"),
        ({"maps_per_class": 0}, "maps_per_class=0"),
        ({"output_stride": 4}, "output_stride must be 8 or 16; got 4"),
        ({"backbone": "vgg16"}, "got 'vgg16'"),
        ({"norm": None}, "got None"),
    ],
)
def test_what_does_not_fit_is_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        Wildcat(**{"backbone": "resnet10"} | options)
