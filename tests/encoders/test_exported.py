"""TorchScript and torch.export files as encoders: what they return is what the network returned before it was exported."""

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.testing import assert_close

from shared.encoders import load_encoder

PLAIN = {"mean": [0, 0, 0], "std": [1 / 255] * 3}


class Tokens(nn.Module):
    """A linear layer on patches of 16 px, behind one class token and registers, and the mean of all of them."""

    def __init__(self, prefix_tokens=1, kind="tokens"):
        super().__init__()
        self.patches = nn.Conv2d(3, 5, 16, stride=16)
        self.first = nn.Parameter(torch.randn(1, prefix_tokens, 5))
        self.kind: str = kind

    def forward(self, images):
        patches = self.patches(images / 255)
        if self.kind == "map":
            return patches
        tokens = torch.cat([self.first.expand(images.shape[0], -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        return tokens.mean(dim=1) if self.kind == "vector" else tokens


def exported(network, folder, suffix, size=None):
    path = folder / f"network{suffix}"
    example = torch.rand(2, 3, size or 64, size or 96)
    if suffix == ".pt2":
        sizes = {} if size else {2: 16 * Dim("rows", max=256), 3: 16 * Dim("columns", max=256)}
        torch.export.save(torch.export.export(network, (example,), dynamic_shapes=({0: Dim("images"), **sizes},)), path)
    else:
        torch.jit.trace(network, example).save(str(path))
    return path


@pytest.fixture(params=[".pt", ".pt2"])
def suffix(request):
    return request.param


@pytest.fixture
def images():
    return torch.randint(0, 256, (3, 3, 32, 80), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_a_map(tmp_path, suffix, images):
    network = Tokens(kind="map")
    encoder = load_encoder(str(exported(network, tmp_path, suffix)), mpp=0.5, licence="mine", **PLAIN)
    assert (encoder.channels, encoder.stride_px, encoder.mpp, encoder.licence) == (5, 16, 0.5, "mine")
    assert encoder.name == f"network{suffix}"
    assert_close(encoder(images), network(images))
    assert not [parameter for parameter in encoder.parameters() if parameter.requires_grad]


@pytest.mark.parametrize("prefix_tokens", [0, 1, 5])
def test_tokens(tmp_path, suffix, images, prefix_tokens):
    network = Tokens(prefix_tokens)
    path = str(exported(network, tmp_path, suffix))
    expected = network(images)[:, prefix_tokens:].transpose(1, 2).reshape(3, 5, 2, 5)
    assert_close(load_encoder(path, **PLAIN)(images), expected)
    if prefix_tokens:
        both = load_encoder(path, tokens="dense+class", **PLAIN)
        assert both.channels == 10
        assert_close(both(images), torch.cat([expected, network.first[:, 0, :, None, None].expand(3, 5, 2, 5)], dim=1))
    else:
        with pytest.raises(ValueError, match="must be one of dense; got 'class'"):
            load_encoder(path, tokens="class", **PLAIN)


def test_a_vector_of_each_tile(tmp_path, suffix):
    """A network of one size alone."""
    network = Tokens(kind="vector")
    path = str(exported(network, tmp_path, suffix, size=32))
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    encoder = load_encoder(path, tokens="embedding", input_size_px=32, **PLAIN)
    assert (encoder.channels, encoder.stride_px, encoder.input_size_px) == (5, 32, 32)
    assert_close(encoder(images)[:, :, 1, 2], network(images[:, :, 32:, 64:]))
    with pytest.raises(ValueError, match="must be one of embedding; got 'dense'"):
        load_encoder(path, input_size_px=32, **PLAIN)
    with pytest.raises(ValueError, match=r"one feature for each image of 32 px, and one every 16 px is needed here.* 2 times"):
        load_encoder(path, tokens="embedding", input_size_px=32, max_stride_px=16, **PLAIN)
    assert load_encoder(path, stride_px=16, tokens="embedding", input_size_px=32, max_stride_px=16, **PLAIN).enlargement == 2


def test_images_are_normalised(tmp_path, suffix, images):
    network = Tokens(kind="map")
    encoder = load_encoder(str(exported(network, tmp_path, suffix)), mean=[0.5, 0.4, 0.3], std=[0.1, 0.2, 0.3])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ([0.5, 0.4, 0.3], [0.1, 0.2, 0.3]))
    assert_close(encoder(images), network((images / 255 - mean) / std))


class Pair(nn.Module):
    def forward(self, images):
        return images, images


class Odd(nn.Module):
    def forward(self, images):
        return images.flatten(2)[:, :, :300].transpose(1, 2)


class Short(nn.Module):
    def forward(self, images):
        return images[..., :-1]


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Pair(), r"network.pt returns tuple: expected a map \(B, C, h, w\), tokens \(B, N, C\) or a vector \(B, C\)"),
        (Short(), r"returns \(2, 3, 224, 223\) for images of 224 px per side"),
        (Odd().double(), "tokens for images of 224 px per side, which do not form a square grid"),
    ],
)
def test_other_outputs_are_refused(tmp_path, network, said):
    path = exported(network, tmp_path, ".pt")
    with pytest.raises(ValueError, match=said):
        load_encoder(str(path), **PLAIN)


def test_files_that_are_no_encoders_are_refused(tmp_path):
    path = exported(Tokens(kind="map"), tmp_path, ".pt")
    with pytest.raises(ValueError, match=r"network.pt does not state how its images are normalised: give mean and std"):
        load_encoder(str(path), mpp=0.5)
    with pytest.raises(ValueError, match=r"network.pt contains its own weights"):
        load_encoder(str(path), checkpoint_path="weights.pth", **PLAIN)
    with pytest.raises(ValueError, match=r"must be shares of 255.* got mean=\[180, 130, 180\].*Divide .* by 255"):
        load_encoder(str(path), mean=[180, 130, 180], std=[0.2] * 3)
    with pytest.raises(ValueError, match=r"absent.pt2 does not exist"):
        load_encoder(str(tmp_path / "absent.pt2"), **PLAIN)
    torch.save(Tokens().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"weights.pt is not a TorchScript .*Give the file of a state dict as checkpoint_path"):
        load_encoder(str(tmp_path / "weights.pt"), **PLAIN)


def test_a_network_of_one_size_gives_no_maps(tmp_path):
    path = exported(Tokens(kind="map"), tmp_path, ".pt2", size=64)
    with pytest.raises(
        ValueError, match=r"network.pt2 does not accept images \(2, 3, 224, 224\): .*Export it with dynamic batch"
    ):
        load_encoder(str(path), **PLAIN)


def test_the_key_is_that_of_the_file(tmp_path, suffix):
    torch.manual_seed(0)
    network = Tokens(kind="map")
    path = str(exported(network, tmp_path, suffix))
    key = load_encoder(path, **PLAIN).key
    assert load_encoder(path, **PLAIN).key == key
    assert load_encoder(path, mean=[0.1, 0, 0], std=PLAIN["std"]).key != key
    exported(Tokens(kind="map"), tmp_path, suffix)
    assert load_encoder(path, **PLAIN).key != key
