"""Segmentation and classification by one ResNet-18, against the two tables of the paper and a plain ResNet written out."""

import pytest
import torch
from torch.nn import functional as F

from shared.networks import IMAGENET_MEAN, IMAGENET_STD, SegClsResNet18, resnet

from .seg_cls_networks import HEADS, make, random_images


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def normalize(features, state, name):
    statistics = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    mean, variance, scale, shift = (values[:, None, None] for values in statistics)
    return (features - mean) / (variance + 1e-5).sqrt() * scale + shift


def resnet18_to_layer3(pixels, state):
    """ResNet-18 as He et al. and torchvision have it, from torchvision's names, without a module of MONAI's."""
    features = F.conv2d(pixels, state["conv1.weight"], stride=2, padding=3)
    features = F.max_pool2d(normalize(features, state, "bn1").relu(), 3, stride=2, padding=1)
    for name in ("layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1"):
        shortcut, stride = features, 1
        if f"{name}.downsample.0.weight" in state:
            stride = 2
            shortcut = F.conv2d(features, state[f"{name}.downsample.0.weight"], stride=2)
            shortcut = normalize(shortcut, state, f"{name}.downsample.1")
        features = F.conv2d(features, state[f"{name}.conv1.weight"], stride=stride, padding=1)
        features = F.conv2d(normalize(features, state, f"{name}.bn1").relu(), state[f"{name}.conv2.weight"], padding=1)
        features = (normalize(features, state, f"{name}.bn2") + shortcut).relu()
    return features


def doubled(rows):
    """Twice as many rows ``(..., h, w)``, linear between centres: 2i and 2i + 1 lie a quarter from the centre of i."""
    before = torch.cat([rows[..., :1, :], rows[..., :-1, :]], dim=-2)
    after = torch.cat([rows[..., 1:, :], rows[..., -1:, :]], dim=-2)
    return torch.stack([0.75 * rows + 0.25 * before, 0.75 * rows + 0.25 * after], dim=-2).flatten(-3, -2)


def decoded(features, state):
    """Table A.1 up to the map."""
    features = normalize(F.conv2d(features, state["decoder.0.weight"], padding=1), state, "decoder.1").relu()
    features = doubled(doubled(features).mT).mT
    weight, bias = state["decoder.4.weight"][:, :, 0, 0], state["decoder.4.bias"]
    return torch.einsum("bihw,oi->bohw", features, weight) + bias[:, None, None]


def classified(maps, state):
    """Table A.2."""
    hidden = maps.mean(dim=(2, 3)) @ state["classifier.1.weight"][:, :, 0, 0].T
    hidden = normalize(hidden[:, :, None, None], state, "classifier.2")[:, :, 0, 0].relu()
    return hidden @ state["classifier.4.weight"][:, :, 0, 0].T


def test_parameters_of_the_paper():
    # ResNet-18 has 11,689,512, its last layer 8,393,728 and the linear layer 512 * 1000 + 1000.
    assert num_parameters(make().encoder) == 11_689_512 - 8_393_728 - 513_000 == 2_782_784
    for num_classes, decoder, classifier in ((4, 147_844, 80), (2, 147_714, 48), (3, 147_779, 64)):
        network = make(num_classes=num_classes)
        assert num_parameters(network.decoder) == 256 * 64 * 9 + 2 * 64 + 65 * num_classes == decoder
        assert num_parameters(network.classifier) == 16 * num_classes + 2 * 8 == classifier
    released = make("released")
    assert num_parameters(released.classifier) == 0
    assert num_parameters(released) == 2_782_784 + 147_844


@torch.no_grad()
def test_shapes_of_the_paper():
    network, images = make(), random_images(2, 128, 128)
    features = network.encoder(network.normalization(images))
    maps = network.maps(images)
    assert features.shape == (2, 256, 8, 8)
    assert maps.shape == (2, 4, 16, 16)
    assert network(images).shape == (2, 4, 128, 128)
    assert network.classify(images).shape == (2, 4)
    # Table A.1: 16 > 128 by the nearest.
    assert torch.equal(network(images), maps.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3))
    assert torch.equal(network(images), F.interpolate(maps, (128, 128), mode="nearest"))


@torch.no_grad()
def test_encoder_is_a_resnet18_with_the_weights_of_torchvision(tmp_path):
    torch.manual_seed(0)
    # All weights of a whole ResNet-18, as in torchvision's file, norms included.
    weights = resnet("resnet18", num_classes=1000).state_dict()
    for name, value in weights.items():
        if value.dim() == 1:
            weights[name] = torch.rand_like(value) + 0.5
    torch.save(weights, tmp_path / "resnet18.pth")
    network = SegClsResNet18(pretrained=True, weights_path=tmp_path / "resnet18.pth").eval()
    state = network.encoder.state_dict()
    assert set(state) == {name for name in weights if not name.startswith(("layer4.", "fc."))}
    assert all(torch.equal(value, weights[name]) for name, value in state.items())
    pixels = torch.randn(2, 3, 70, 64, generator=torch.Generator().manual_seed(0))
    expected = resnet18_to_layer3(pixels, weights)
    torch.testing.assert_close(network.encoder(pixels), expected, rtol=1e-4, atol=1e-4 * expected.std().item())


