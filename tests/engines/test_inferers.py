import copy

import pytest
import torch
from monai.inferers import SimpleInferer

from shared.data import split_into_instances
from shared.engines import ConstrainedRetrainInferer, LatticeInferer, SelectedInstanceInferer
from shared.engines.inferers import AutocastInferer, computes_bfloat16, fast_inferer
from shared.engines.stage_settings import TrainingDevice
from shared.losses import ConstrainedRetrainLoss, SelectedInstanceLoss, binary_cross_entropy
from shared.networks import EncodedClassifier
from shared.selection import max_max, max_min

N = 3
LABELS = torch.tensor([1, 0, 0, 1, 0])


@pytest.fixture
def images():
    """Noise on instances of unlike colours, lest rounding to bfloat16 decides which is picked."""
    generator = torch.Generator().manual_seed(1)
    colours = torch.randint(0, 200, (len(LABELS), 3, N, N), generator=generator)
    noise = torch.randint(0, 56, (len(LABELS), 3, 8 * N, 8 * N), generator=generator)
    return (colours.repeat_interleave(8, 2).repeat_interleave(8, 3) + noise).to(torch.uint8)


def all_logits(network, images):
    """Every instance in one forward pass, with gradients."""
    instances = split_into_instances(images, N)
    return network(instances.flatten(0, 1)).reshape(len(images), N * N)


def gradients(network, loss):
    return torch.autograd.grad(loss, list(network.parameters()))


def assert_close(actual, expected, tolerance=1e-5):
    largest = max(gradient.abs().max() for gradient in expected)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * largest.item())


@pytest.mark.parametrize("norm", ["group", "frozen"])
@pytest.mark.parametrize("criterion", ["max_max", "max_min"])
@pytest.mark.parametrize("chunk_size", [None, 7])
def test_two_passes_equal_back_propagation_through_all(make_classifier, images, norm, criterion, chunk_size):
    network = make_classifier(norm).train()
    logits = SelectedInstanceInferer(criterion, N, chunk_size)(images, network, labels=LABELS)
    assert logits.shape == (len(images),)
    loss = binary_cross_entropy(logits, LABELS)
    expected = SelectedInstanceLoss(criterion)(all_logits(network, images), LABELS)
    torch.testing.assert_close(loss, expected)
    assert_close(gradients(network, loss), gradients(network, expected))


@pytest.mark.parametrize("criterion", [max_max, max_min])
def test_batch_norm_scores_with_running_statistics_and_learns_with_those_of_the_picks(make_classifier, images, criterion):
    network = make_classifier("batch").train()
    for _ in range(3):
        all_logits(network, images)  # Running statistics of their own.
    reference = copy.deepcopy(network)
    scores = all_logits(reference.eval(), images)
    picks = criterion(scores, LABELS)
    picked = split_into_instances(images, N)[torch.arange(len(images)), picks]
    expected = reference.train()(picked)[:, 0]

    logits = SelectedInstanceInferer(criterion.__name__, N)(images, network, labels=LABELS)
    torch.testing.assert_close(logits, expected)
    assert network.training
    for buffer, other in zip(network.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(buffer, other)
    assert_close(gradients(network, logits.sum()), gradients(reference, expected.sum()))


@pytest.mark.parametrize("norm", ["batch", "group", "frozen"])
def test_under_autocast_gradients_reach_every_parameter(make_classifier, images, norm):
    """Older versions of torch keep casts of the weights that were made without gradients: those of the scoring pass."""
    network, reference = make_classifier(norm).train(), make_classifier(norm).train()
    inferer = SelectedInstanceInferer("max_max", N)
    exact = gradients(reference, binary_cross_entropy(inferer(images, reference, labels=LABELS), LABELS))
    logits = AutocastInferer(inferer, "cpu", torch.bfloat16)(images, network, labels=LABELS)
    assert logits.dtype == torch.float32
    binary_cross_entropy(logits, LABELS).backward()
    for (name, parameter), expected in zip(network.named_parameters(), exact, strict=True):
        assert parameter.grad is not None, name
        if expected.abs().max() > 1e-4:
            assert parameter.grad.abs().max() > 0, name
    together = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
    assert torch.cosine_similarity(together, torch.cat([g.flatten() for g in exact]), dim=0) > 0.9


def test_under_autocast_the_constrained_step_reaches_every_parameter(make_classifier, images):
    network = make_classifier("group").train()
    inputs = {"instances": images[:, :, :8, :8], "images": images, "image_labels": LABELS}
    outputs = AutocastInferer(ConstrainedRetrainInferer(N), "cpu", torch.bfloat16)(inputs, network)
    assert {logits.dtype for logits in outputs.values()} == {torch.float32}
    sum(logits.sum() for logits in outputs.values()).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in network.parameters())


