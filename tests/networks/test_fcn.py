"""FCN against the same network put together from its definition, with its skips, its up-sampling and its ImageNet weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shared.networks import FCN
from shared.networks.backbones.vgg16 import STAGE_CHANNELS, VGG16Trunk, bilinear_upsampling

HEAD = 6


def images_of(height, width, batch_size=2):
    return torch.randint(0, 256, (batch_size, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def randomize(network):
    """Layers of scores begin with zeros, which would hide everything behind them."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return network


def reference(network, images):
    """FCN as Long et al. draw it: pool3, pool4 and fc7, from the layers of the network and torch's functions alone."""
    features, pooled = network.normalization(images), []
    for stage in network.trunk.stages:
        for layer in (layer for layer in stage if isinstance(layer, nn.Conv2d)):
            features = F.relu(F.conv2d(features, layer.weight, layer.bias, padding=1))
        features = F.max_pool2d(features, 2, ceil_mode=True)
        pooled.append(features)
    fc6, fc7 = (layer for layer in network.trunk.head if isinstance(layer, nn.Conv2d))
    fc7_features = F.relu(F.conv2d(F.relu(F.conv2d(pooled[4], fc6.weight, fc6.bias, padding=3)), fc7.weight, fc7.bias))
    scores = network.score_head(fc7_features)
    for skip, score, upsample in zip((pooled[3], pooled[2]), network.score_skips, network.upsamplings, strict=False):
        larger = F.conv_transpose2d(scores, upsample.weight, stride=2, padding=1)
        scores = larger[..., : skip.shape[-2], : skip.shape[-1]] + score(skip)
    size = (scores.shape[-2] * network.stride, scores.shape[-1] * network.stride)
    return F.interpolate(scores, size=size, mode="bilinear")[..., : images.shape[-2], : images.shape[-1]]


