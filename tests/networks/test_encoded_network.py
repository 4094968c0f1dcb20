"""An encoder and its head are one network, on images and on features that were stored."""

import copy

import pytest
import torch
from torch import nn

from shared.encoders import load_encoder
from shared.networks import EncodedClassifier, EncodedSegmentation, load_weights

STRIDE_PX = 32


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("efficientnet_lite0")


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.fixture(params=[EncodedClassifier, EncodedSegmentation], ids=lambda kind: kind.__name__)
def network(request, encoder):
    torch.manual_seed(0)
    return request.param(copy.deepcopy(encoder)).eval()


def features_of(encoder, images):
    with torch.inference_mode():
        return encoder(images)


def test_an_image_and_its_stored_features_have_one_answer(network, encoder, images):
    stored = features_of(encoder, images).half()
    torch.testing.assert_close(network(stored), network(images), atol=2e-3, rtol=0)


def test_an_encoder_whose_features_look_like_images_is_refused():
    class Colours(nn.Module):
        name, channels, stride_px, key = "colours", 3, 16, "00"

    with pytest.raises(ValueError, match="the encoder colours gives features of 3 channels, which cannot be told from images"):
        EncodedClassifier(Colours())


def test_a_segmentation_has_a_logit_for_every_pixel(encoder, images):
    network = EncodedSegmentation(encoder, out_channels=3)
    assert network(images).shape == (2, 3, 64, 96)
    assert network(features_of(encoder, images)).shape == (2, 3, 64, 96)


def test_a_map_of_the_classifier_has_the_mean_that_is_its_answer(encoder, images):
    torch.manual_seed(0)
    whole = EncodedClassifier(encoder)
    dense = EncodedClassifier(encoder, dense=True)
    dense.load_state_dict(whole.state_dict())
    assert dense(images).shape == (2, 1, 2, 3)
    torch.testing.assert_close(dense(images).mean(dim=(2, 3)), whole(images))


def test_a_checkpoint_holds_the_head_alone(network, tmp_path, images):
    state = network.state_dict()
    assert not [name for name in state if name.startswith("encoder.")]
    torch.save(state, tmp_path / "model.pt")
    assert (tmp_path / "model.pt").stat().st_size < 50_000
    other = type(network)(copy.deepcopy(network.encoder))
    load_weights(other, tmp_path / "model.pt")
    assert torch.equal(other(images), network(images))


def test_weights_of_another_encoder_are_refused(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "model.pt")
    smoothed = type(network)(load_encoder("efficientnet_lite0", smoothing=3))
    with pytest.raises(
        ValueError, match=r"(?s)model\.pt.*of another encoder: expected the key [0-9a-f]{16} of efficientnet_lite0"
    ):
        load_weights(smoothed, tmp_path / "model.pt")


def test_a_frozen_encoder_neither_learns_nor_leaves_eval_mode(network, images):
    network.train()
    before = copy.deepcopy(network.encoder.state_dict())
    network(images).sum().backward()
    assert not any(module.training for module in network.encoder.modules())
    assert all(parameter.grad is None for parameter in network.encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.encoder.state_dict().items())


def test_a_fine_tuned_encoder_learns_and_belongs_to_the_checkpoint(encoder, images, tmp_path):
    torch.manual_seed(0)
    network = EncodedClassifier(copy.deepcopy(encoder), finetune=True)
    optimizer = torch.optim.SGD(network.rate_groups(lr=0.1, encoder_lr=0.01))
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.01]
    network.train()(images).square().sum().backward()
    optimizer.step()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    loaded = load_weights(EncodedClassifier(copy.deepcopy(encoder), finetune=True), tmp_path / "model.pt")
    assert torch.equal(loaded(images), network.eval()(images))
    assert not torch.equal(loaded.encoder(images), encoder(images))
    # A network whose encoder others share does not take it, nor one of another smoothing.
    with pytest.raises(ValueError, match=r"contain a fine-tuned encoder.*give finetune\.json"):
        load_weights(EncodedClassifier(copy.deepcopy(encoder)), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="of another encoder: expected the key"):
        load_weights(EncodedClassifier(load_encoder("efficientnet_lite0", smoothing=3), finetune=True), tmp_path / "model.pt")


def test_features_that_do_not_fit_are_refused(encoder, images):
    with pytest.raises(ValueError, match="must have 1280 channels, as those of the encoder; found 512"):
        EncodedClassifier(encoder)(torch.zeros(1, 512, 2, 2))
    tuned = EncodedClassifier(copy.deepcopy(encoder), finetune=True)
    with pytest.raises(ValueError, match="an encoder that is trained needs images"):
        tuned(features_of(encoder, images))


def test_features_are_standardised_by_those_of_the_training(network, encoder, images):
    features = features_of(encoder, images)
    network.standardise([images[:1], features[1:]])
    expected = features.double().transpose(0, 1).flatten(1)
    standardised = network.features(images)
    torch.testing.assert_close(network.mean.flatten(), expected.mean(1).float(), atol=1e-5, rtol=1e-4)
    deviation = expected.std(1, unbiased=False).float().clamp(min=1e-3)
    torch.testing.assert_close(network.std.flatten(), deviation, atol=1e-5, rtol=1e-3)
    assert standardised.mean(dim=(0, 2, 3)).abs().max() < 1e-3


def test_bags_of_features_are_standardised_too(encoder, images):
    network = EncodedClassifier(encoder)
    features = features_of(encoder, images)
    vectors = features.permute(0, 2, 3, 1).reshape(2, -1, features.shape[1], 1, 1)
    network.standardise([vectors])
    torch.testing.assert_close(network.mean.flatten(), features.mean(dim=(0, 2, 3)), atol=1e-5, rtol=1e-4)


def test_the_network_can_be_scripted(network, images):
    scripted = torch.jit.script(network)
    torch.testing.assert_close(scripted(images), network(images), atol=1e-5, rtol=1e-4)


def test_a_head_may_have_a_hidden_layer(encoder):
    head = EncodedSegmentation(encoder, hidden_channels=8, kernel_size=3).head
    assert [layer.out_channels for layer in head if isinstance(layer, nn.Conv2d)] == [8, 2]
    with pytest.raises(ValueError, match="odd number, found 2"):
        EncodedSegmentation(encoder, kernel_size=2)


@pytest.mark.parametrize("hidden_channels", [None, 4])
def test_a_head_that_is_given_a_few_images_at_a_time_says_and_learns_the_same(encoder, images, hidden_channels, monkeypatch):
    """And what is stored stays as it was."""
    torch.manual_seed(0)
    network = EncodedSegmentation(encoder, hidden_channels=hidden_channels)
    stored = features_of(encoder, images).half().clone()
    network.standardise([stored])
    standardised = (stored.float() - network.mean) / network.std
    assert torch.equal(network.features(stored), standardised)
    given = stored.clone()
    expected = network.to_pixels(network.head(standardised), stored)
    gradients = torch.autograd.grad(expected.square().mean(), list(network.head.parameters()))
    monkeypatch.setattr("shared.networks.encoded.encoded_network._VALUES_AT_ONCE", 1)
    again = EncodedSegmentation(encoder, hidden_channels=hidden_channels)
    again.standardise([stored])
    assert torch.equal(again.mean, network.mean)
    assert torch.equal(again.std, network.std)
    for inputs in (stored, stored.float()):
        found = network(inputs)
        torch.testing.assert_close(found, expected)
        for one, other in zip(
            torch.autograd.grad(found.square().mean(), list(network.head.parameters())), gradients, strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        assert torch.equal(inputs, given.to(inputs.dtype))
    assert network(stored[:0]).shape == expected[:0].shape
