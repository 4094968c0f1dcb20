import pytest
import torch
from torch import nn

from shared.networks import LogitsOfProbabilities, SideOutputVGG


def test_values_by_hand():
    probabilities = torch.tensor([0.5, 0.75, 0.1])
    # log(p / (1 - p))
    expected = torch.tensor([1.0, 3.0, 1 / 9]).log()
    torch.testing.assert_close(LogitsOfProbabilities(nn.Identity())(probabilities), expected)


def test_sigmoid_gives_the_probabilities_back():
    probabilities = torch.cat([torch.linspace(0, 1, 10001), torch.tensor([1e-30, 1e-8, 1 - 1e-7])])
    logits = LogitsOfProbabilities(nn.Identity())(probabilities)
    assert logits.isfinite().all()
    torch.testing.assert_close(logits.sigmoid(), probabilities, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_float32_for_every_type(dtype):
    probabilities = torch.tensor([0.0, 0.25, 1.0], dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = LogitsOfProbabilities(nn.Identity())(probabilities)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.sigmoid(), probabilities.float(), atol=1e-6, rtol=0)


@torch.no_grad()
def test_logits_of_a_side_output_network():
    torch.manual_seed(0)
    network = SideOutputVGG().eval()
    wrapper = LogitsOfProbabilities(network)
    images = torch.randint(0, 256, (2, 3, 17, 12), dtype=torch.uint8)
    expected = network(images)
    for exported in (wrapper, torch.jit.script(wrapper), torch.jit.trace(wrapper, images)):
        logits = exported(images)
        assert logits.shape == (2, 1, 17, 12)
        torch.testing.assert_close(logits.sigmoid(), expected, atol=1e-6, rtol=0)


def test_rejects_a_network_in_train_mode():
    wrapper = LogitsOfProbabilities(SideOutputVGG()).train()
    with pytest.raises(ValueError, match="one tensor of probabilities: is it in train mode"):
        wrapper(torch.zeros(1, 3, 8, 8))