def test_constrained_step_joins_features_as_they_are_stored():
    """In float16, which autocast in bfloat16 joins with nothing."""

    class Head(torch.nn.Linear):
        def forward(self, features):
            return super().forward(features.float().mean(dim=(2, 3)))

    network = Head(6, 1)
    features = torch.randn(len(LABELS), 6, N, N, generator=torch.Generator().manual_seed(0)).half()
    inputs = {"instances": features[:, :, :1, :1], "images": features, "image_labels": LABELS}
    outputs = AutocastInferer(ConstrainedRetrainInferer(N), "cpu", torch.bfloat16)(inputs, network)
    expected = ConstrainedRetrainInferer(N)(
        {**inputs, "instances": features[:, :, :1, :1].float(), "images": features.float()}, network
    )
    for name, logits in outputs.items():
        torch.testing.assert_close(logits, expected[name], atol=0.02, rtol=0.02)


@pytest.mark.parametrize("norm", ["group", "frozen"])
def test_constrained_step_equals_the_paper_naively(make_classifier, images, norm):
    """Equations 4 to 6 by one full pass over everything, with loops for the picks."""
    network = make_classifier(norm).train()
    instances, instance_labels = images[:, :, :8, 8:16], torch.tensor([0, 1, 1, 0, 1])
    inputs = {"instances": instances, "images": images, "image_labels": LABELS}
    outputs = ConstrainedRetrainInferer(N)(inputs, network)
    assert outputs["picked_logits"].shape == (len(images), 2)
    loss = ConstrainedRetrainLoss(0.5, 2.0)(**outputs, instance_labels=instance_labels, image_labels=LABELS)

    logits = all_logits(network, images)
    constraint = 0.0
    for bag, label in zip(logits, LABELS.tolist(), strict=True):
        for picked in (bag.max(), bag.max() if label else bag.min()):
            constraint = constraint - torch.log(torch.sigmoid(picked if label else -picked)) / len(images)
    chosen = network(instances)[:, 0] * (2 * instance_labels - 1)
    expected = 0.5 * constraint - 2.0 * torch.log(torch.sigmoid(chosen)).mean()
    torch.testing.assert_close(loss, expected)
    assert_close(gradients(network, loss), gradients(network, expected), tolerance=1e-4)


def test_constrained_step_normalises_instances_and_picks_together(make_classifier, images):
    network = make_classifier("batch").train()
    all_logits(network, images)
    reference = copy.deepcopy(network)
    instances = images[:4, :, :8, :8]
    outputs = ConstrainedRetrainInferer(N)({"instances": instances, "images": images, "image_labels": LABELS}, network)
    scores = all_logits(reference.eval(), images)
    lattice = split_into_instances(images, N)
    picked = [lattice[bag, criterion(scores, LABELS)[bag]] for bag in range(len(images)) for criterion in (max_max, max_min)]
    expected = reference.train()(torch.cat([instances, torch.stack(picked)]))[:, 0]
    torch.testing.assert_close(outputs["instance_logits"], expected[:4])
    torch.testing.assert_close(outputs["picked_logits"], expected[4:].reshape(-1, 2))
    assert network.training


