"""Segmentation and classification by one ResNet-18, against the two tables of the paper and a plain ResNet written out."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import distributed, nn
from torch.multiprocessing import start_processes
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from shared.losses import JointSegClsLoss
from shared.networks import IMAGENET_MEAN, IMAGENET_STD, SegClsResNet18, resnet

HEADS = ("paper", "released")


def random_images(batch_size=2, height=32, width=32, seed=0):
    shape = (batch_size, 3, height, width)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def make(head="paper", **arguments):
    torch.manual_seed(0)
    network = SegClsResNet18(head=head, **arguments)
    # Running statistics as after a training: with the initial ones batch normalisation would be the identity.
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.bias, 0, 0.1)
    return network.eval()


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def normalize(features, state, name):
    statistics = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    mean, variance, scale, shift = (values[:, None, None] for values in statistics)
    return (features - mean) / (variance + 1e-5).sqrt() * scale + shift


def resnet18_to_layer3(pixels, state):
    """ResNet-18 as He et al. and torchvision have it, from torchvision's names, without a module of MONAI's."""
    features = F.conv2d(pixels, state["conv1.weight"], stride=2, padding=3)
    features = F.max_pool2d(normalize(features, state, "bn1").relu(), 3, stride=2, padding=1)
    for name in ("layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1"):
        shortcut, stride = features, 1
        if f"{name}.downsample.0.weight" in state:
            stride = 2
            shortcut = F.conv2d(features, state[f"{name}.downsample.0.weight"], stride=2)
            shortcut = normalize(shortcut, state, f"{name}.downsample.1")
        features = F.conv2d(features, state[f"{name}.conv1.weight"], stride=stride, padding=1)
        features = F.conv2d(normalize(features, state, f"{name}.bn1").relu(), state[f"{name}.conv2.weight"], padding=1)
        features = (normalize(features, state, f"{name}.bn2") + shortcut).relu()
    return features


def doubled(rows):
    """Twice as many rows ``(..., h, w)``, linear between centres: 2i and 2i + 1 lie a quarter beside the centre of i."""
    before = torch.cat([rows[..., :1, :], rows[..., :-1, :]], dim=-2)
    after = torch.cat([rows[..., 1:, :], rows[..., -1:, :]], dim=-2)
    return torch.stack([0.75 * rows + 0.25 * before, 0.75 * rows + 0.25 * after], dim=-2).flatten(-3, -2)


def decoded(features, state):
    """Table A.1 up to the map."""
    features = normalize(F.conv2d(features, state["decoder.0.weight"], padding=1), state, "decoder.1").relu()
    features = doubled(doubled(features).mT).mT
    weight, bias = state["decoder.4.weight"][:, :, 0, 0], state["decoder.4.bias"]
    return torch.einsum("bihw,oi->bohw", features, weight) + bias[:, None, None]


def classified(maps, state):
    """Table A.2."""
    hidden = maps.mean(dim=(2, 3)) @ state["classifier.1.weight"][:, :, 0, 0].T
    hidden = normalize(hidden[:, :, None, None], state, "classifier.2")[:, :, 0, 0].relu()
    return hidden @ state["classifier.4.weight"][:, :, 0, 0].T


def test_parameters_of_the_paper():
    # ResNet-18 has 11,689,512, its last layer 8,393,728 and the linear layer 512 * 1000 + 1000.
    assert num_parameters(make().encoder) == 11_689_512 - 8_393_728 - 513_000 == 2_782_784
    for num_classes, decoder, classifier in ((4, 147_844, 80), (2, 147_714, 48), (3, 147_779, 64)):
        network = make(num_classes=num_classes)
        assert num_parameters(network.decoder) == 256 * 64 * 9 + 2 * 64 + 65 * num_classes == decoder
        assert num_parameters(network.classifier) == 16 * num_classes + 2 * 8 == classifier
    released = make("released")
    assert num_parameters(released.classifier) == 0
    assert num_parameters(released) == 2_782_784 + 147_844


@torch.no_grad()
def test_shapes_of_the_paper():
    network, images = make(), random_images(2, 128, 128)
    features = network.encoder(network.normalization(images))
    maps = network.maps(images)
    assert features.shape == (2, 256, 8, 8)
    assert maps.shape == (2, 4, 16, 16)
    assert network(images).shape == (2, 4, 128, 128)
    assert network.classify(images).shape == (2, 4)
    # Table A.1: 16 > 128 by the nearest.
    assert torch.equal(network(images), maps.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3))
    assert torch.equal(network(images), F.interpolate(maps, (128, 128), mode="nearest"))


@torch.no_grad()
def test_encoder_is_a_resnet18_with_the_weights_of_torchvision(tmp_path):
    torch.manual_seed(0)
    # All weights of a whole ResNet-18, as in torchvision's file, norms included.
    weights = resnet("resnet18", num_classes=1000).state_dict()
    for name, value in weights.items():
        if value.dim() == 1:
            weights[name] = torch.rand_like(value) + 0.5
    torch.save(weights, tmp_path / "resnet18.pth")
    network = SegClsResNet18(pretrained=True, weights_path=tmp_path / "resnet18.pth").eval()
    state = network.encoder.state_dict()
    assert set(state) == {name for name in weights if not name.startswith(("layer4.", "fc."))}
    assert all(torch.equal(value, weights[name]) for name, value in state.items())
    pixels = torch.randn(2, 3, 70, 64, generator=torch.Generator().manual_seed(0))
    expected = resnet18_to_layer3(pixels, weights)
    torch.testing.assert_close(network.encoder(pixels), expected, rtol=1e-4, atol=1e-4 * expected.std().item())


@pytest.mark.parametrize(("height", "width"), [(64, 48), (37, 50)])
@torch.no_grad()
def test_equals_the_tables_written_out(height, width):
    network, images = make().double(), random_images(2, height, width)
    state = network.state_dict()
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = (images.double() / 255 - mean) / std
    encoder = {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
    maps = decoded(resnet18_to_layer3(pixels, encoder), state)
    # Of mean and deviation the network has float32.
    torch.testing.assert_close(network.maps(images), maps, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.classify(images), classified(maps, state), rtol=1e-4, atol=1e-5)
    rows, columns = torch.arange(height) // 8, torch.arange(width) // 8
    torch.testing.assert_close(network(images), maps[:, :, rows][:, :, :, columns], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_released_head_is_the_maximum():
    network, images = make("released"), random_images(3, 48, 64)
    assert torch.equal(network.classify(images), network.maps(images).flatten(2).max(dim=2).values)


@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_any_image_size_and_uint8_equals_float(head):
    network = make(head)
    for height, width in ((16, 33), (37, 50), (8, 8), (1, 1)):
        images = random_images(2, height, width)
        logits = network(images)
        assert logits.shape == (2, 4, height, width)
        assert logits.dtype == torch.float32
        assert torch.equal(network(images.float()), logits)
        # One place every 8 pixels from the corner on, whatever the size.
        rows, columns = torch.arange(height) // 8, torch.arange(width) // 8
        assert torch.equal(logits, network.maps(images)[:, :, rows][:, :, :, columns])


@torch.no_grad()
def test_channels_last_and_bfloat16():
    network, images = make(), random_images(2, 40, 56)
    logits, image_logits = network(images), network.classify(images)
    network.to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(images), logits, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(network(images).float(), logits, atol=0.05, rtol=0.05)
        torch.testing.assert_close(network.classify(images).float(), image_logits, atol=0.05, rtol=0.05)
    assert network.to(torch.bfloat16)(images).dtype == torch.bfloat16


@torch.no_grad()
def test_both_kinds_at_once_equal_each_alone():
    images, labelled = random_images(2, 48, 32), random_images(3, 33, 40, seed=1)
    paper, released = make("paper"), make("released")
    logits = paper(images, labelled)
    assert set(logits) == {"pixel_logits", "image_logits"}
    assert torch.equal(logits["pixel_logits"], paper(images))
    assert torch.equal(logits["image_logits"], paper.classify(labelled))
    assert set(paper(labelled=labelled)) == {"image_logits"}
    logits = released(images, labelled)
    assert set(logits) == {"pixel_logits", "image_logits", "image_logits_of_masked", "pixel_logits_of_labelled"}
    assert torch.equal(logits["pixel_logits"], released(images))
    assert torch.equal(logits["image_logits"], released.classify(labelled))
    assert torch.equal(logits["image_logits_of_masked"], released.classify(images))
    assert torch.equal(logits["pixel_logits_of_labelled"], released(labelled))
    assert set(released(labelled=labelled)) == {"image_logits", "pixel_logits_of_labelled"}


@torch.no_grad()
def test_in_training_batch_normalisation_sees_each_kind_alone():
    images, labelled = random_images(2), random_images(3, seed=1)
    both, alone = make().train(), make().train()
    logits = both(images, labelled)
    image_logits = alone(labelled=labelled)["image_logits"]
    torch.testing.assert_close(logits["pixel_logits"], alone(images))
    torch.testing.assert_close(logits["image_logits"], image_logits)
    for name, value in both.state_dict().items():
        torch.testing.assert_close(value, alone.state_dict()[name])
    assert both.encoder.bn1.num_batches_tracked == 2
    assert both.classifier[2].num_batches_tracked == 1


def has_gradient(module):
    return [parameter.grad is not None and bool(parameter.grad.any()) for parameter in module.parameters()]


def test_labelled_images_teach_the_encoder_through_the_classifier():
    network = make().train()
    network(labelled=random_images(4))["image_logits"][:, 0].square().sum().backward()
    assert all(has_gradient(network.encoder))
    assert all(has_gradient(network.classifier))
    assert has_gradient(network.decoder).count(True) >= 4
    # The classifier's batch normalisation takes the mean away, and with it whatever the map's bias adds everywhere.
    bias = network.decoder[4].bias.grad
    assert bias.abs().max() < 1e-4 * network.decoder[4].weight.grad.abs().max()


@pytest.mark.parametrize("with_labelled", [False, True])
def test_masked_images_do_not_reach_the_paper_s_classifier(with_labelled):
    network = make().train()
    images = random_images(2)
    logits = network(images, random_images(3, seed=1))["pixel_logits"] if with_labelled else network(images)
    F.cross_entropy(logits, torch.zeros(2, 32, 32, dtype=torch.int64)).backward()
    assert not any(has_gradient(network.classifier))
    assert all(has_gradient(network.encoder))
    assert all(has_gradient(network.decoder))


def test_the_released_head_teaches_the_map_where_it_is_highest():
    network, images = make("released"), random_images(2)
    maps = network.maps(images).detach().requires_grad_()
    network.classifier(maps).sum().backward()
    assert torch.equal(maps.grad.flatten(2).argmax(2), maps.flatten(2).argmax(2))
    assert torch.equal(maps.grad.flatten(2).sum(2), torch.ones(2, 4))


def test_a_classifier_that_does_not_learn():
    network = make(train_classifier=False).train()
    assert not any(parameter.requires_grad for parameter in network.classifier.parameters())
    assert all(parameter.requires_grad for part in (network.encoder, network.decoder) for parameter in part.parameters())
    # A checkpoint fits with and without.
    make().load_state_dict(network.state_dict())


def loss_of(network, step, loss):
    """The loss of a step with images, labelled ones, or both."""
    inputs = {name: step[name] for name in ("images", "labelled") if name in step}
    logits = network(**inputs)
    if isinstance(logits, torch.Tensor):
        logits = {"pixel_logits": logits}
    return loss(**logits, **{name: value for name, value in step.items() if name not in inputs})


def joint_step(mode, batch_size=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    masked = {
        "images": random_images(batch_size, seed=seed),
        "masks": torch.randint(0, 4, (batch_size, 32, 32), generator=generator),
        "labels_of_masked": torch.randint(0, 4, (batch_size,), generator=generator),
    }
    labelled = {
        "labelled": random_images(batch_size, 40, 24, seed=seed + 1),
        "labels": torch.randint(0, 4, (batch_size,), generator=generator),
    }
    return {"masked": masked, "labelled": labelled, "both": masked | labelled}[mode]


@pytest.mark.parametrize("head", HEADS)
def test_learns_both_kinds_by_heart(head):
    network, step, loss = make(head).train(), joint_step("both"), JointSegClsLoss()
    step["masks"] = step["labels_of_masked"][:, None, None].expand(4, 32, 32)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        value = loss_of(network, step, loss)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_scripted_network_takes_other_sizes(head, tmp_path):
    network = make(head)
    torch.jit.script(network).save(str(tmp_path / "network.ts"))
    scripted = torch.jit.load(str(tmp_path / "network.ts"))
    for size in (32, 45):
        images = random_images(2, size, 48)
        torch.testing.assert_close(scripted(images), network(images), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(scripted(images.float()), network(images), atol=1e-5, rtol=1e-4)
    labelled = random_images(2, 40, 24, seed=1)
    together, expected = scripted(images, labelled), network(images, labelled)
    assert set(together) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(together[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_traced_network_takes_other_sizes(head):
    network = make(head)
    traced = torch.jit.trace(network, random_images(1, 32, 32))
    for shape in ((2, 45, 48), (1, 64, 37)):
        images = random_images(*shape)
        torch.testing.assert_close(traced(images), network(images), atol=1e-5, rtol=1e-4)


def test_rejects_what_does_not_fit():
    with pytest.raises(ValueError, match="head must be one of paper, released; got 'max'"):
        SegClsResNet18(head="max")
    with pytest.raises(ValueError, match="at least 2, background among them; got 1"):
        SegClsResNet18(num_classes=1)
    with pytest.raises(ValueError, match="images, labelled images, or both"):
        make()()
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\); got \[2, 1, 32, 32\]"):
        make()(torch.zeros(2, 1, 32, 32))
    with pytest.raises(ValueError, match="pretrained=False"):
        SegClsResNet18(weights_path="resnet18.pth")


@pytest.mark.parametrize("with_masked", [False, True])
def test_a_single_labelled_image(with_masked):
    images, labelled = random_images(2) if with_masked else None, random_images(1, seed=1)
    with pytest.raises(ValueError, match="at least 2 labelled images a step and process; got 1"):
        make().train()(images, labelled)
    # Running statistics need no second one, and the maximum has no batch normalisation.
    assert make()(images, labelled)["image_logits"].shape == (1, 4)
    assert make("released").train()(images, labelled)["image_logits"].shape == (1, 4)


def test_no_random_start_in_the_place_of_weights(hub):
    with pytest.raises(RuntimeError, match=r"cannot get the ImageNet weights.*resnet18-f37072fd\.pth"):
        SegClsResNet18(pretrained=True)


def _process(rank, init_file, work):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=2)
    try:
        work(rank)
    finally:
        distributed.destroy_process_group()


def in_two_processes(tmp_path, work):
    # Forked, since to import everything twice more takes a quarter of a minute.
    start_processes(partial(_process, init_file=tmp_path / "init", work=work), nprocs=2, start_method="fork")


DISTRIBUTED = [
    ("paper", "both", True),
    ("paper", "labelled", True),
    ("paper", "masked", False),
    ("released", "both", True),
    ("released", "masked", True),
]


@pytest.mark.parametrize(("head", "mode", "train_classifier"), DISTRIBUTED)
def test_two_processes_learn_as_one(head, mode, train_classifier, tmp_path):
    """With running statistics the mean of two halves' gradients is the gradient of the whole batch."""

    def work(rank):
        network, other = (make(head, train_classifier=train_classifier) for _ in range(2))
        whole, loss = joint_step(mode), JointSegClsLoss()
        half = {name: value[2 * rank : 2 * rank + 2] for name, value in whole.items()}
        wrapped = DistributedDataParallel(network)
        loss_of(wrapped, half, loss).backward()
        loss_of(other, whole, loss).backward()
        for (name, parameter), expected in zip(network.named_parameters(), other.parameters(), strict=True):
            assert (parameter.grad is None) == (expected.grad is None) == (name.startswith("classifier") and not train_classifier)
            if expected.grad is not None:
                torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-3, atol=1e-5)
        # Steps of a training, batch normalisation and all: no parameter may be missed, and all processes stay equal.
        wrapped.train()
        optimizer = torch.optim.SGD([parameter for parameter in network.parameters() if parameter.requires_grad], lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(wrapped, half, loss).backward()
            optimizer.step()
        for parameter in network.parameters():
            of_first = parameter.detach().clone()
            distributed.broadcast(of_first, src=0)
            assert torch.equal(of_first, parameter)

    in_two_processes(tmp_path, work)


@pytest.mark.parametrize("train_classifier", [True, False])
def test_masked_images_alone_need_a_classifier_that_does_not_learn(train_classifier, tmp_path):
    """The reason of `train_classifier`: gradient exchange waits for every parameter that could learn."""

    def work(rank):
        wrapped = DistributedDataParallel(make(train_classifier=train_classifier).train())
        step = joint_step("masked", batch_size=2, seed=rank)
        loss_of(wrapped, step, JointSegClsLoss()).backward()
        with pytest.raises(RuntimeError, match="did not receive grad") if train_classifier else nullcontext():
            loss_of(wrapped, step, JointSegClsLoss()).backward()

    in_two_processes(tmp_path, work)