@pytest.mark.parametrize("stride", [32, 16, 8])
@torch.no_grad()
def test_it_is_the_network_of_the_paper(stride):
    torch.manual_seed(0)
    network = randomize(FCN(stride, out_channels=3, head_channels=HEAD)).eval()
    # 75 = 2 * 32 + 11: every pooling of it rounds up.
    images = images_of(75, 96)
    logits = network(images)
    assert logits.shape == (2, 3, 75, 96)
    assert logits.std() > 0
    torch.testing.assert_close(logits, reference(network, images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("factor", "height", "width"), [(2, 5, 3), (8, 4, 4)])
@torch.no_grad()
def test_upsampling_begins_as_bilinear_interpolation(factor, height, width):
    maps = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    larger = bilinear_upsampling(3, factor)(maps)
    expected = F.interpolate(maps, scale_factor=float(factor), mode="bilinear", align_corners=False)
    inner = slice(factor // 2, -(factor // 2))
    torch.testing.assert_close(larger[..., inner, inner], expected[..., inner, inner])
    # By hand: of a line 0, 1 the four places lie at -1/4, 1/4, 3/4 and 5/4.
    if factor == 2:
        line = bilinear_upsampling(1, 2)(torch.tensor([[0.0, 1.0]] * 3)[None, None])[0, 0, 2]
        torch.testing.assert_close(line[1:3], torch.tensor([0.25, 0.75]))


@torch.no_grad()
def test_at_first_the_skips_change_nothing():
    """Scores begin with zeros; with fc7's alone, FCN-8s says within the image what FCN-32s says."""
    torch.manual_seed(0)
    coarse, fine = FCN(32, head_channels=HEAD).eval(), FCN(8, head_channels=HEAD).eval()
    images = images_of(128, 128)
    assert not coarse(images).any()
    missing = fine.load_state_dict(randomize(coarse).state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert {key.partition(".")[0] for key in missing.missing_keys} == {"upsamplings", "score_skips"}
    # Bilinear in steps of two is not bilinear at once, but the mean over a place far from the border is the same.
    middle = slice(48, 80)
    expected, found = (network(images)[..., middle, middle].mean(dim=(2, 3)) for network in (coarse, fine))
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
    assert expected.std() > 0.05


@torch.no_grad()
def test_a_place_of_the_trunk_lies_over_its_pixels():
    """Whatever the size of the image: features at stride s begin at its first pixel and round up."""
    trunk = VGG16Trunk(head_channels=2)
    convolved, pooled = trunk(torch.zeros(1, 3, 70, 33))
    assert [tuple(features.shape[1:]) for features in convolved] == [
        (64, 70, 33),
        (128, 35, 17),
        (256, 18, 9),
        (512, 9, 5),
        (512, 5, 3),
    ]
    assert [tuple(features.shape[2:]) for features in pooled] == [(35, 17), (18, 9), (9, 5), (5, 3), (3, 2)]
    assert trunk.head(pooled[4]).shape == (1, 2, 3, 2)


def test_parameters_of_vgg16():
    """14,714,688 of the convolutions and, of fc6 and fc7, 4096 * (512 * 49 + 1) + 4096 * (4096 + 1)."""
    with torch.device("meta"):
        network = FCN(8, out_channels=21)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    head = 4096 * (512 * 49 + 1) + 4096 * 4097
    assert counts["trunk"] == 14_714_688 + head
    assert counts["score_head"] == 21 * 4097
    assert counts["score_skips"] == 21 * (512 + 1) + 21 * (256 + 1)
    assert counts["upsamplings"] == 2 * 21 * 21 * 16


@pytest.mark.parametrize("norm", [None, "batch", "group", "frozen"])
def test_every_parameter_learns(norm):
    torch.manual_seed(0)
    network = randomize(FCN(8, head_channels=32, norm=norm)).train()
    network(images_of(64, 64)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


@torch.no_grad()
def test_scripted_it_takes_other_sizes():
    network = randomize(FCN(8, head_channels=HEAD)).eval()
    scripted = torch.jit.script(network)
    for height, width in ((32, 40), (51, 64)):
        images = images_of(height, width)
        torch.testing.assert_close(scripted(images), network(images), atol=1e-5, rtol=1e-4)


def imagenet_file(path, head_channels):
    """A state dict with the names and the shapes of torchvision's VGG-16, but for the linear layers' width."""
    generator = torch.Generator().manual_seed(3)
    numbers = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    channels = [channel for channel, count in zip(STAGE_CHANNELS, (2, 2, 3, 3, 3), strict=True) for _ in range(count)]
    state = {}
    for number, inside, outside in zip(numbers, [3, *channels[:-1]], channels, strict=True):
        state[f"features.{number}.weight"] = torch.randn(outside, inside, 3, 3, generator=generator)
        state[f"features.{number}.bias"] = torch.randn(outside, generator=generator)
    for number, inside in ((0, 512 * 7 * 7), (3, head_channels)):
        state[f"classifier.{number}.weight"] = torch.randn(head_channels, inside, generator=generator)
        state[f"classifier.{number}.bias"] = torch.randn(head_channels, generator=generator)
    torch.save(state, path)
    return state


@torch.no_grad()
def test_imagenet_weights_of_the_linear_layers_become_convolutions(tmp_path, monkeypatch):
    """With narrow layers in the file, for 4096 channels are half a gigabyte: of one image of 7 x 7 places both give the same."""
    monkeypatch.setattr("shared.networks.backbones.vgg16.PAPER_HEAD_CHANNELS", HEAD)
    state = imagenet_file(tmp_path / "vgg16.pth", HEAD)
    network = FCN(32, head_channels=HEAD, pretrained=True, weights_path=tmp_path / "vgg16.pth")
    torch.testing.assert_close(network.trunk.stages[4][4].weight, state["features.28.weight"])
    features = torch.randn(2, 512, 7, 7, generator=torch.Generator().manual_seed(0))
    flat = F.relu(F.linear(features.flatten(1), state["classifier.0.weight"], state["classifier.0.bias"]))
    expected = F.relu(F.linear(flat, state["classifier.3.weight"], state["classifier.3.bias"]))
    torch.testing.assert_close(network.trunk.head.eval()(features)[:, :, 3, 3], expected, rtol=1e-3, atol=1e-2)


def test_a_narrower_head_begins_at_random(tmp_path):
    imagenet_file(tmp_path / "vgg16.pth", HEAD)
    FCN(32, head_channels=2 * HEAD, pretrained=True, weights_path=tmp_path / "vgg16.pth")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"stride": 4}, "stride must be 32, 16 or 8; got 4"),
        ({"pretrained": True, "norm": "batch"}, "without normalisation; got pretrained=True and norm='batch'"),
        ({"weights_path": "vgg16.pth"}, "weights_path needs pretrained=True"),
        ({"norm": "layer"}, "norm must be one of batch, group, frozen; got 'layer'"),
    ],
)
def test_what_does_not_fit_is_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        FCN(head_channels=HEAD, **options)


def test_weights_that_cannot_be_had_are_an_error(hub):
    with pytest.raises(RuntimeError, match=r"cannot get the ImageNet weights.*vgg16-397923af.pth"):
        FCN(head_channels=HEAD, pretrained=True)
