import math

import pytest
import torch
from torch import nn

from shared.networks import InstanceClassifier, ProbabilityEnsemble, load_ensemble


class Fixed(nn.Module):
    """The same logits whatever the images show."""

    def __init__(self, *logits, dtype=torch.float32):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=dtype)[:, None])

    def forward(self, images):
        return self.logits.clone()


IMAGES = torch.zeros(1, 3, 8, 8)


def answers(*logits):
    """The ensemble's logits of networks that say `logits`, a sequence each."""
    return ProbabilityEnsemble([Fixed(*of_one) for of_one in logits])(IMAGES)[:, 0]


def random_images(batch_size=2):
    shape = (batch_size, 3, 32, 48)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def classifier(seed, dense_stride=None):
    torch.manual_seed(seed)
    return InstanceClassifier("resnet10", dense_stride=dense_stride).eval()


def test_mean_of_probabilities_by_hand():
    # Probabilities 3/4 and 1/4 make 1/2; 9/10 and 1/2 make 7/10.
    logits = answers([math.log(3), math.log(9)], [-math.log(3), 0.0])
    torch.testing.assert_close(logits, torch.tensor([0.0, math.log(7 / 3)]))


@pytest.mark.parametrize("num_networks", [1, 2, 5])
def test_is_the_logit_of_the_mean_probability(num_networks):
    logits = torch.rand(num_networks, 40, generator=torch.Generator().manual_seed(0)) * 20 - 10
    expected = logits.double().sigmoid().mean(0).logit()
    torch.testing.assert_close(answers(*logits.tolist()).double(), expected, rtol=1e-5, atol=1e-5)


def test_sure_networks_stay_finite_and_in_order():
    first = [-100.0, -99.0, -100.0, 99.0, 100.0]
    second = [-100.0, -100.0, 100.0, 100.0, 100.0]
    logits = answers(first, second)
    assert logits.isfinite().all()
    assert (logits.diff() > 0).all()
    # log((e^-99 + e^-100) / 2) in the second place, its opposite in the fourth; two that are sure of opposites know nothing.
    expected = -100 + math.log((1 + math.e) / 2)
    torch.testing.assert_close(logits, torch.tensor([-100.0, expected, 0.0, -expected, 100.0]))
    # The sigmoid of all of these is exactly 1.
    assert (answers([30.0, 60.0, 90.0], [31.0, 61.0, 91.0]).diff() > 29).all()


@torch.no_grad()
def test_of_equal_networks_is_the_network():
    for dense_stride in (None, 16):
        network = classifier(0, dense_stride)
        ensemble = ProbabilityEnsemble([network] * 3)
        torch.testing.assert_close(ensemble(random_images()), network(random_images()), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_dense_maps_are_averaged_place_by_place():
    networks = [classifier(seed, 16) for seed in (0, 1)]
    probabilities = torch.stack([network(random_images()) for network in networks]).sigmoid().mean(0)
    assert probabilities.shape == (2, 1, 2, 3)
    torch.testing.assert_close(ProbabilityEnsemble(networks)(random_images()).sigmoid(), probabilities)


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 6, 7), (5, 2)])
def test_several_classes_are_averaged_as_probabilities(shape):
    class Given(nn.Module):
        def __init__(self, logits):
            super().__init__()
            self.logits = logits

        def forward(self, images):
            return self.logits

    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(shape, generator=generator) * 10 for _ in range(3)]
    expected = torch.stack(logits).double().softmax(dim=2).mean(0)
    found = ProbabilityEnsemble([Given(one) for one in logits])(IMAGES)
    torch.testing.assert_close(found.softmax(dim=1).double(), expected, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_mean_probability():
    network = Fixed(-3.0, 0.5, 2.0, dtype=torch.float64)
    other = Fixed(1.0, 0.0, -4.0, dtype=torch.float64)
    ProbabilityEnsemble([network, other])(IMAGES).sum().backward()
    logits = torch.stack([network.logits, other.logits]).detach().requires_grad_()
    logits.sigmoid().mean(0).logit().sum().backward()
    torch.testing.assert_close(torch.stack([network.logits.grad, other.logits.grad]), logits.grad, rtol=1e-5, atol=1e-6)


def test_answers_in_float32():
    ensemble = ProbabilityEnsemble([Fixed(1.0, 2.0, dtype=torch.bfloat16)] * 2)
    assert ensemble(IMAGES).dtype == torch.float32


def test_needs_a_network():
    with pytest.raises(ValueError, match="at least one network; got none"):
        ProbabilityEnsemble([])


@pytest.fixture
def checkpoints(tmp_path):
    paths = [tmp_path / f"run_{seed}.pt" for seed in (1, 2)]
    for seed, path in zip((1, 2), paths, strict=True):
        torch.save(classifier(seed).state_dict(), path)
    return paths


@torch.no_grad()
def test_one_path_gives_the_network_itself(checkpoints):
    network = classifier(0).train()
    loaded = load_ensemble(network, checkpoints[:1])
    assert loaded is network
    assert not loaded.training
    assert torch.equal(loaded(random_images()), classifier(1)(random_images()))


@torch.no_grad()
def test_several_paths_give_networks_of_their_own(checkpoints):
    network = classifier(0).train()
    loaded = load_ensemble(network, checkpoints)
    assert not any(module.training for module in loaded.modules())
    expected = ProbabilityEnsemble([classifier(1), classifier(2)])
    assert torch.equal(loaded(random_images()), expected(random_images()))
    # Whoever holds the network holds a trained one.
    assert torch.equal(network(random_images()), classifier(1)(random_images()))


def test_errors_of_loading(checkpoints, tmp_path):
    with pytest.raises(ValueError, match="got none"):
        load_ensemble(classifier(0), [])
    with pytest.raises(ValueError, match=r"run_3\.pt do not exist"):
        load_ensemble(classifier(0), [*checkpoints, tmp_path / "run_3.pt"])
    other = tmp_path / "other.pt"
    torch.save(InstanceClassifier("resnet18").state_dict(), other)
    with pytest.raises(ValueError, match=r"other\.pt does not hold the weights of a InstanceClassifier"):
        load_ensemble(classifier(0), [checkpoints[0], other])