@pytest.mark.parametrize(("height", "width"), [(64, 48), (37, 50)])
@torch.no_grad()
def test_equals_the_tables_written_out(height, width):
    network, images = make().double(), random_images(2, height, width)
    state = network.state_dict()
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = (images.double() / 255 - mean) / std
    encoder = {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
    maps = decoded(resnet18_to_layer3(pixels, encoder), state)
    # Of mean and deviation the network has float32.
    torch.testing.assert_close(network.maps(images), maps, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.classify(images), classified(maps, state), rtol=1e-4, atol=1e-5)
    rows, columns = torch.arange(height) // 8, torch.arange(width) // 8
    torch.testing.assert_close(network(images), maps[:, :, rows][:, :, :, columns], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_released_head_is_the_maximum():
    network, images = make("released"), random_images(3, 48, 64)
    assert torch.equal(network.classify(images), network.maps(images).flatten(2).max(dim=2).values)


@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_any_image_size_and_uint8_equals_float(head):
    network = make(head)
    for height, width in ((16, 33), (37, 50), (8, 8), (1, 1)):
        images = random_images(2, height, width)
        logits = network(images)
        assert logits.shape == (2, 4, height, width)
        assert logits.dtype == torch.float32
        assert torch.equal(network(images.float()), logits)
        # One place every 8 pixels from the corner on, whatever the size.
        rows, columns = torch.arange(height) // 8, torch.arange(width) // 8
        assert torch.equal(logits, network.maps(images)[:, :, rows][:, :, :, columns])


@torch.no_grad()
def test_channels_last_and_bfloat16():
    network, images = make(), random_images(2, 40, 56)
    logits, image_logits = network(images), network.classify(images)
    network.to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(images), logits, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(network(images).float(), logits, atol=0.05, rtol=0.05)
        torch.testing.assert_close(network.classify(images).float(), image_logits, atol=0.05, rtol=0.05)
    assert network.to(torch.bfloat16)(images).dtype == torch.bfloat16


@torch.no_grad()
def test_both_kinds_at_once_equal_each_alone():
    images, labelled = random_images(2, 48, 32), random_images(3, 33, 40, seed=1)
    paper, released = make("paper"), make("released")
    logits = paper(images, labelled)
    assert set(logits) == {"pixel_logits", "image_logits"}
    assert torch.equal(logits["pixel_logits"], paper(images))
    assert torch.equal(logits["image_logits"], paper.classify(labelled))
    assert set(paper(labelled=labelled)) == {"image_logits"}
    logits = released(images, labelled)
    assert set(logits) == {"pixel_logits", "image_logits", "image_logits_of_masked", "pixel_logits_of_labelled"}
    assert torch.equal(logits["pixel_logits"], released(images))
    assert torch.equal(logits["image_logits"], released.classify(labelled))
    assert torch.equal(logits["image_logits_of_masked"], released.classify(images))
    assert torch.equal(logits["pixel_logits_of_labelled"], released(labelled))
    assert set(released(labelled=labelled)) == {"image_logits", "pixel_logits_of_labelled"}


@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_scripted_network_takes_other_sizes(head, tmp_path):
    network = make(head)
    torch.jit.script(network).save(str(tmp_path / "network.ts"))
    scripted = torch.jit.load(str(tmp_path / "network.ts"))
    for size in (32, 45):
        images = random_images(2, size, 48)
        torch.testing.assert_close(scripted(images), network(images), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(scripted(images.float()), network(images), atol=1e-5, rtol=1e-4)
    labelled = random_images(2, 40, 24, seed=1)
    together, expected = scripted(images, labelled), network(images, labelled)
    assert set(together) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(together[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_traced_network_takes_other_sizes(head):
    network = make(head)
    traced = torch.jit.trace(network, random_images(1, 32, 32))
    for shape in ((2, 45, 48), (1, 64, 37)):
        images = random_images(*shape)
        torch.testing.assert_close(traced(images), network(images), atol=1e-5, rtol=1e-4)


def test_rejects_what_does_not_fit():
    with pytest.raises(ValueError, match="head must be one of paper, released; got 'max'"):
        SegClsResNet18(head="max")
    with pytest.raises(ValueError, match="at least 2, background among them; got 1"):
        SegClsResNet18(num_classes=1)
    with pytest.raises(ValueError, match="images, labelled images, or both"):
        make()()
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\); got \[2, 1, 32, 32\]"):
        make()(torch.zeros(2, 1, 32, 32))
    with pytest.raises(ValueError, match="pretrained=False"):
        SegClsResNet18(weights_path="resnet18.pth")


def test_no_random_start_in_the_place_of_weights(hub):
    with pytest.raises(RuntimeError, match=r"cannot get the ImageNet weights.*resnet18-f37072fd\.pth"):
        SegClsResNet18(pretrained=True)
