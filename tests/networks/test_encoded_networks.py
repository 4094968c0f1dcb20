"""Networks on the features of an encoder: an image and its features have one answer; checkpoints hold no encoder."""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import nn

from shared.encoders import load_encoder
from shared.networks import (
    EncodedBoosting,
    EncodedClassifier,
    EncodedNetwork,
    EncodedSegCls,
    EncodedSegmentation,
    EncodedSideOutputs,
    EncodedWildcat,
    fuse_probabilities,
    max_min_pooling,
)

STRIDES_PX = (8, 16, 32)


def boosted(encoder: nn.Module) -> EncodedBoosting:
    network = EncodedBoosting(encoder, num_trees=16, max_depth=1)
    says = torch.rand(16, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    network.set_trees(torch.arange(16)[:, None], torch.full((16, 1), 0.05), says)
    return network


NETWORKS: dict[str, Callable[[nn.Module], EncodedNetwork]] = {
    "classifier": EncodedClassifier,
    "segmentation": lambda encoder: EncodedSegmentation(encoder, hidden_channels=4, kernel_size=3),
    "side outputs": EncodedSideOutputs,
    "wildcat": EncodedWildcat,
    "joint, paper": EncodedSegCls,
    "joint, released": lambda encoder: EncodedSegCls(encoder, head="released", hidden_channels=4),
    "boosting": boosted,
}


@functools.cache
def encoder_for(name: str) -> nn.Module:
    return load_encoder("efficientnet_lite0", stride_px=16, strides_px=STRIDES_PX if name == "side outputs" else None)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_an_image_and_its_stored_features_give_one_answer_and_script(name, images):
    network = NETWORKS[name](encoder_for(name))
    network.standardise([images])
    network.eval()
    features = network.encode(images)
    assert features.shape == (2, network.channels, 4, 6)
    answer = network(images)
    if name != "classifier":
        assert answer.shape[-2:] == images.shape[-2:]
    assert answer.std() > 0
    torch.testing.assert_close(network(features), answer, rtol=0, atol=0)
    # As they are stored.
    torch.testing.assert_close(network(features.half()), answer, rtol=0.01, atol=0.01 * float(answer.abs().max()))
    scripted = torch.jit.script(network)
    for inputs in (images, features):
        torch.testing.assert_close(scripted(inputs), answer)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_checkpoint_holds_the_head_alone_and_takes_no_other_encoder(name, images):
    network = NETWORKS[name](encoder_for(name))
    network.standardise([images])
    state = network.state_dict()
    assert not [key for key in state if key.startswith("encoder.")]
    again = NETWORKS[name](encoder_for(name))
    again.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(images), network.eval()(images), rtol=0, atol=0)
    strides_px = STRIDES_PX if name == "side outputs" else None
    smoothed = NETWORKS[name](load_encoder("efficientnet_lite0", stride_px=16, strides_px=strides_px, smoothing=3))
    with pytest.raises(RuntimeError, match="trained on features of another encoder"):
        smoothed.load_state_dict(state)


@pytest.mark.parametrize("network", [EncodedSideOutputs, EncodedWildcat, EncodedSegCls])
def test_a_fine_tuned_encoder_learns_and_stands_in_the_checkpoint(network, images):
    tuned = network(load_encoder("efficientnet_lite0"), finetune=True)
    # The head of a run on features is what it begins with.
    frozen = network(load_encoder("efficientnet_lite0"))
    tuned.load_state_dict(frozen.state_dict())
    head, encoder = tuned.rate_groups(0.01, 0.001)
    assert len(head["params"]) + len(encoder["params"]) == len(list(tuned.parameters()))
    assert all(parameter.requires_grad for parameter in encoder["params"])
    assert {key.removeprefix("encoder.") for key in tuned.state_dict() if key.startswith("encoder.")} == {
        *tuned.encoder.state_dict()
    }


@torch.no_grad()
def test_side_outputs_see_their_own_stride(images):
    """Side output t is its head on the t-th map of the encoder, as the encoder gives it alone; the fusion is their mean."""
    network = EncodedSideOutputs(encoder_for("side outputs")).eval()
    maps = network.maps(images)
    assert maps.shape == (2, 4, 64, 96)
    alone = [load_encoder("efficientnet_lite0", stride_px=stride // 2, strides_px=[stride]) for stride in STRIDES_PX]
    for side, (encoder, layer) in enumerate(zip(alone, network.side_layers, strict=True)):
        logits = nn.functional.interpolate(layer(encoder(images)), size=(64, 96), mode="bilinear")
        torch.testing.assert_close(maps[:, side], logits[:, 0].sigmoid(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(maps[:, 3:], fuse_probabilities(maps[:, :3], torch.tensor([0.2, 0.35, 0.45])))
    sides, fused = network.train()(network.encode(images))
    assert sides.shape == (2, 3, 16, 24)
    assert fused.shape == (2, 1, 16, 24)
    last = EncodedSideOutputs(encoder_for("side outputs"), side_outputs=[3])
    assert last.train()(network.encode(images))[1] is None
    with pytest.raises(ValueError, match="side_outputs must ascend"):
        EncodedSideOutputs(encoder_for("side outputs"), side_outputs=[1, 2])


@torch.no_grad()
def test_wildcat_pools_the_means_of_its_maps(images):
    network = EncodedWildcat(encoder_for("wildcat"), num_classes=2, maps_per_class=3)
    features = network.encode(images)
    maps = network.transfer(features)
    classes = torch.stack([maps[:, :3].mean(1), maps[:, 3:].mean(1)], dim=1)
    torch.testing.assert_close(network.train()(features), max_min_pooling(classes))


@torch.no_grad()
def test_the_joint_classifier_reads_the_map_of_either_size(images):
    network = EncodedSegCls(encoder_for("joint"), num_classes=3).train()
    logits = network(images=images, labelled=network.encode(images[:, :, :32]))
    assert {name: tuple(values.shape) for name, values in logits.items()} == {
        "pixel_logits": (2, 3, 64, 96),
        "image_logits": (2, 3),
    }


@pytest.mark.parametrize(
    ("num_stages", "side_outputs", "kept", "num_left_out"),
    # Of five stages the encoder has the last three.
    [(None, None, [1, 2, 3], 0), (3, [3], [3], 0), (5, None, [1, 2, 3], 2), (5, [1, 4, 5], [2, 3], 1), (4, [4], [3], 0)],
)
def test_an_encoder_with_few_strides_has_the_last_stages(num_stages, side_outputs, kept, num_left_out):
    network = EncodedSideOutputs(encoder_for("side outputs"), side_outputs, num_stages=num_stages)
    assert (network.side_outputs, network.num_left_out) == (kept, num_left_out)
