"""The hash of a network's weights is worked out once, and again after every change."""

import pytest
import torch
from torch import nn

from shared.inference import SlideMapper
from shared.inference.cohort import weights_hash
from shared.inference.cohort.weights_hash import WeightsHash, weights_sha256
from tests.inference.cohort_processes import SETTINGS
from tests.inference.flat_options import grouped


class Answering(nn.Module):
    """Weights of several types, of lengths that are no multiple of eight bytes, and channels that come last."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 1, 1))
        self.register_buffer("odd", torch.arange(11, dtype=torch.uint8)[1:])
        self.short = nn.Parameter(torch.ones(3, dtype=torch.float16))

    def forward(self, images):
        return images[:, :1]


@pytest.fixture
def network():
    return Answering().to(memory_format=torch.channels_last)


@pytest.fixture
def count(monkeypatch):
    """The networks that were hashed."""
    hashed = []

    def counted(network):
        hashed.append(network)
        return weights_sha256(network)

    monkeypatch.setattr(weights_hash, "weights_sha256", counted)
    return hashed


def test_weights_that_stay_are_hashed_once(network, count):
    mapper = SlideMapper(network, **grouped(**SETTINGS))
    first, second = mapper.settings(), mapper.settings()
    assert first["weights_sha256"] == second["weights_sha256"] == weights_sha256(network)
    assert len(count) == 1


def add_in_place(network):
    with torch.no_grad():
        network.layers[0].weight.add_(1)


def turn_over(network):
    with torch.no_grad():
        network.layers[0].weight.copy_(network.layers[0].weight.flip(0))


def replace(network):
    network.layers[2].weight = nn.Parameter(network.layers[2].weight.detach().flip(1))


def train(network):
    network.train()(torch.ones(1, 3, 4, 4))
    network.layers[1](torch.randn(2, 5, 3, 3))


def change_behind_the_counter(network):
    network.layers[2].weight.data[0, 0] += 1


def change_what_is_left_over(network):
    network.odd.data[-1] += 1


def change_through_numpy(network):
    network.short.detach().numpy()[0] = 2


def load(network):
    network.load_state_dict(Answering().state_dict())


CHANGES = [
    add_in_place,
    turn_over,
    replace,
    train,
    load,
    change_behind_the_counter,
    change_what_is_left_over,
    change_through_numpy,
]


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_change_are_hashed_again(network, change):
    kept = WeightsHash()
    before = kept.of(network)
    change(network)
    assert kept.of(network) == weights_sha256(network) != before


def test_weights_of_inference_mode_are_hashed_too(count):
    """PyTorch does not count how often they are written."""
    with torch.inference_mode():
        network = Answering()
    kept = WeightsHash()
    assert kept.of(network) == kept.of(network)
    assert len(count) == 1
    with torch.inference_mode():
        network.layers[0].weight.add_(1)
    assert kept.of(network) == weights_sha256(network)