@pytest.mark.parametrize("chunk_size", [1, 4, 1000, None])
@pytest.mark.parametrize("size", [(24, 24), (12, 30)])
def test_scoring_does_not_depend_on_the_chunks(make_classifier, chunk_size, size):
    network = make_classifier("batch").eval()
    images = torch.randint(0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    logits = LatticeInferer(N, chunk_size)(images, network)
    assert not logits.requires_grad
    assert logits.dtype == torch.float32
    height, width = size[0] // N, size[1] // N
    for bag in range(2):
        for index in range(N * N):
            top, left = index // N * height, index % N * width
            one = network(images[bag : bag + 1, :, top : top + height, left : left + width])
            torch.testing.assert_close(logits[bag, index], one[0, 0])


def test_an_error_while_scoring_leaves_the_network_in_train_mode(make_classifier, images):
    network = make_classifier().train()
    with pytest.raises(ValueError, match="does not divide"):
        SelectedInstanceInferer("max_max", 5)(images, network, labels=LABELS)
    assert network.training


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("criterion", [max_max, max_min])
def test_a_single_pass_is_the_papers(make_classifier, images, norm, criterion):
    """All instances in train mode: picks, losses, gradients and running statistics of one pass over everything."""
    network = make_classifier(norm).train()
    reference = copy.deepcopy(network)
    loss = binary_cross_entropy(
        SelectedInstanceInferer(criterion.__name__, N, single_pass=True)(images, network, labels=LABELS), LABELS
    )
    expected = SelectedInstanceLoss(criterion.__name__)(all_logits(reference, images), LABELS)
    torch.testing.assert_close(loss, expected)
    assert_close(gradients(network, loss), gradients(reference, expected))
    for buffer, other in zip(network.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(buffer, other)


def test_a_constrained_single_pass_takes_labelled_and_all_other_instances_together(make_classifier, images):
    network = make_classifier("batch").train()
    reference, instances = copy.deepcopy(network), images[:4, :, :8, :8]
    inputs = {"instances": instances, "images": images, "image_labels": LABELS}
    outputs = ConstrainedRetrainInferer(N, single_pass=True)(inputs, network)
    together = reference(torch.cat([instances, split_into_instances(images, N).flatten(0, 1)]))[:, 0]
    lattice = together[4:].reshape(len(images), N * N)
    torch.testing.assert_close(outputs["instance_logits"], together[:4])
    pairs = zip(lattice, LABELS, strict=True)
    picked = torch.stack([torch.stack([bag.max(), bag.max() if label else bag.min()]) for bag, label in pairs])
    torch.testing.assert_close(outputs["picked_logits"], picked)
    total = sum(logits.square().sum() for logits in outputs.values())
    assert_close(gradients(network, total), gradients(reference, together[:4].square().sum() + picked.square().sum()))


def test_unknown_criterion():
    with pytest.raises(ValueError, match="max_max, max_min; got 'mean'"):
        SelectedInstanceInferer("mean", N)


@pytest.mark.parametrize("has_units", [True, False])
def test_bfloat16_where_the_device_is_fast_at_it(has_units, monkeypatch):
    """A GPU without units for bfloat16, which emulates it, computes in float32 faster."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or has_units)
    inferer = SimpleInferer()
    assert computes_bfloat16(torch.device("cuda")) == has_units
    assert isinstance(fast_inferer(inferer, "cuda"), AutocastInferer) == has_units
    assert TrainingDevice("cuda", "bfloat16").amp_kwargs == ({"dtype": torch.bfloat16} if has_units else None)
    assert TrainingDevice("cuda", "float16").amp_kwargs == {"dtype": torch.float16}
    on_cpu = fast_inferer(inferer, torch.device("cpu"))
    assert isinstance(on_cpu, AutocastInferer) == computes_bfloat16(torch.device("cpu"))


@pytest.mark.parametrize(("size_px", "dtype"), [(16, torch.float32), (32, torch.float32), (40, torch.bfloat16)])
def test_small_instances_are_computed_in_float32_on_a_cpu(make_classifier, size_px, dtype):
    """One pixel in bfloat16 has gradients of chance there. The images of a lattice may be large all the same."""
    network, seen = make_classifier("group"), []
    network[1].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    images = torch.randint(0, 256, (4, 3, 2 * size_px, 2 * size_px), dtype=torch.uint8)
    instances = images[..., :size_px, :size_px].contiguous()
    labels = torch.tensor([0, 1, 0, 1])
    mixed = {"instances": instances, "images": images, "image_labels": labels}
    for inferer, inputs, more in [
        (SimpleInferer(), instances, {}),
        (LatticeInferer(2), images, {}),
        (SelectedInstanceInferer("max_max", 2), images, {"labels": labels}),
        (ConstrainedRetrainInferer(2), mixed, {}),
    ]:
        AutocastInferer(inferer, "cpu", torch.bfloat16)(inputs, network, **more)
    assert set(seen) == {dtype}


class TinyEncoder(torch.nn.Module):
    """Five channels, one for each 4 px."""

    channels, stride_px, key, name = 5, 4, "00ff", "tiny"

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 5, 4, stride=4)

    def forward(self, images):
        return self.convolution(images.float() / 255)


@pytest.fixture(params=[None, 3])
def of_features(request):
    torch.manual_seed(0)
    return EncodedClassifier(TinyEncoder(), hidden_channels=request.param)


def test_instances_are_scored_on_features_as_they_are_one_by_one(of_features, images):
    of_features.standardise([images])
    features = of_features.encode(images).half()
    instances = split_into_instances(features, N).flatten(0, 1)
    expected = of_features(instances).reshape(len(images), N * N)
    torch.testing.assert_close(LatticeInferer(N)(features, of_features), expected)
    with pytest.raises(ValueError, match="does not divide into 4 x 4 instances"):
        LatticeInferer(4)(features, of_features)


def test_a_constrained_step_takes_stored_features_under_autocast(of_features, images):
    """As on CPUs with units for bfloat16, whose autocast cannot join what is in float16."""
    with torch.no_grad():
        features = of_features.encode(images).half()
    inputs = {"instances": features[:, :, :2, :2], "images": features, "image_labels": LABELS}
    outputs = AutocastInferer(ConstrainedRetrainInferer(N), "cpu", torch.bfloat16)(inputs, of_features)
    expected = ConstrainedRetrainInferer(N)(inputs, of_features)
    # Of so small instances the logits are computed in float32 all the same.
    torch.testing.assert_close(outputs, expected)
