"""Gated attention, by the paper's equations in numpy, one instance after the other."""

import numpy as np
import pytest
import torch

from shared.networks import GatedAttention, attention_pooling


def by_the_paper(instances, layer):
    """Equations 7 to 9 with biases: attention of each instance, and the mean of the instances by it."""
    weights = {name: values.detach().numpy().astype(np.float64) for name, values in layer.named_parameters()}
    scores = []
    for instance in instances.numpy().astype(np.float64):
        hidden = np.tanh(weights["values.weight"] @ instance + weights["values.bias"])
        if layer.gate is not None:
            hidden = hidden / (1 + np.exp(-(weights["gate.weight"] @ instance + weights["gate.bias"])))
        scores.append(float(weights["weights.weight"][0] @ hidden))
    attention = np.exp(scores) / np.exp(scores).sum()
    return attention, sum(share * instance for share, instance in zip(attention, instances.numpy(), strict=True))


@pytest.mark.parametrize("is_gated", [True, False])
def test_attention_and_pooling_are_the_equations(is_gated):
    torch.manual_seed(0)
    layer = GatedAttention(5, attention_channels=7, is_gated=is_gated).eval()
    bag = 2 * torch.randn(6, 5)
    logits = layer(bag[None])
    attention, pooled = by_the_paper(bag, layer)
    np.testing.assert_allclose(logits.softmax(dim=1)[0].detach(), attention, atol=1e-6)
    np.testing.assert_allclose(attention_pooling(bag[None], logits)[0].detach(), pooled, atol=1e-6)


def test_each_bag_is_pooled_by_itself():
    values, attention = torch.randn(3, 4, 2), 3 * torch.randn(3, 4)
    together = attention_pooling(values, attention)
    assert together.shape == (3, 2)
    torch.testing.assert_close(together[1:2], attention_pooling(values[1:2], attention[1:2]))
    # A constant on all instances of a bag is not seen.
    torch.testing.assert_close(together, attention_pooling(values, attention + torch.tensor([[5.0], [-7.0], [0.0]])))


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((3,), (3,)), ((2, 3, 4), (2, 3, 1))])
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(ValueError, match=r"need values \(bags, instances\) or .*; got"):
        attention_pooling(*map(torch.zeros, shapes))
