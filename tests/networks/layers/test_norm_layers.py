import pytest
import torch
from torch import nn

from shared.networks import FrozenBatchNorm2d, replace_batch_norm, resnet


def trained_batch_norm():
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(8)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    layer(3 * torch.randn(16, 8, 4, 4) + 1)
    return layer


def test_frozen_equals_batch_norm_in_eval_mode():
    batch_norm = trained_batch_norm()
    frozen = FrozenBatchNorm2d(batch_norm).train()
    features = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(frozen(features), batch_norm.eval()(features))
    assert torch.equal(frozen.running_mean, batch_norm.running_mean)
    assert {name for name, _ in frozen.named_parameters()} == {"weight", "bias"}


def test_frozen_and_batch_norm_load_each_other():
    batch_norm = trained_batch_norm()
    frozen = FrozenBatchNorm2d(nn.BatchNorm2d(8))
    frozen.load_state_dict(batch_norm.state_dict())
    nn.BatchNorm2d(8).load_state_dict(frozen.state_dict())
    assert torch.equal(frozen.running_var, batch_norm.running_var)


def test_frozen_survives_conversion_to_sync_batch_norm():
    network = nn.Sequential(FrozenBatchNorm2d(trained_batch_norm()))
    assert isinstance(nn.SyncBatchNorm.convert_sync_batchnorm(network)[0], FrozenBatchNorm2d)


@pytest.mark.parametrize(("norm", "kind"), [("group", nn.GroupNorm), ("frozen", FrozenBatchNorm2d)])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_replaces_every_layer_of_a_resnet(backbone, norm, kind):
    num_batch_norms = sum(isinstance(layer, nn.BatchNorm2d) for layer in resnet(backbone).modules())
    layers = list(resnet(backbone, norm=norm).modules())
    # One after each convolution: 18 and 50 layers less the linear one, plus the shortcuts' 3 and 4.
    assert num_batch_norms == {"resnet18": 17 + 3, "resnet50": 49 + 4}[backbone]
    assert sum(isinstance(layer, kind) for layer in layers) == num_batch_norms
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in layers)


def test_group_count_divides_the_channels():
    network = replace_batch_norm(nn.Sequential(nn.BatchNorm2d(64), nn.Sequential(nn.BatchNorm2d(20))), "group")
    assert (network[0].num_groups, network[1][0].num_groups) == (32, 4)


def test_rejects_unknown_norms():
    with pytest.raises(ValueError, match="batch, group, frozen; got 'layer'"):
        replace_batch_norm(nn.Sequential(), "layer")
