"""The classifier's map of logits, and the ResNet of stride 16 behind it."""

import pytest
import torch
from torch import nn

from shared.networks import InstanceClassifier, dilate_resnet, resnet


def make(dense_stride=None, backbone="resnet10", norm="batch"):
    torch.manual_seed(0)
    network = InstanceClassifier(backbone, norm=norm, dense_stride=dense_stride)
    # Running statistics as after a training: with the initial ones batch normalisation would be the identity.
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return network.double().eval()


def images(height=224, width=224, batch_size=2):
    shape = (batch_size, 3, height, width)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1)).double()


def features(network, inputs):
    stem = network.maxpool(network.act(network.bn1(network.conv1(inputs))))
    return network.layer4(network.layer3(network.layer2(network.layer1(stem))))


@pytest.mark.parametrize("norm", ["batch", "group", "frozen"])
def test_parameters_are_the_same_with_and_without(norm):
    plain, *dense = (InstanceClassifier("resnet10", norm=norm, dense_stride=stride).state_dict() for stride in (None, 32, 16))
    for state in dense:
        assert {name: value.shape for name, value in state.items()} == {name: value.shape for name, value in plain.items()}


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@torch.no_grad()
@pytest.mark.slow
def test_either_form_loads_the_other_and_the_mean_is_the_logit(backbone):
    plain = make(None, backbone)
    dense = InstanceClassifier(backbone, dense_stride=32).double().eval()
    dense.load_state_dict(plain.state_dict())
    logits = dense(images())
    assert logits.shape == (2, 1, 7, 7)
    # The linear layer of a mean is the mean of the linear layer.
    torch.testing.assert_close(logits.mean(dim=(2, 3)), plain(images()))
    assert logits[0].std() > 1e-4
    back = InstanceClassifier(backbone).double().eval()
    back.load_state_dict(dense.state_dict())
    assert torch.equal(back(images()), plain(images()))


@torch.no_grad()
def test_mean_is_the_logit_of_sizes_that_are_no_multiple_of_the_stride():
    logits = make(32)(images(75, 101))
    assert logits.shape == (2, 1, 3, 4)
    torch.testing.assert_close(logits.mean(dim=(2, 3)), make(None)(images(75, 101)))


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@torch.no_grad()
@pytest.mark.slow
def test_every_second_logit_of_stride_16_is_that_of_stride_32(backbone):
    coarse, dense = make(32, backbone)(images()), make(16, backbone)(images())
    assert dense.shape == (2, 1, 14, 14)
    # Layer 4 without its stride answers at every place, and at places 0, 2, ... it sees what it saw with the stride: its first
    # convolution is as it was, and the later ones, spread by 2, step from such place to such place, beyond the border to zeros
    # in both. Places 1, 3, ... are new.
    torch.testing.assert_close(dense[..., ::2, ::2], coarse)
    assert not torch.isclose(dense[..., 1::2, 1::2], coarse).any()


@pytest.mark.parametrize(("backbone", "height", "width"), [("resnet18", 75, 101), ("resnet34", 33, 64), ("resnet50", 64, 43)])
@torch.no_grad()
def test_every_second_feature_is_the_undilated_network_s(backbone, height, width):
    torch.manual_seed(0)
    network = resnet(backbone).double().eval()
    inputs = torch.randn(1, 3, height, width, dtype=torch.float64)
    coarse = features(network, inputs)
    dense = features(dilate_resnet(network, output_stride=16), inputs)
    assert dense.shape[-2:] == (-(-height // 16), -(-width // 16))
    torch.testing.assert_close(dense[..., ::2, ::2], coarse)


@pytest.mark.parametrize("backbone", ["resnet34", "resnet50"])
def test_dilations_of_stride_16(backbone):
    network = dilate_resnet(resnet(backbone), output_stride=16)
    convolutions = {
        name: [layer for layer in getattr(network, name).modules() if isinstance(layer, nn.Conv2d)]
        for name in ("layer1", "layer2", "layer3", "layer4")
    }
    dilations = {name: [layer.dilation[0] for layer in layers] for name, layers in convolutions.items()}
    assert all(set(dilations[name]) == {1} for name in ("layer1", "layer2", "layer3"))
    spread = [layer.dilation for layer in convolutions["layer4"] if layer.kernel_size == (3, 3)]
    assert spread == [(1, 1)] + [(2, 2)] * (len(spread) - 1)
    strided = {name: sum(layer.stride == (2, 2) for layer in layers) for name, layers in convolutions.items()}
    # Of a stage with a stride: the convolution and the shortcut.
    assert strided == {"layer1": 0, "layer2": 2, "layer3": 2, "layer4": 0}


@pytest.mark.parametrize("output_stride", [4, 32])
def test_rejects_other_output_strides(output_stride):
    with pytest.raises(ValueError, match=f"8 or 16; got {output_stride}"):
        dilate_resnet(resnet("resnet10"), output_stride)


@pytest.mark.parametrize("dense_stride", [0, 8, 224])
def test_rejects_other_dense_strides(dense_stride):
    with pytest.raises(ValueError, match=f"16, 32 or None; got {dense_stride}"):
        InstanceClassifier("resnet10", dense_stride=dense_stride)


@pytest.mark.parametrize("dense_stride", [32, 16])
def test_gradients_reach_every_parameter(dense_stride):
    network = InstanceClassifier("resnet10", dense_stride=dense_stride)
    network(images(64, 64).float()).mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("dense_stride", [32, 16])
@torch.no_grad()
def test_scripted_and_channels_last(dense_stride):
    network, inputs = make(dense_stride), images(64, 96)
    expected = network(inputs)
    assert torch.equal(torch.jit.script(network)(inputs), expected)
    network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(inputs.contiguous(memory_format=torch.channels_last)), expected)
