import pytest
import torch
from torch import nn

from shared.networks import DeepLabV2, dilate_resnet, resnet


def features(network, images):
    stem = network.maxpool(network.act(network.bn1(network.conv1(images))))
    return network.layer4(network.layer3(network.layer2(network.layer1(stem))))


@pytest.mark.parametrize(("backbone", "height", "width"), [("resnet18", 75, 101), ("resnet50", 64, 43)])
@torch.no_grad()
def test_every_fourth_feature_is_the_undilated_network_s(backbone, height, width):
    torch.manual_seed(0)
    network = resnet(backbone).double().eval()
    images = torch.randn(1, 3, height, width, dtype=torch.float64)
    coarse = features(network, images)
    dense = features(dilate_resnet(network), images)
    assert dense.shape[-2:] == (-(-height // 8), -(-width // 8))
    torch.testing.assert_close(dense[..., ::4, ::4], coarse)


@pytest.mark.parametrize("backbone", ["resnet34", "resnet50"])
def test_dilations(backbone):
    network = dilate_resnet(resnet(backbone))
    num_blocks = {"layer1": 3, "layer2": 4, "layer3": 6, "layer4": 3}
    convolutions_a_block = 2 if backbone == "resnet34" else 1
    # The first 3 x 3 convolution of a stage had the stride and keeps the dilation of the stage before.
    for name, first, rest in (("layer1", 1, 1), ("layer2", 1, 1), ("layer3", 1, 2), ("layer4", 2, 4)):
        layers = [layer for layer in getattr(network, name).modules() if isinstance(layer, nn.Conv2d)]
        dilations = [layer.dilation for layer in layers if layer.kernel_size == (3, 3)]
        num_rest = num_blocks[name] * convolutions_a_block - 1
        assert dilations == [(first, first)] + [(rest, rest)] * num_rest
        if name in ("layer3", "layer4"):
            assert all(layer.stride == (1, 1) for layer in layers)


def test_feature_map_and_pyramid_rates():
    network = DeepLabV2("resnet10", out_channels=3, atrous_rates=(2, 5)).eval()
    images = torch.zeros(1, 3, 41, 80)
    with torch.no_grad():
        assert network.features(images).shape == (1, 512, 6, 10)
        assert network(images).shape == (1, 3, 41, 80)
    assert [branch.dilation for branch in network.pyramid.branches] == [(2, 2), (5, 5)]


@torch.no_grad()
def test_pyramid_is_the_sum_of_its_branches():
    torch.manual_seed(0)
    pyramid = DeepLabV2("resnet10").pyramid
    impulse = torch.zeros(1, 512, 49, 49)
    impulse[:, :, 24, 24] = 1
    bias = sum(branch.bias for branch in pyramid.branches)
    response = pyramid(impulse)[0] - bias[:, None, None]
    # Each 3 x 3 branch answers at its rate's distance, in eight directions, and all of them in the centre.
    reached = {(int(y) - 24, int(x) - 24) for y, x in (response.abs().sum(0) > 1e-5).nonzero()}
    assert reached == {(y * rate, x * rate) for rate in (6, 12, 18, 24) for y in (-1, 0, 1) for x in (-1, 0, 1)}


def test_a_checkpoint_carries_its_dilations():
    trained = DeepLabV2("resnet10", atrous_rates=(1, 2, 3, 5)).eval()
    loaded = DeepLabV2("resnet10").eval()
    images = torch.randint(0, 256, (1, 3, 64, 48))
    loaded.load_state_dict(trained.state_dict())
    assert [branch.dilation for branch in loaded.pyramid.branches] == [(1, 1), (2, 2), (3, 3), (5, 5)]
    torch.testing.assert_close(loaded(images), trained(images))
