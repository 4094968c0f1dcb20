import pytest
import torch
from torch.nn import functional as F

from shared.networks import SideOutputResNet, resnet

STRIDES = (2, 4, 8, 16, 32)


def images(height=40, width=52):
    shape = (2, 3, height, width)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("backbone", "num_stages", "channels"), [("resnet10", 3, [64, 64, 128]), ("resnet50", 5, [64, 256, 512, 1024, 2048])]
)
@torch.no_grad()
def test_the_taps_are_the_resnets_own_features(backbone, num_stages, channels):
    network = SideOutputResNet(backbone, num_stages).eval()
    trunk = resnet(backbone).eval()
    layers = (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4)[: num_stages - 1]
    stages = [trunk.conv1, trunk.bn1, *layers]
    copies = [network.stages[0][0], network.stages[0][1], network.stages[1][1], *network.stages[2:]]
    for own, copied in zip(stages, copies, strict=True):
        own.load_state_dict(copied.state_dict())
    features = trunk.act(trunk.bn1(trunk.conv1(network.normalization(images()))))
    expected = [features]
    for number, layer in enumerate(layers):
        features = layer(trunk.maxpool(features) if number == 0 else features)
        expected.append(features)
    taps = network.taps(images())
    assert [tap.shape[1] for tap in taps] == channels
    assert [tap.shape[2:] for tap in taps] == [(-(-40 // stride), -(-52 // stride)) for stride in STRIDES[:num_stages]]
    for tap, own in zip(taps, expected, strict=True):
        torch.testing.assert_close(tap, own)


@torch.no_grad()
def test_side_outputs_are_fused_with_the_papers_weights():
    network = SideOutputResNet("resnet10").eval()
    for layer in network.side_layers:
        torch.nn.init.normal_(layer.weight, std=0.5)
    logits = network.side_logits(images())
    assert logits.shape == (2, 3, 40, 52)
    for tap, layer, side in zip(network.taps(images()), network.side_layers, logits.unbind(1), strict=True):
        torch.testing.assert_close(side, F.interpolate(layer(tap), size=(40, 52), mode="bilinear")[:, 0])
    sides = logits.sigmoid()
    torch.testing.assert_close(network(images()), 0.2 * sides[:, :1] + 0.35 * sides[:, 1:2] + 0.45 * sides[:, 2:])
    torch.testing.assert_close(torch.jit.script(network)(images()), network(images()))


def test_checkpointing_changes_no_gradient():
    networks = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = SideOutputResNet("resnet10", norm="frozen", checkpointing=checkpointing).train()
        side_logits, fusion = network(images())
        (side_logits.square().mean() + fusion.log().mean()).backward()
        networks.append(network)
    for one, other in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_a_single_side_output_is_the_last_stages():
    network = SideOutputResNet("resnet10", num_stages=2, side_outputs=[2])
    assert [layer.in_channels for layer in network.side_layers] == [64]
    assert network.fusion_logits is None
    assert network.training


@pytest.mark.parametrize(("num_stages", "sides"), [(0, None), (6, None), (3, [1, 2])])
def test_stages_that_are_not_there(num_stages, sides):
    with pytest.raises(ValueError, match=f"num_stages.*{num_stages}"):
        SideOutputResNet("resnet10", num_stages, sides)
