import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shared.networks import SideOutputVGG, fuse_probabilities


def random_images(height, width, batch_size=2):
    shape = (batch_size, 3, height, width)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def make(*args, **kwargs):
    """A network whose side outputs and learned fusion weights differ clearly, unlike those at the start of training."""
    torch.manual_seed(0)
    network = SideOutputVGG(*args, **kwargs)
    for layer in network.side_layers:
        nn.init.normal_(layer.weight, std=0.5)
    if network.fusion_logits is not None:
        nn.init.normal_(network.fusion_logits)
    return network


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def gradients(network, images):
    side_logits, fusion = network(images)
    (side_logits.square().mean() + fusion.log().mean()).backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


def test_fusion_by_hand():
    sides = torch.tensor([[0.1, 0.9], [0.5, 0.5], [1.0, 0.0]]).view(1, 3, 1, 2)
    # .2 * .1 + .35 * .5 + .45 * 1 and .2 * .9 + .35 * .5
    expected = torch.tensor([[[[0.645, 0.355]]]])
    torch.testing.assert_close(fuse_probabilities(sides, torch.tensor([0.2, 0.35, 0.45])), expected)


def test_fusion_of_rounded_weights_is_a_probability():
    weights = torch.tensor([0.5, 0.5 + 1e-6])
    assert fuse_probabilities(torch.ones(1, 2, 1, 1), weights).item() == 1


def test_parameters_of_the_paper_s_network():
    network = SideOutputVGG()
    # 3 x 3 convolutions with bias, 3-64-64, 64-128-128, 128-256-256-256.
    assert num_parameters(network.stages) == 1_735_488
    assert num_parameters(network.side_layers) == (64 + 1) + (128 + 1) + (256 + 1) == 451
    assert num_parameters(network) == 1_735_488 + 451 + 3


def test_five_stages_are_vgg16():
    with torch.device("meta"):
        network = SideOutputVGG(num_stages=5)
    # torchvision's `features`.
    assert num_parameters(network.stages) == 14_714_688


def support(gradient):
    """First and last column of an image's gradient, and their number."""
    columns = gradient.abs().sum(dim=(0, 1, 2)).nonzero().flatten().tolist()
    assert columns == list(range(columns[0], columns[-1] + 1))
    return columns[0], columns[-1], len(columns)


