import pytest
import torch
from torch import nn

from shared.networks import DeepLabV2, InstanceClassifier, Wildcat, load_initial_weights, load_weights


def network(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 1), nn.BatchNorm2d(width))


def test_a_state_dict_comes_back_in_eval_mode(tmp_path):
    saved = network()
    saved(torch.rand(2, 3, 4, 4))
    torch.save(saved.state_dict(), tmp_path / "model.pt")
    fresh = network()
    assert load_weights(fresh, tmp_path / "model.pt") is fresh
    assert not fresh.training
    assert all(torch.equal(values, saved.state_dict()[name]) for name, values in fresh.state_dict().items())


def test_memory_format_is_kept(tmp_path):
    torch.save(network().state_dict(), tmp_path / "model.pt")
    fresh = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    torch.save(nn.Conv2d(3, 4, 3).state_dict(), tmp_path / "model.pt")
    load_weights(fresh, tmp_path / "model.pt")
    assert fresh.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"model\.pt do not exist: train first"):
        load_weights(network(), tmp_path / "model.pt")
    assert load_weights(network(), tmp_path / "model.pt", missing_ok=True) is None


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 cut off", b"\x80\x02]q\x00."])
@pytest.mark.parametrize("missing_ok", [False, True])
def test_no_checkpoint(tmp_path, content, missing_ok):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.pt (is not a PyTorch checkpoint|does not hold)"):
        load_weights(network(), tmp_path / "model.pt", missing_ok)


def test_half_a_checkpoint(tmp_path):
    torch.save(network().state_dict(), tmp_path / "model.pt")
    whole = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.pt is not a PyTorch checkpoint"):
        load_weights(network(), tmp_path / "model.pt")


@pytest.mark.parametrize("wrong", [network(5).state_dict(), {}, {**network().state_dict(), "more": torch.ones(1)}, [1, 2]])
def test_weights_of_another_network(tmp_path, wrong):
    torch.save(wrong, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt does not hold the weights of a Sequential as configured"):
        load_weights(network(), tmp_path / "model.pt")


def test_code_in_a_file_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    torch.save({"weight": Payload()}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt holds other objects than tensors"):
        load_weights(network(), tmp_path / "model.pt")
    assert not (tmp_path / "touched").exists()


def test_a_network_without_parameters(tmp_path):
    torch.save(nn.ReLU().state_dict(), tmp_path / "model.pt")
    assert not load_weights(nn.ReLU(), tmp_path / "model.pt").training


NETWORKS = {
    DeepLabV2: {"norm": "frozen", "atrous_rates": [1, 2]},
    Wildcat: {"maps_per_class": 2, "output_stride": 16},
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_to_begin_with_is_the_same_network_or_a_classifiers_resnet(tmp_path, kind):
    classifier, network = InstanceClassifier("resnet10"), kind("resnet10", **NETWORKS[kind])
    torch.save(classifier.state_dict(), tmp_path / "classifier.pt")
    before = {name: values.clone() for name, values in network.state_dict().items()}
    load_initial_weights(network, tmp_path / "classifier.pt")
    after, given = network.state_dict(), classifier.resnet.state_dict()
    taken = {name: given[name.removeprefix("backbone.")] for name in after if name.startswith("backbone.")}
    assert taken
    assert all(torch.equal(values, taken.get(name, before[name])) for name, values in after.items())
    torch.save(network.state_dict(), tmp_path / "network.pt")
    again = kind("resnet10", **NETWORKS[kind])
    load_initial_weights(again, tmp_path / "network.pt")
    assert all(torch.equal(values, after[name]) for name, values in again.state_dict().items())


def test_a_classifier_of_another_resnet_is_nothing_to_begin_with(tmp_path):
    torch.save(InstanceClassifier("resnet18").state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt does not hold the weights of a InstanceClassifier as configured"):
        load_initial_weights(DeepLabV2("resnet10"), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt does not hold the weights of a Sequential as configured"):
        load_initial_weights(network(), tmp_path / "model.pt")
