import pytest
import torch
from torch import nn

from shared.networks import IMAGENET_URLS, SideOutputVGG, load_imagenet_vgg16

FILE_NAME = "vgg16-397923af.pth"
FILE_NAME_WITH_BATCH_NORM = "vgg16_bn-6c64b313.pth"
# torchvision's cfgs["D"]: channels of the convolutions, "M" for pooling.
CONFIGURATION = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


def torchvision_weights(configuration=CONFIGURATION, with_batch_norm=False):
    """Random weights with torchvision's names and shapes, numbered as its `make_layers` appends layers."""
    torch.manual_seed(0)
    weights, number, in_channels = {}, 0, 3
    for entry in configuration:
        if entry == "M":
            number += 1
            continue
        weights[f"features.{number}.weight"] = torch.randn(entry, in_channels, 3, 3)
        weights[f"features.{number}.bias"] = torch.randn(entry)
        if with_batch_norm:
            norm = nn.BatchNorm2d(entry).state_dict() | {
                name: torch.rand(entry) for name in ("weight", "running_mean", "running_var")
            }
            weights |= {f"features.{number + 1}.{name}": value for name, value in norm.items()}
        number, in_channels = number + (3 if with_batch_norm else 2), entry
    # The first linear layer's real 4096 x 25088 would only take time.
    weights["classifier.0.weight"], weights["classifier.0.bias"] = torch.randn(2, 25088), torch.randn(2)
    return weights


@pytest.mark.parametrize(
    ("num_stages", "norm", "last_number"),
    [(1, None, 2), (3, None, 14), (5, None, 28), (1, "batch", 4), (3, "batch", 21), (5, "frozen", 41)],
)
def test_every_convolution_takes_its_weights(hub, num_stages, norm, last_number):
    weights = torchvision_weights(with_batch_norm=norm is not None)
    torch.save(weights, hub / (FILE_NAME_WITH_BATCH_NORM if norm else FILE_NAME))
    network = SideOutputVGG(num_stages, pretrained=True, norm=norm)
    # Layer by layer in torchvision's order: pooling is the first layer of our stages and the last one of its.
    layers = [layer for stage in network.stages for layer in stage]
    assert len(layers) == last_number + 2
    assert layers[last_number].state_dict()
    arrived = set()
    for number, layer in enumerate(layers):
        for key, value in layer.state_dict().items():
            assert torch.equal(value, weights[f"features.{number}.{key}"])
            arrived.add(f"features.{number}.{key}")
    in_trunk = {key for key in weights if key.startswith("features.") and int(key.split(".")[1]) <= last_number}
    assert arrived == in_trunk


def test_side_layers_keep_their_random_start(hub):
    torch.save(torchvision_weights(), hub / FILE_NAME)
    layers = SideOutputVGG(pretrained=True).side_layers
    assert all(layer.weight.abs().max() < 0.1 and not layer.bias.any() for layer in layers)


def test_local_file(hub, tmp_path):
    weights = torchvision_weights()
    torch.save(weights, tmp_path / "own.pth")
    network = SideOutputVGG(num_stages=2, pretrained=True, weights_path=tmp_path / "own.pth")
    assert torch.equal(network.stages[1][1].weight, weights["features.5.weight"])


def test_a_failed_download_names_file_and_folder(hub):
    with pytest.raises(RuntimeError) as error:
        SideOutputVGG(pretrained=True)
    assert IMAGENET_URLS["vgg16"] in str(error.value)
    assert str(hub / FILE_NAME) in str(error.value)
    assert "no network" in str(error.value)


@pytest.mark.parametrize(
    ("configuration", "with_batch_norm", "message"),
    [
        ((64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512), False, r"2 missing .*features.14.weight"),
        ((*CONFIGURATION[:9], 256, *CONFIGURATION[9:]), False, r"0 missing \[\], \d+ unexpected .*features.16.weight"),
        (CONFIGURATION, True, r"\d+ missing .* unexpected .*features.1.weight"),
    ],
    ids=["vgg13", "a convolution more", "vgg16_bn"],
)
def test_rejects_other_vggs(tmp_path, configuration, with_batch_norm, message):
    torch.save(torchvision_weights(configuration, with_batch_norm), tmp_path / "own.pth")
    with pytest.raises(ValueError, match=f"keys of vgg16; {message}"):
        SideOutputVGG(pretrained=True, weights_path=tmp_path / "own.pth")


def test_rejects_weights_that_do_not_fit(tmp_path):
    weights = torchvision_weights()
    weights["features.10.bias"] = torch.zeros(128)
    torch.save(weights, tmp_path / "own.pth")
    with pytest.raises(ValueError, match=r"features.10.bias must be \(256,\); got \(128,\)"):
        SideOutputVGG(pretrained=True, weights_path=tmp_path / "own.pth")


def test_nothing_is_loaded_if_something_does_not_fit(tmp_path):
    weights = torchvision_weights()
    weights["features.14.bias"] = torch.zeros(1)
    torch.save(weights, tmp_path / "own.pth")
    stages = SideOutputVGG().stages
    before = {key: value.clone() for key, value in stages.state_dict().items()}
    with pytest.raises(ValueError, match=r"features.14.bias"):
        load_imagenet_vgg16(stages, tmp_path / "own.pth")
    assert all(torch.equal(value, before[key]) for key, value in stages.state_dict().items())


def test_weights_without_batch_normalisation_are_no_start_for_a_network_with_it(tmp_path):
    torch.save(torchvision_weights(), tmp_path / "own.pth")
    with pytest.raises(ValueError, match=r"keys of vgg16_bn; \d+ missing"):
        SideOutputVGG(pretrained=True, norm="batch", weights_path=tmp_path / "own.pth")


def test_rejects_files_that_cannot_be_had(tmp_path):
    with pytest.raises(RuntimeError, match=r"cannot read the weights .*absent.pth"):
        SideOutputVGG(pretrained=True, weights_path=tmp_path / "absent.pth")
    with pytest.raises(ValueError, match="pretrained=False"):
        SideOutputVGG(weights_path=tmp_path / "absent.pth")