@pytest.mark.parametrize("axis", [2, 3])
def test_receptive_fields_and_strides_of_the_paper(axis):
    """Table I, measured: every unit is active, and average pooling passes the gradient to all that maximum pooling looks at."""
    network = SideOutputVGG(num_stages=5)
    for stage in network.stages:
        if isinstance(stage[0], nn.MaxPool2d):
            stage[0] = nn.AvgPool2d(stage[0].kernel_size, stage[0].stride)
        for convolution in (layer for layer in stage if isinstance(layer, nn.Conv2d)):
            nn.init.constant_(convolution.weight, 1 / convolution.weight[0].numel())
    # Narrow, for a network of full width takes its time.
    images = torch.full((1, 3, 16, 256), 255.0).transpose(2, axis).contiguous().requires_grad_()
    taps = [tap.transpose(2, axis) for tap in network.taps(images)]
    sizes_and_strides = zip((5, 14, 40, 92, 196), (1, 2, 4, 8, 16), strict=True)
    for tap, (size_px, stride_px) in zip(taps, sizes_and_strides, strict=True):
        assert tap.shape[2:] == (16 // stride_px, 256 // stride_px)
        centre = 128 // stride_px
        centres = [tap[0, 0, 0, centre - step] for step in (1, 0)]
        fields = [support(torch.autograd.grad(unit, images, retain_graph=True)[0].transpose(2, axis)) for unit in centres]
        assert [field[2] for field in fields] == [size_px, size_px]
        assert fields[1][0] - fields[0][0] == stride_px


@torch.no_grad()
def test_taps_lie_before_pooling_and_after_relu():
    network, images = make(), random_images(16, 24)
    features = network.normalization(images)
    for number, (stage, tap) in enumerate(zip(network.stages, network.taps(images), strict=True)):
        features = F.max_pool2d(features, 2) if number else features
        for convolution in (layer for layer in stage if isinstance(layer, nn.Conv2d)):
            features = F.conv2d(features, convolution.weight, convolution.bias, padding=1).relu()
        torch.testing.assert_close(tap, features)


@pytest.mark.parametrize(("height", "width"), [(24, 36), (37, 21), (4, 7)])
@torch.no_grad()
def test_train_and_eval_outputs_of_any_image_size(height, width):
    network, images = make(), random_images(height, width)
    side_logits, fusion = network(images)
    assert side_logits.shape == (2, 3, height, width)
    assert fusion.shape == (2, 1, height, width)
    for tap, layer, logits in zip(network.taps(images), network.side_layers, side_logits.unbind(1), strict=True):
        expected = F.interpolate(layer(tap), size=(height, width), mode="bilinear", align_corners=False)
        torch.testing.assert_close(logits, expected[:, 0])
    sides = side_logits.sigmoid()
    learned = network.fusion_logits.exp() / network.fusion_logits.exp().sum()
    torch.testing.assert_close(fusion, sum(a * side for a, side in zip(learned, sides.unbind(1), strict=True))[:, None])
    fixed = 0.2 * sides[:, :1] + 0.35 * sides[:, 1:2] + 0.45 * sides[:, 2:]
    network.eval()
    torch.testing.assert_close(network(images), fixed)
    assert torch.equal(network(images.float()), network(images))
    torch.testing.assert_close(network.side_probabilities(images), sides)
    assert torch.equal(network.maps(images), torch.cat([network.side_probabilities(images), network(images)], dim=1))


@torch.no_grad()
def test_the_baseline_has_one_side_output_and_no_fusion():
    network, images = make(side_outputs=(3,)), random_images(20, 18)
    side_logits, fusion = network(images)
    assert side_logits.shape == (2, 1, 20, 18)
    assert fusion is None
    assert torch.equal(network.eval()(images), side_logits.sigmoid())
    assert network.maps(images).shape == (2, 2, 20, 18)
    assert num_parameters(network) == 1_735_488 + 257


@torch.no_grad()
def test_a_choice_of_side_outputs():
    network, images = make(side_outputs=[1, 3]), random_images(16, 16)
    whole = make()
    whole.stages.load_state_dict(network.stages.state_dict())
    for index, stage in enumerate((1, 3)):
        whole.side_layers[stage - 1].load_state_dict(network.side_layers[index].state_dict())
    torch.testing.assert_close(network.side_logits(images), whole.side_logits(images)[:, [0, 2]])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (0.2, 0.35, 0.45)),
        ({"side_outputs": (2, 3)}, (0.5, 0.5)),
        ({"num_stages": 4}, (0.25,) * 4),
        ({"fusion_weights": (0, 0, 1)}, (0.0, 0.0, 1.0)),
    ],
)
def test_fixed_weights(options, expected):
    network = SideOutputVGG(**options)
    torch.testing.assert_close(network.state_dict()["fusion_weights"], torch.tensor(expected))
    torch.testing.assert_close(network.fusion_logits.softmax(dim=0), torch.full((len(expected),), 1 / len(expected)))


def test_a_checkpoint_does_not_replace_weights_that_were_given():
    trained = SideOutputVGG(fusion_weights=(0.1, 0.2, 0.7))
    for weights, expected in ((None, (0.1, 0.2, 0.7)), ((0.5, 0.25, 0.25), (0.5, 0.25, 0.25))):
        network = SideOutputVGG(fusion_weights=weights)
        network.load_state_dict(trained.state_dict())
        torch.testing.assert_close(network.fusion_weights, torch.tensor(expected))
        torch.testing.assert_close(network.side_layers.state_dict(), trained.side_layers.state_dict())
        torch.testing.assert_close(torch.jit.script(network.eval()).state_dict()["fusion_weights"], torch.tensor(expected))
    with pytest.raises(RuntimeError, match="size mismatch"):
        SideOutputVGG(side_outputs=(2, 3), fusion_weights=(0.5, 0.5)).load_state_dict(trained.state_dict())


def test_fixed_weights_are_not_trained_and_learned_ones_are():
    network = make()
    assert "fusion_weights" not in dict(network.named_parameters())
    found = gradients(network, random_images(16, 20))
    assert all(gradient is not None and gradient.isfinite().all() and gradient.any() for gradient in found.values())
    assert (found["fusion_logits"] != 0).all()


