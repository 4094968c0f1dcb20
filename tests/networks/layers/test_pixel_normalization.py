import copy
import warnings

import pytest
import torch
from torch import nn

from shared.networks import IMAGENET_MEAN, IMAGENET_STD, BoostedPatches, PixelNormalization, UNet, normalized_by


def random_images(*shape):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_value_by_hand():
    normalization = PixelNormalization(mean=(0.5, 0.4, 0.0), std=(0.5, 0.2, 1.0))
    pixels = torch.tensor([255, 51, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    # (1 - 0.5) / 0.5, (0.2 - 0.4) / 0.2, 0.2
    torch.testing.assert_close(normalization(pixels).flatten(), torch.tensor([1.0, -1.0, 0.2]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.float64])
def test_formula_for_every_type(dtype):
    images = random_images(2, 3, 5, 7)
    expected = (images / 255 - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    normalised = PixelNormalization()(images.to(dtype))
    assert normalised.dtype == torch.float32
    torch.testing.assert_close(normalised, expected)


def test_keeps_channels_last_and_float32_under_autocast():
    images = random_images(2, 3, 6, 4).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        normalised = PixelNormalization()(images)
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    assert normalised.dtype == torch.float32


def test_follows_the_type_of_a_converted_network():
    assert PixelNormalization().to(torch.bfloat16)(random_images(1, 3, 2, 2)).dtype == torch.bfloat16


def test_checkpoint_carries_mean_and_std():
    trained = PixelNormalization(mean=(0.7, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    loaded = PixelNormalization()
    loaded.load_state_dict(trained.state_dict())
    images = random_images(1, 3, 4, 4)
    assert torch.equal(loaded(images), trained(images))


def test_statistics_of_other_images_take_the_place_of_the_first():
    network = nn.Module()
    network.normalization = PixelNormalization()
    statistics = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    assert normalized_by(network, None) is normalized_by(network, statistics) is network
    pixels = torch.full((1, 3, 1, 1), 51, dtype=torch.uint8)
    assert network.normalization(pixels).flatten().tolist() == pytest.approx([0.1 / 0.4, 0, -0.1 / 0.6], abs=1e-6)
    with pytest.raises(ValueError, match="std above 0"):
        normalized_by(network, statistics | {"std": [0, 1, 1]})


def test_exports_to_torchscript():
    images = random_images(2, 3, 5, 7)
    normalization = PixelNormalization()
    for exported in (torch.jit.script(normalization), torch.jit.trace(normalization, images)):
        torch.testing.assert_close(exported(images[:1, :, :3]), normalization(images[:1, :, :3]))


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 4, 4, 3), (3, 4, 4)])
def test_rejects_other_shapes(shape):
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\); got \[" + ", ".join(map(str, shape))):
        PixelNormalization()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0, 0, 0), (1, 0, 1)),
        ((123.675, 116.28, 103.53), (0.229, 0.224, 0.225)),
        ((0.485, 0.456, 0.406), (58.395, 57.12, 57.375)),
        ((0.5, -0.1, 0.5), (0.5, 0.5, 0.5)),
        ((0.5, float("nan"), 0.5), (0.5, 0.5, 0.5)),
    ],
)
def test_statistics_are_shares_of_255(mean, std):
    with pytest.raises(ValueError, match=r"must be shares of 255.*got mean=.*std=.*Divide values of pixels from 0 to 255 by 255"):
        PixelNormalization(mean, std)
    # The ends: a network that takes pixels as they are, and one that takes them from 0 to 1.
    PixelNormalization((0, 1, 0), (1, 1 / 255, 1))


def test_statistics_are_those_of_three_channels():
    with pytest.raises(ValueError, match=r"three values each.*mean=\(0.5,\)"):
        PixelNormalization(mean=(0.5,))


def warnings_of(network, *batches):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for batch in batches:
            network(batch)
    # The garbage collector may say something of earlier tests.
    return [str(warning.message) for warning in caught if warning.category is not ResourceWarning]


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (random_images(2, 3, 8, 8) / 255, "values from 0 to 1"),
        ((random_images(2, 3, 8, 8) > 100).to(torch.uint8), "values from 0 to 1"),
        (torch.linspace(-2, 2.5, 192).view(1, 3, 8, 8), "values from -2 to 2.5"),
        (random_images(2, 3, 8, 8).float() * 257, "values from 0 to 65535"),
    ],
)
def test_images_of_another_range_are_warned_of_once(images, found):
    (said,) = warnings_of(PixelNormalization(), images, images, images / 2)
    assert found.rpartition(" ")[0] in said
    assert "expected RGB values from 0 to 255" in said


def test_every_network_warns():
    networks = [
        UNet(features=[4, 4, 4, 4, 4, 4]),
        BoostedPatches(num_trees=2, patch_size_px=8),
    ]
    images = random_images(1, 3, 32, 32)
    for network in networks:
        untouched = copy.deepcopy(network)
        assert warnings_of(network.eval(), images, images / 255) == []
        assert len(warnings_of(untouched.eval(), images / 255, images / 255)) == 1


def test_images_of_the_right_range_are_not_warned_of():
    bright = random_images(1, 3, 4, 4)
    assert warnings_of(PixelNormalization(), bright, bright.float(), bright // 255) == []
    # Black images say nothing: those behind them are looked at.
    assert len(warnings_of(PixelNormalization(), bright * 0, bright / 255)) == 1
    assert warnings_of(PixelNormalization(), bright * 0, bright[:0], bright) == []


def test_an_exported_network_does_not_look():
    images = random_images(1, 3, 5, 7)
    for exported in (torch.jit.script(PixelNormalization()), torch.jit.trace(PixelNormalization(), images)):
        assert warnings_of(exported, images // 255) == []
