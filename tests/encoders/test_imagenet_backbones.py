"""ResNets and VGG-16 as encoders, against the stages of MONAI's network and of torchvision's order of layers."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from shared.encoders import load_encoder
from shared.networks.backbones.resnet import resnet
from shared.networks.layers.packed_strides import unpack_strides
from shared.networks.layers.pixel_normalization import PixelNormalization

# torchvision's cfgs["D"]: channels of the convolutions, "M" for pooling.
VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


@pytest.fixture
def images():
    return torch.randint(0, 256, (1, 3, 64, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def torchvision_vgg16(with_batch_norm):
    """torchvision's ``features``, as its `make_layers` appends layers."""
    layers, channels = [], 3
    for entry in VGG16:
        if entry == "M":
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers.append(nn.Conv2d(channels, entry, 3, padding=1))
        layers += [nn.BatchNorm2d(entry)] if with_batch_norm else []
        layers.append(nn.ReLU())
        channels = entry
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize(("name", "channels"), [("resnet18", [64, 128, 256, 512]), ("resnet50", [256, 512, 1024, 2048])])
def test_resnet_stages(tmp_path, images, name, channels):
    network = resnet(name, num_classes=1000).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    encoder = load_encoder(name, strides_px=(4, 8, 16, 32), checkpoint_path=tmp_path / "weights.pth")
    assert list(encoder.map_channels) == channels
    expected = network.maxpool(network.act(network.bn1(network.conv1(PixelNormalization()(images)))))
    for layer, found in zip(
        (network.layer1, network.layer2, network.layer3, network.layer4),
        unpack_strides(encoder(images), channels, [4, 8, 16, 32]),
        strict=True,
    ):
        expected = layer(expected)
        assert_close(found, expected)
    fine = load_encoder(name, strides_px=(8,), checkpoint_path=tmp_path / "weights.pth")
    assert fine(images).shape == (1, channels[1], 8, 12)
    assert len(fine.stages) == 2


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_vgg_stages(tmp_path, images, name):
    network = torchvision_vgg16(name == "vgg16_bn")
    weights = {f"features.{key}": value for key, value in network.state_dict().items()}
    torch.save(weights | {"classifier.0.weight": torch.zeros(1)}, tmp_path / "weights.pth")
    expected, maps = PixelNormalization()(images), []
    for layer in network:
        if isinstance(layer, nn.MaxPool2d):
            maps.append(expected)
        expected = layer(expected)
    for strides in [(16,), (1, 2, 4), (8, 16)]:
        encoder = load_encoder(name, strides_px=strides, checkpoint_path=tmp_path / "weights.pth")
        found = unpack_strides(encoder(images), list(encoder.map_channels), list(encoder.strides_px))
        for one, stride in zip(found, strides, strict=True):
            assert_close(one, maps[stride.bit_length() - 1])
    assert load_encoder(name, checkpoint_path=tmp_path / "weights.pth").stride_px == 16


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(resnet("resnet18").state_dict(), tmp_path / "weights.pth")
    for name in ("resnet34", "vgg16", "vgg16_bn"):
        with pytest.raises(ValueError, match=f"must have the keys of {name}"):
            load_encoder(name, checkpoint_path=tmp_path / "weights.pth")


@pytest.mark.parametrize(("name", "file"), [("resnet50", "resnet50-0676ba61.pth"), ("vgg16_bn", "vgg16_bn-6c64b313.pth")])
def test_it_never_starts_from_random_weights(tmp_path, monkeypatch, name, file):
    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", no_network)
    with pytest.raises(RuntimeError, match=f"no network. Download https://download.pytorch.org/models/{file}"):
        load_encoder(name)