def test_initial_weights():
    torch.manual_seed(0)
    network = SideOutputVGG()
    # He, fan out: sqrt(2 / (9 * 256)) for the stage's last convolution.
    last = network.stages[2][-2]
    assert last.weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
    weights = torch.cat([layer.weight.flatten() for layer in network.side_layers])
    assert weights.std().item() == pytest.approx(0.01, rel=0.1)
    assert not any(parameter.any() for name, parameter in network.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("norm", ["batch", "group", "frozen"])
def test_normalisation_stands_behind_every_convolution(norm):
    """A scale and a shift of each channel: 2 x 64, 2 x 128, 3 x 256."""
    plain, normalised = SideOutputVGG(), SideOutputVGG(norm=norm)
    count = [sum(parameter.numel() for parameter in network.parameters()) for network in (plain, normalised)]
    assert count[1] - count[0] == 2 * (2 * 64 + 2 * 128 + 3 * 256)
    kinds = [type(layer).__name__ for layer in normalised.stages[2]]
    name = {"batch": "BatchNorm2d", "group": "GroupNorm", "frozen": "FrozenBatchNorm2d"}[norm]
    assert kinds == ["MaxPool2d", *["Conv2d", name, "ReLU"] * 3]
    side_logits, _ = normalised.train()(random_images(20, 24))
    assert side_logits.shape[1:] == (3, 20, 24)
    assert normalised.eval()(random_images(20, 24)).shape[1:] == (1, 20, 24)


def test_imagenet_weights_have_no_group_normalisation():
    with pytest.raises(ValueError, match="of VGG-16 without normalisation; got pretrained=True and norm='group'"):
        SideOutputVGG(pretrained=True, norm="group")


def test_checkpointing_computes_again_and_gives_the_same_gradients():
    images = random_images(22, 17)
    plain, checkpointed = make(), make(checkpointing=True)
    num_calls = []
    checkpointed.stages[1][1].register_forward_hook(lambda *_: num_calls.append(1))
    expected, found = gradients(plain, images), gradients(checkpointed, images)
    assert len(num_calls) == 2
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)
    assert torch.equal(checkpointed.eval()(images), plain.eval()(images))
    assert len(num_calls) == 3


def test_checkpointing_under_autocast():
    images = random_images(16, 16)
    found = []
    for checkpointing in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found.append(gradients(make(checkpointing=checkpointing), images))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, msg=name)


@torch.no_grad()
def test_channels_last_and_bfloat16():
    network, images = make(), random_images(24, 32)
    (side_logits, fusion), probabilities = network(images), network.eval()(images)
    network.to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(images), probabilities, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network(images)
        rough_logits, rough_fusion = network.train()(images)
    for rounded, exact in ((rough, probabilities), (rough_fusion, fusion), (rough_logits, side_logits)):
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded, exact, atol=0.08, rtol=0.05)
    # Not rounded after the sigmoid: bfloat16 has 128 numbers between 1/2 and 1.
    assert not torch.equal(rough, rough.bfloat16().float())
    assert network.eval().to(torch.bfloat16)(images).dtype == torch.float32


@torch.no_grad()
def test_state_dict_round_trip():
    network, images = make(fusion_weights=(0.1, 0.2, 0.7)), random_images(16, 16)
    other = SideOutputVGG()
    other.load_state_dict(network.state_dict())
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(network(images), other(images), strict=True))
    # The fixed weights come with the checkpoint.
    assert torch.equal(other.eval()(images), network.eval()(images))


@pytest.mark.parametrize("side_outputs", [None, (1, 3), (3,)])
@torch.no_grad()
def test_exported_network_takes_other_sizes(side_outputs):
    network = make(side_outputs=side_outputs, checkpointing=True).eval()
    for exported in (torch.jit.script(network), torch.jit.trace(network, random_images(16, 16))):
        for size in (16, 21):
            images = random_images(size, 18)
            torch.testing.assert_close(exported(images), network(images))


@pytest.mark.parametrize("num_stages", [0, 6])
def test_rejects_other_numbers_of_stages(num_stages):
    with pytest.raises(ValueError, match=f"1 to 5; got {num_stages}"):
        SideOutputVGG(num_stages)


@pytest.mark.parametrize("side_outputs", [(), (0, 3), (1, 2), (1, 4), (3, 1), (1, 3, 3)])
def test_rejects_other_side_outputs(side_outputs):
    with pytest.raises(ValueError, match=r"num_stages=3; got \(" + ", ".join(map(str, side_outputs))):
        SideOutputVGG(side_outputs=side_outputs)


@pytest.mark.parametrize("fusion_weights", [(0.5, 0.5), (), (0.3, 0.3, 0.3), (-0.5, 0.5, 1), (float("nan"), 0.5, 0.5)])
def test_rejects_fusion_weights_of_no_mean(fusion_weights):
    with pytest.raises(ValueError, match=r"3 numbers >= 0 with sum 1; got \(" + ", ".join(map(str, fusion_weights))):
        SideOutputVGG(fusion_weights=fusion_weights)


@pytest.mark.parametrize("training", [True, False])
def test_rejects_grey_images(training):
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\); got \[2, 1, 16, 16\]"):
        SideOutputVGG().train(training)(torch.zeros(2, 1, 16, 16))
