"""Attention-based MIL on features: MONAI's network as reference, what its maps show, and its checkpoints."""

import pytest
import torch
from monai.networks.nets import MILModel
from torch import nn

from shared.networks import AttentionMIL


class MeanColours(nn.Module):
    """An encoder in miniature: mean, squared mean and difference of colours of 8 x 8 pixels, as shares of 255."""

    channels, stride_px, key, name = 6, 8, "0123456789abcdef", "mean_colours"

    def forward(self, images):
        means = nn.functional.avg_pool2d(images.float() / 255, 8)
        return torch.cat([means, means.square()], dim=1)


def make(**options):
    torch.manual_seed(0)
    network = AttentionMIL(MeanColours(), **options).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.7)
    return network


def images_of(*shape):
    return torch.randint(0, 256, (*shape, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_without_a_gate_it_is_monais_network():
    network = make(is_gated=False, attention_channels=2048)
    theirs = MILModel(1, mil_mode="att", backbone=nn.Flatten(), backbone_num_features=6).eval()
    weights = {
        "attention.0.weight": network.attention.values.weight,
        "attention.0.bias": network.attention.values.bias,
        "attention.2.weight": network.attention.weights.weight,
        "attention.2.bias": torch.ones(1),  # which the softmax does not see
        "myfc.weight": network.classifier.weight,
        "myfc.bias": network.classifier.bias,
    }
    theirs.load_state_dict(weights)
    bags = torch.randn(3, 10, 6, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(network(bags)["slide_logits"], theirs(bags)[:, 0])


def test_a_slides_logit_is_the_mean_of_its_instances_by_attention():
    network = make(hidden_channels=5)
    bags = torch.randn(2, 9, 6, 1, 1)
    found = network(bags)
    for bag, logit, attention in zip(bags, found["slide_logits"], found["attention_logits"], strict=True):
        hidden = network.embedding(bag[:, :, 0, 0])
        pooled = (attention.softmax(0)[:, None] * hidden).sum(0)
        torch.testing.assert_close(logit, network.classifier(pooled)[0])


def test_of_images_and_of_their_features_it_tells_the_same():
    network = make()
    bags = images_of(2, 3)
    features = network.encode(bags.flatten(0, 1)).unflatten(0, (2, 3))
    network.standardise([bags])
    for name, values in network(bags).items():
        torch.testing.assert_close(network(features)[name], values)
    # Each of the 2 x 3 places of a tile is an instance, and the map has its logit at the same place.
    maps = network(bags.flatten(0, 1))
    assert maps.shape == (6, 1, 2, 3)
    torch.testing.assert_close(maps.reshape(2, -1), network(bags)["map_logits"])


def test_what_the_maps_show():
    networks = {name: make(map_shows=name) for name in ("instance", "attention", "product")}
    images = images_of(4)
    with torch.no_grad():
        maps = {name: network(images)[:, 0].double() for name, network in networks.items()}
        instances = networks["instance"].features(images).permute(0, 2, 3, 1)
        torch.testing.assert_close(maps["instance"].float(), networks["instance"].classifier(instances)[..., 0])
        # Nothing has been learned: the attention's mean and deviation are still 0 and 1.
        expected = networks["instance"].attention(instances)
        torch.testing.assert_close(maps["attention"].float(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(maps["product"].sigmoid(), maps["attention"].sigmoid() * maps["instance"].sigmoid())


def test_attention_is_brought_to_its_mean_and_deviation_in_training():
    network = make(map_shows="attention")
    bags = torch.randn(4, 50, 6, 1, 1)
    network.train()
    for _ in range(200):
        network(bags)
    shown = network.eval()(bags)["map_logits"]
    assert shown.mean().item() == pytest.approx(0, abs=0.01)
    assert shown.std().item() == pytest.approx(1, abs=0.01)


def test_a_checkpoint_fits_every_map_and_holds_no_encoder():
    state = make().state_dict()
    assert {name.partition(".")[0] for name in state} == {
        *("mean", "std", "encoder_key"),
        *("attention", "attention_scale", "classifier"),
    }
    AttentionMIL(MeanColours(), map_shows="attention").load_state_dict(state)


def test_instances_are_classified_where_asked_for():
    assert "instance_scores" not in make()(torch.randn(2, 5, 6, 1, 1))
    assert make(instance_classifiers=True)(torch.randn(2, 5, 6, 1, 1))["instance_scores"].shape == (2, 5, 2, 2)


def test_another_map_is_refused():
    with pytest.raises(ValueError, match="map_shows must be one of product, attention, instance, got 'rank'"):
        AttentionMIL(MeanColours(), map_shows="rank")


def test_the_map_as_torchscript():
    network = make(hidden_channels=5)
    images = images_of(2)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(images), network(images))
