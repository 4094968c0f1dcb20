import copy

import pytest
import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from shared.networks import DeepLabV2, InstanceClassifier, PixelNormalization, UNet, recorded_batch_statistics

PICKED = [1, 6]


def make_network():
    torch.manual_seed(0)
    layers = [PixelNormalization(), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2)]
    layers += [nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(8), nn.Linear(8, 1)]
    return nn.Sequential(*layers).train()


def random_instances(num_instances=8, size_px=32):
    shape = (num_instances, 3, size_px, size_px)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def two_passes(network, instances):
    with recorded_batch_statistics(network) as statistics:
        with torch.no_grad():
            scores = network(instances)
        with statistics.applied():
            picked = network(instances[PICKED])
    return scores, picked


# In the last stage of 8 instances of 32 px each feature map is one pixel: n / (n - 1) = 8 / 7 matters.
@pytest.mark.parametrize("norm", ["batch", "group", "frozen"])
def test_picks_keep_the_logits_of_the_scoring_pass(norm):
    torch.manual_seed(0)
    network = InstanceClassifier("resnet18", norm=norm).train()
    scores, picked = two_passes(network, random_instances())
    torch.testing.assert_close(picked, scores[PICKED], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("momentum", [0.1, 1.0, None])
def test_running_statistics_equal_those_of_one_ordinary_pass(momentum):
    network, instances = make_network(), random_instances()
    for layer in network.modules():
        if isinstance(layer, _BatchNorm):
            layer.momentum = momentum
    ordinary = copy.deepcopy(network)
    for _ in range(2):
        two_passes(network, instances)
        with torch.no_grad():
            ordinary(instances)
    torch.testing.assert_close(network.state_dict(), ordinary.state_dict())
    assert all(layer.training for layer in network.modules())
    assert all(layer.momentum == momentum for layer in network.modules() if isinstance(layer, _BatchNorm))
    assert network[2].num_batches_tracked == 2


def test_buffers_stay_the_same_tensors():
    network = make_network()
    before = dict(network.named_buffers())
    two_passes(network, random_instances())
    assert all(buffer is before[name] for name, buffer in network.named_buffers())


@pytest.mark.parametrize("name", ["deeplab", "unet"])
def test_other_networks(name):
    torch.manual_seed(0)
    network = (DeepLabV2("resnet10", atrous_rates=[1]) if name == "deeplab" else UNet(features=(8,) * 6)).train()
    scores, picked = two_passes(network, random_instances(size_px=32))
    torch.testing.assert_close(picked, scores[PICKED], atol=1e-5, rtol=1e-5)


def test_gradient_takes_the_statistics_for_constants_and_may_come_later():
    network, instances = make_network(), random_instances()
    _, picked = two_passes(network, instances)
    picked.sum().backward()
    gradient = network[1].weight.grad.clone()

    # Reference: a network in eval mode whose running statistics are those of the batch, without the bias correction.
    reference = make_network()
    norms = [layer for layer in reference.modules() if isinstance(layer, _BatchNorm)]
    sizes = {}
    for layer in norms:
        layer.momentum = 1.0
        layer.register_forward_pre_hook(lambda layer, inputs: sizes.setdefault(layer, inputs[0][:, 0].numel()) and None)
    with torch.no_grad():
        reference(instances)
    for layer in norms:
        layer.running_var *= (sizes[layer] - 1) / sizes[layer]
    reference.eval()(instances[PICKED]).sum().backward()
    torch.testing.assert_close(gradient, reference[1].weight.grad)


def test_second_scoring_pass_replaces_the_first():
    network, instances = make_network(), random_instances()
    with recorded_batch_statistics(network) as statistics:
        with torch.no_grad():
            network(instances.flip(1))
        with statistics.applied():
            network(instances[PICKED])
        with torch.no_grad():
            scores = network(instances)
        with statistics.applied():
            picked = network(instances[PICKED])
    torch.testing.assert_close(picked, scores[PICKED], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("inside_applied", [True, False])
def test_an_exception_leaves_the_network_as_it_was(inside_applied):
    network, instances = make_network(), random_instances()
    before = copy.deepcopy(network.state_dict())

    def fail():
        with recorded_batch_statistics(network) as statistics:
            network(instances)
            if not inside_applied:
                raise KeyError("outside")
            with statistics.applied():
                raise KeyError("inside")

    with pytest.raises(KeyError):
        fail()
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert all(layer.training for layer in network.modules())
    assert network[2].momentum == 0.1
    assert not network[2]._forward_pre_hooks


def test_layers_in_eval_mode_are_left_alone():
    network = make_network().eval()
    before = copy.deepcopy(network.state_dict())
    two_passes(network, random_instances())
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert not any(layer.training for layer in network.modules())


def test_rejects_a_second_pass_without_a_first():
    with (
        recorded_batch_statistics(make_network()) as statistics,
        pytest.raises(RuntimeError, match="needs a forward pass"),
        statistics.applied(),
    ):
        pass


def test_data_parallel_network_must_not_broadcast_buffers():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        with (
            pytest.raises(ValueError, match="broadcast_buffers=False; got True"),
            recorded_batch_statistics(DistributedDataParallel(make_network())),
        ):
            pass
        network = DistributedDataParallel(make_network(), broadcast_buffers=False)
        scores, picked = two_passes(network, random_instances())
        torch.testing.assert_close(picked, scores[PICKED], atol=1e-5, rtol=1e-5)
    finally:
        distributed.destroy_process_group()
