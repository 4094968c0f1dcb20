import pytest
import torch
from torch import nn

from shared.networks import ScaledLogits


def test_logits_are_divided():
    network = ScaledLogits(nn.Conv2d(3, 2, 1), 2.5)
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(images), network.network(images) / 2.5)
    assert torch.equal(network(images).argmax(1), network.network(images).argmax(1))
    for exported in (torch.jit.script(network), torch.jit.trace(network, images)):
        assert torch.equal(exported(images), network(images))


def test_the_state_dict_has_the_temperature():
    state = ScaledLogits(nn.Conv2d(3, 2, 1), 2.5).state_dict()
    assert state["temperature"] == 2.5
    assert {"network.weight", "network.bias"} < state.keys()


@pytest.mark.parametrize("temperature", [0, -1.0, float("inf"), float("nan")])
def test_rejects_what_is_no_temperature(temperature):
    with pytest.raises(ValueError, match="temperature must be positive"):
        ScaledLogits(nn.Identity(), temperature)
