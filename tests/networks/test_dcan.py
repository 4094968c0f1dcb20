"""DCAN's levels against VGG-16 step by step, their sum, and its loss with a weight that fades."""

import pytest
import torch
from ignite.engine import Engine
from torch.nn import functional as F

from shared.handlers import FadingAuxiliaryWeight
from shared.losses import AuxiliarySegmentationLoss, auxiliary_segmentation_loss
from shared.networks import DCAN


def images_of(height, width):
    return torch.randint(0, 256, (2, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def make(**options):
    torch.manual_seed(0)
    return DCAN(head_channels=6, **options)


@torch.no_grad()
def test_the_levels_are_scores_of_conv4_conv5_and_fc7():
    network = make(out_channels=3).eval()
    images = images_of(75, 96)
    levels = network.level_logits(images)
    assert levels.shape == (2, 3, 3, 75, 96)
    features = network.normalization(images)
    read = []
    for index, stage in enumerate(network.trunk.stages):
        features = stage(F.max_pool2d(features, 2, ceil_mode=True) if index else features)
        read.append(features)
    fc7 = network.trunk.head(F.max_pool2d(read[4], 2, ceil_mode=True))
    for level, (place, stride) in enumerate(((read[3], 8), (read[4], 16), (fc7, 32))):
        assert place.shape[-2:] == (-(-75 // stride), -(-96 // stride))
        larger = F.interpolate(network.score_layers[level](place), scale_factor=float(stride), mode="bilinear")
        # Learned up-samplings begin as bilinear ones, but for half a place at the border.
        inner = (..., slice(stride // 2, 75 - stride), slice(stride // 2, 96 - stride))
        torch.testing.assert_close(levels[:, level][inner], larger[inner], atol=1e-5, rtol=1e-4)
        assert levels[:, level].std() > 0


@torch.no_grad()
def test_in_training_the_sum_comes_with_its_levels():
    network, images = make(norm="batch"), images_of(64, 64)
    torch.manual_seed(1)
    fused, levels = network.train()(images)
    torch.testing.assert_close(fused, levels.sum(1))
    logits = network.eval()(images)
    assert logits.shape == (2, 2, 64, 64)
    torch.testing.assert_close(logits, network.level_logits(images).sum(1))
    torch.testing.assert_close(torch.jit.script(network)(images), logits, atol=1e-5, rtol=1e-4)


def test_every_parameter_learns():
    network = make(norm="batch").train()
    fused, levels = network(images_of(64, 64))
    AuxiliarySegmentationLoss()((fused, levels), torch.randint(0, 2, (2, 64, 64))).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


def test_loss_by_hand():
    """Fused logits 0 and 0 cost ln 2; a level sure of the truth by ln 3 costs ln(4/3), one as sure of the other class ln 4."""
    sure = torch.tensor([0.0, 3.0]).log().clamp(min=0)
    fused = torch.zeros(1, 2, 1, 1)
    levels = torch.stack([sure, sure.flip(0)]).view(1, 2, 2, 1, 1)
    labels = torch.ones(1, 1, 1, dtype=torch.long)
    expected = torch.tensor([2.0, 4 / 3, 4.0]).log()
    torch.testing.assert_close(
        auxiliary_segmentation_loss(fused, levels, labels, 0.5), expected[0] + (expected[1] + expected[2]) / 2
    )
    torch.testing.assert_close(AuxiliarySegmentationLoss(0)((fused, levels), labels), expected[0])


def test_loss_is_computed_in_float32():
    torch.manual_seed(0)
    fused, levels = torch.randn(2, 2, 4, 4), torch.randn(2, 3, 2, 4, 4)
    labels = torch.randint(0, 2, (2, 4, 4))
    half = auxiliary_segmentation_loss(fused.bfloat16(), levels.bfloat16(), labels)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, auxiliary_segmentation_loss(fused.bfloat16().float(), levels.bfloat16().float(), labels))


@pytest.mark.parametrize(
    ("levels", "labels", "problem"),
    [
        ((2, 2, 4, 4), (2, 4, 4), r"levels must be \(B, T, C, H, W\) of logits \(2, 2, 4, 4\); got \(2, 2, 4, 4\)"),
        ((2, 3, 1, 4, 4), (2, 4, 4), r"got \(2, 3, 1, 4, 4\)"),
        ((2, 3, 2, 4, 4), (2, 1, 4, 4), r"labels must be \(2, 4, 4\); got \(2, 1, 4, 4\)"),
    ],
)
def test_loss_refuses_what_does_not_fit(levels, labels, problem):
    with pytest.raises(ValueError, match=problem):
        auxiliary_segmentation_loss(torch.zeros(2, 2, 4, 4), torch.zeros(levels), torch.zeros(labels, dtype=torch.long))


def test_the_weight_fades_with_the_steps():
    loss = AuxiliarySegmentationLoss()
    seen = []
    engine = Engine(lambda engine, batch: seen.append(loss.auxiliary_weight))
    FadingAuxiliaryWeight(loss, every_steps=3, least=0.02).attach(engine)
    engine.run([0] * 4, max_epochs=3)
    assert seen == pytest.approx([1] * 3 + [0.1] * 3 + [0.02] * 6)
    # A training that goes on after two epochs begins with the weight of its step.
    seen.clear()
    resumed = Engine(lambda engine, batch: seen.append(loss.auxiliary_weight))
    FadingAuxiliaryWeight(loss, every_steps=3, least=0.001).attach(resumed)
    resumed.load_state_dict({"epoch": 1, "max_epochs": 2, "epoch_length": 4})
    resumed.run([0] * 4)
    assert seen == pytest.approx([0.1, 0.1, 0.01, 0.01])


def test_impossible_weights_are_refused():
    with pytest.raises(ValueError, match="auxiliary_weight must be >= 0; got -1"):
        AuxiliarySegmentationLoss(-1)
    for options in ({"every_steps": 0}, {"first": 0.1, "least": 0.5}, {"least": -1}):
        with pytest.raises(ValueError, match="need every_steps >= 1 and first >= least >= 0; got"):
            FadingAuxiliaryWeight(AuxiliarySegmentationLoss(), **options)
