"""What holds for every network: raw pixels in, logits out, in any memory format, exportable."""

import pytest
import torch

from shared.networks import DeepLabV2, InstanceClassifier, UNet

NETWORKS = {
    "classifier": lambda norm="batch": InstanceClassifier("resnet10", norm=norm),
    "deeplab": lambda norm="batch": DeepLabV2("resnet10", norm=norm),
    "unet": lambda norm="batch": UNet(features=(8, 16, 16, 16, 16, 8), norm=norm),
}


def random_images(height, width, batch_size=2):
    shape = (batch_size, 3, height, width)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def make(name, norm="batch"):
    torch.manual_seed(0)
    return NETWORKS[name](norm).eval()


def expected_shape(name, batch_size, height, width):
    return (batch_size, 1) if name == "classifier" else (batch_size, 2, height, width)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_shape_of_any_image_size(name):
    network = make(name)
    for height, width in ((37, 50), (16, 33)):
        images = random_images(height, width)
        logits = network(images)
        assert logits.shape == expected_shape(name, 2, height, width)
        assert logits.dtype == torch.float32
        assert torch.equal(network(images), logits)
        assert torch.equal(network(images.float()), logits)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@torch.no_grad()
def test_backbones(backbone):
    assert InstanceClassifier(backbone).eval()(random_images(32, 32)).shape == (2, 1)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_channels_last_and_bfloat16(name):
    network, images = make(name), random_images(40, 56)
    logits = network(images)
    network.to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(images), logits, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(network(images).float(), logits, atol=0.05, rtol=0.05)
    assert network.to(torch.bfloat16)(images).dtype == torch.bfloat16


@pytest.mark.parametrize(("name", "norm"), [("classifier", "group"), ("deeplab", "frozen"), ("unet", "batch")])
@torch.no_grad()
def test_state_dict_round_trip(name, norm):
    network, images = make(name, norm), random_images(32, 32)
    network.train()(images)
    other = NETWORKS[name](norm).eval()
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(images), network.eval()(images))


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_scripted_network_takes_other_sizes(name):
    network = make(name)
    scripted = torch.jit.script(network)
    for size in (32, 45):
        images = random_images(size, 48)
        torch.testing.assert_close(scripted(images), network(images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "norm"), [("classifier", "frozen"), ("deeplab", "batch"), ("unet", "group")])
def test_every_parameter_learns(name, norm):
    network = make(name, norm).train()
    network(random_images(32, 32)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_rejects_grey_images(name):
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\); got \[2, 1, 32, 32\]"):
        make(name)(torch.zeros(2, 1, 32, 32))


def test_rejects_unknown_parts():
    with pytest.raises(ValueError, match=r"resnet10, .*got 'vgg16'"):
        InstanceClassifier("vgg16")
    with pytest.raises(ValueError, match="got 'instance'"):
        UNet(features=(8,) * 6, norm="instance")
    with pytest.raises(ValueError, match=r"six numbers.*got \(8, 8\)"):
        UNet(features=(8, 8))
    with pytest.raises(ValueError, match=r">= 1; got \(0, 6\)"):
        DeepLabV2("resnet10", atrous_rates=(0, 6))


def test_unet_has_the_widths_of_the_paper():
    with torch.device("meta"):
        network = UNet()
    # Ronneberger's network has 31 million parameters.
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    assert 30.5e6 < num_parameters < 31.5e6
