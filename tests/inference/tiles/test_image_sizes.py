"""What a network gets of an image whose size it does not take, and that it gets every other one as it is."""

import logging

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from shared.inference.tiles.image_sizes import ImageSizes, mirrored_to
from shared.inference.tiles.tile_network import CompiledTileNetwork, TileNetwork, compile_problem
from shared.networks import BoostedPatches, InstanceClassifier, ProbabilityEnsemble, SideOutputVGG, UNet as PaddedUNet

CPU = torch.device("cpu")


class Blocks(nn.Module):
    """One answer every 8 px: whether there is red in it. Of other sizes it would squeeze its answers into the image."""

    size_multiple_px = 8

    def forward(self, images):
        assert images.shape[2] % 8 == images.shape[3] % 8 == 0
        self.seen = images
        return nn.functional.max_pool2d((images[:, :1] > 128).float() * 20 - 10, 8)


def tiles_of(height, width):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("tta", ["none", "dihedral"])
def test_another_size_is_mirrored_and_the_answer_cropped(tta):
    network, tiles = Blocks(), torch.zeros(1, 20, 12, 3, dtype=torch.uint8)
    tiles[0, 17, 10, 0] = 255
    found = TileNetwork(network, tta=tta)(tiles, (20, 12))[0, 0] > 0.5
    if tta == "none":
        seen = network.seen[0, 0].numpy()
        np.testing.assert_array_equal(seen, np.pad(tiles[0, :, :, 0].numpy(), ((0, 4), (0, 4)), mode="reflect"))
    # Bilinear from blocks of 8 px: the last block down and right, to within its rim.
    assert found[17:, 10:].all()
    assert not found[:10].any()
    assert not found[:, :4].any()


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (40, 16)])
def test_mirroring_goes_on_for_as_long_as_is_needed(shape):
    images = torch.rand(2, 3, *shape)
    found = mirrored_to(images, (48, 40))
    expected = np.pad(images.numpy(), ((0, 0), (0, 0), (0, 48 - shape[0]), (0, 40 - shape[1])), mode="reflect")
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize(
    ("network", "sizes"),
    [
        (InstanceClassifier("resnet10", dense_stride=16), ImageSizes(16, 1)),
        (ProbabilityEnsemble([InstanceClassifier("resnet10", dense_stride=32)]), ImageSizes(32, 1)),
        (InstanceClassifier("resnet10"), ImageSizes()),
        (PaddedUNet(features=(4, 4, 4, 4, 4, 4)), ImageSizes(1, 16)),
        (nn.Sequential(nn.Identity(), SideOutputVGG(num_stages=2)), ImageSizes(1, 2)),
        (BoostedPatches(2, patch_size_px=16, stride_px=4), ImageSizes(1, 11)),
        (nn.Conv2d(3, 1, 3), ImageSizes()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_networks_say_what_they_take_and_take_it(network, sizes):
    assert ImageSizes.of_network(network) == sizes
    network.eval()
    for side in (1, 13):
        with torch.inference_mode():
            assert TileNetwork(network)(tiles_of(side, side + 1), (side, side + 1)).shape[2:] == (side, side + 1)


def test_a_network_that_does_not_say_so_is_tried_with_the_usual_multiple(caplog):
    torch.manual_seed(0)
    network = UNet(2, 3, 1, channels=(4, 8, 8), strides=(2, 2)).eval()
    tiles = tiles_of(50, 66)
    with torch.inference_mode(), caplog.at_level(logging.WARNING):
        found = TileNetwork(network)(tiles, (50, 66))
        images = np.pad(tiles.permute(0, 3, 1, 2).float().numpy(), ((0, 0), (0, 0), (0, 14), (0, 30)), mode="reflect")
        expected = network(torch.from_numpy(images)).sigmoid()[:, :, :50, :66]
    torch.testing.assert_close(found, expected)
    assert "UNet does not accept 66 x 50 px: mirrored at the border to 96 x 64 px" in caplog.text


def test_what_fails_at_every_size_says_why_it_failed_at_the_images_own():
    class Broken(nn.Module):
        def forward(self, images):
            raise ValueError(f"no answer for {images.shape[3]} px")

    with pytest.raises(ValueError, match="no answer for 50 px"):
        TileNetwork(Broken())(tiles_of(40, 50), (40, 50))


@pytest.mark.skipif(compile_problem(CPU) is not None, reason="torch.compile does not work here")
@pytest.mark.slow
def test_a_compiled_network_gets_mirrored_tiles_too():
    torch._dynamo.reset()
    network = InstanceClassifier("resnet10", dense_stride=16).eval()
    plain, tiles = TileNetwork(network), tiles_of(40, 40)
    with torch.inference_mode():
        compiled = CompiledTileNetwork(plain, batch_size=1, tile_size_px=40)(tiles, (10, 10))
        torch.testing.assert_close(compiled, plain(tiles, (10, 10)), atol=1e-4, rtol=1e-4)
