from pathlib import Path

import pytest
import torch
from torch import nn

from shared.networks import IMAGENET_URLS, DeepLabV2, InstanceClassifier, resnet

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}


def torchvision_weights(backbone):
    """Random weights with the names and shapes of torchvision's file, written down from its ResNet, not MONAI's."""
    torch.manual_seed(0)
    weights = {}

    def add_convolution(name, out_channels, in_channels, size):
        weights[f"{name}.weight"] = torch.randn(out_channels, in_channels, size, size)

    def add_batch_norm(name, channels):
        for key in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{name}.{key}"] = torch.rand(channels)

    is_bottleneck = backbone == "resnet50"
    add_convolution("conv1", 64, 3, 7)
    add_batch_norm("bn1", 64)
    in_channels = 64
    for stage, num_blocks in enumerate(BLOCKS[backbone], start=1):
        width = 32 * 2**stage
        out_channels = 4 * width if is_bottleneck else width
        for block in range(num_blocks):
            name = f"layer{stage}.{block}"
            if is_bottleneck:
                shapes = [(width, in_channels, 1), (width, width, 3), (out_channels, width, 1)]
            else:
                shapes = [(width, in_channels, 3), (width, width, 3)]
            for number, shape in enumerate(shapes, start=1):
                add_convolution(f"{name}.conv{number}", *shape)
                add_batch_norm(f"{name}.bn{number}", shape[0])
            if block == 0 and in_channels != out_channels:
                add_convolution(f"{name}.downsample.0", out_channels, in_channels, 1)
                add_batch_norm(f"{name}.downsample.1", out_channels)
            in_channels = out_channels
    weights["fc.weight"], weights["fc.bias"] = torch.randn(1000, in_channels), torch.randn(1000)
    return weights


def put_weights(hub, backbone):
    weights = torchvision_weights(backbone)
    torch.save(weights, hub / Path(IMAGENET_URLS[backbone]).name)
    return weights


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_every_weight_arrives(hub, backbone):
    weights = put_weights(hub, backbone)
    state = InstanceClassifier(backbone, pretrained=True).resnet.state_dict()
    for key, value in weights.items():
        if not key.startswith("fc."):
            assert torch.equal(state[key], value), key
    arrived = {key for key in state if not key.endswith("num_batches_tracked")}
    assert arrived == set(weights)
    assert state["fc.weight"].shape[0] == 1


def test_every_weight_of_a_segmentation_network_arrives(hub):
    weights = put_weights(hub, "resnet18")
    state = DeepLabV2("resnet18", pretrained=True).backbone.state_dict()
    assert all(torch.equal(state[key], value) for key, value in weights.items() if not key.startswith("fc."))


def test_frozen_takes_statistics_and_group_only_convolutions(hub):
    weights = put_weights(hub, "resnet18")
    frozen = resnet("resnet18", norm="frozen", pretrained=True)
    assert torch.equal(frozen.layer3[0].downsample[1].running_var, weights["layer3.0.downsample.1.running_var"])
    grouped = resnet("resnet18", norm="group", pretrained=True)
    assert torch.equal(grouped.layer3[0].conv1.weight, weights["layer3.0.conv1.weight"])
    norms = [layer for layer in grouped.modules() if isinstance(layer, nn.GroupNorm)]
    assert all((layer.weight == 1).all() and (layer.bias == 0).all() for layer in norms)


def test_local_file(hub, tmp_path):
    weights = torchvision_weights("resnet18")
    torch.save(weights, tmp_path / "own.pth")
    network = resnet("resnet18", pretrained=True, weights_path=tmp_path / "own.pth")
    assert torch.equal(network.conv1.weight, weights["conv1.weight"])


def test_a_failed_download_names_file_and_folder(hub):
    with pytest.raises(RuntimeError) as error:
        InstanceClassifier("resnet18", pretrained=True)
    assert IMAGENET_URLS["resnet18"] in str(error.value)
    assert str(hub / "resnet18-f37072fd.pth") in str(error.value)
    assert "no network" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"<html>proxy error</html>"])
def test_a_broken_file_is_named(hub, content):
    (hub / "resnet18-f37072fd.pth").write_bytes(content)
    with pytest.raises(RuntimeError, match=r"(?s)cannot get the ImageNet weights.*resnet18-f37072fd"):
        resnet("resnet18", pretrained=True)


def test_rejects_weights_that_do_not_fit(hub, tmp_path):
    weights = torchvision_weights("resnet18")
    path = tmp_path / "own.pth"
    torch.save(weights, path)
    with pytest.raises(ValueError, match=r"keys of resnet34; \d+ missing"):
        resnet("resnet34", pretrained=True, weights_path=path)
    weights["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    torch.save(weights, path)
    with pytest.raises(ValueError, match=r"conv1.weight must be \(64, 3, 7, 7\); got \(64, 1, 7, 7\)"):
        resnet("resnet18", pretrained=True, weights_path=path)


def test_rejects_what_has_no_weights(hub, tmp_path):
    with pytest.raises(ValueError, match=r"resnet18, resnet34.*got 'resnet10'"):
        resnet("resnet10", pretrained=True)
    with pytest.raises(RuntimeError, match=r"cannot read the weights .*absent.pth"):
        resnet("resnet18", pretrained=True, weights_path=tmp_path / "absent.pth")
    with pytest.raises(ValueError, match="pretrained=False"):
        resnet("resnet18", weights_path=tmp_path / "absent.pth")
