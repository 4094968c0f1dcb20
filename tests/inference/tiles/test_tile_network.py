"""Faster must not be different: bfloat16, channels_last, compiled and symmetrised against fp32 NCHW, one tile after the other."""

import copy
import warnings

import pytest
import torch
from torch import nn

from shared.inference import Compute, SlideMapper
from shared.inference.tiles.tile_network import CompiledTileNetwork, TileNetwork, compile_problem
from shared.networks import InstanceClassifier, PixelNormalization
from shared.networks.precision import computes_bfloat16
from shared.synthetic import synthesize_image

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def image():
    """Generated tissue with tumour."""
    return synthesize_image(3, tumour_share=0.4, size_px=640)


@pytest.fixture(scope="module")
def tiles(image):
    """uint8 (8, 160, 160, 3)."""
    return cut(torch.from_numpy(image.image))


def cut(whole):
    return torch.stack([whole[y : y + 160, x : x + 160] for y in (0, 160, 320, 480) for x in (80, 400)])


@pytest.fixture(scope="module")
def network(image, tiles):
    """A few steps of training on the tiles: random weights have no borders between sure answers, which a tumour mask is about."""
    torch.manual_seed(0)
    network = InstanceClassifier("resnet10", dense_stride=16).to(memory_format=torch.channels_last)
    for layer in (layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)):
        layer.momentum = 0.5  # or its statistics would lag behind so few steps
    truth = nn.functional.avg_pool2d(cut(torch.from_numpy(image.mask)).float()[:, None], 16)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(20):
        loss = nn.functional.binary_cross_entropy_with_logits(network(tiles.permute(0, 3, 1, 2).float()), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def reference(network, tiles):
    """fp32, NCHW, tile by tile."""
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    images = tiles.permute(0, 3, 1, 2).float().contiguous()
    with torch.inference_mode():
        return torch.cat([plain(image[None]).sigmoid() for image in images])


def agree(found, expected):
    mask, truth = found >= 0.5, expected >= 0.5
    dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    difference = (found - expected).abs().mean()
    print(f"mean absolute difference {difference:.2g}, Dice {dice:.5f}")
    assert 0.2 < truth.float().mean() < 0.8
    assert difference < 0.01
    assert dice > 0.995


@pytest.mark.parametrize("amp", [False, True])
def test_channels_last_and_bfloat16_agree_with_fp32_nchw(network, tiles, amp):
    bfloat16 = amp and computes_bfloat16(CPU)
    fast = TileNetwork(copy.deepcopy(network).to(memory_format=torch.channels_last), bfloat16=bfloat16)
    with torch.inference_mode():
        found = fast(tiles, (40, 40))
        at_its_own = fast(tiles, (10, 10))
    assert (found.dtype, found.shape) == (torch.float32, (8, 1, 40, 40))
    agree(found, nn.functional.interpolate(reference(network, tiles), size=(40, 40), mode="bilinear"))
    is_exact = bool((at_its_own - reference(network, tiles)).abs().max() < 1e-4)
    assert is_exact == (not bfloat16)


class Small(nn.Module):
    """Every tile's own answer, through what compilers fold: a convolution, a batch normalisation, a residual."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.BatchNorm2d(16))
        self.last = nn.Conv2d(16, 3, 1)

    def forward(self, images):
        features = self.first(images / 255)
        return self.last(torch.relu(features + self.second(features))) * 20


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(1)
    network = Small()
    # Statistics other than 0 and 1.
    network(torch.rand(8, 3, 32, 32) * 255)
    return network.eval()


@pytest.mark.skipif(compile_problem(CPU) is not None, reason="torch.compile does not work here")
@pytest.mark.slow
def test_compiles_once_whatever_the_batches(small, tiles):
    torch._dynamo.reset()
    plain = TileNetwork(small, num_classes=3, bfloat16=computes_bfloat16(CPU))
    compiled = CompiledTileNetwork(plain, batch_size=3, tile_size_px=160)
    torch._dynamo.utils.counters.clear()
    with torch.inference_mode():
        parts = [compiled(part, (40, 40)) for part in tiles.split(3)]
        assert [len(part) for part in parts] == [3, 3, 2]
        exact = TileNetwork(small, num_classes=3)(tiles, (40, 40))
        assert (torch.cat(parts) - exact).abs().mean() < 0.01
        # Another size goes through the network as it is.
        torch.testing.assert_close(compiled(tiles[:, :96, :64], (24, 16)), plain(tiles[:, :96, :64], (24, 16)))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.skipif(compile_problem(CPU) is not None, reason="torch.compile does not work here")
def test_a_compiled_network_says_what_it_has_to_say_of_its_images(tiles):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    network = nn.Sequential(PixelNormalization(), nn.Conv2d(3, 3, 1)).eval()
    compiled = CompiledTileNetwork(TileNetwork(network, num_classes=3), batch_size=3, tile_size_px=160)
    with torch.inference_mode(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for part in (tiles > 128).to(torch.uint8).split(3):
            compiled(part, (40, 40))
    (said,) = (str(warning.message) for warning in caught if warning.category is UserWarning)
    assert "values from 0 to 1; expected RGB values from 0 to 255" in said
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_symmetries_are_averaged_at_the_maps_resolution(small, tiles):
    with torch.inference_mode():
        views = [(tiles, []), (tiles.flip(1), [2]), (tiles.flip(2), [3]), (tiles.flip(1, 2), [2, 3])]
        expected = [TileNetwork(small, 3)(view, (40, 40)).flip(dims) for view, dims in views]
        found = TileNetwork(small, 3, tta="flips")(tiles, (40, 40))
    torch.testing.assert_close(found, torch.stack(expected).mean(dim=0))


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("sysconfig.get_path", lambda name: "nowhere", "the headers of Python are missing"),
        ("torch.__path__", ["/a folder/torch"], "there is a space in the path of torch: /a folder/torch"),
    ],
)
def test_where_it_could_not_compile_it_says_so_before(monkeypatch, name, value, problem):
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(name, value)
    assert problem in compile_problem(CPU)


def test_without_a_compiler_compiling_is_refused(monkeypatch, small):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "no C++ compiler" in compile_problem(CPU)
    with pytest.raises(ValueError, match=r"compile=True does not work here: there is no C\+\+ compiler"):
        SlideMapper(small, compute=Compute(compile=True, device="cpu"))
