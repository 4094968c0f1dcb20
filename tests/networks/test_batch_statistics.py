import copy

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from shared.networks import DeepLabV2, InstanceClassifier, UNet, recorded_batch_statistics

PICKED = [1, 6]


def make_network(norm="batch", backbone="resnet18"):
    torch.manual_seed(0)
    return InstanceClassifier(backbone, norm=norm).train()


def random_instances(num_instances=8, size_px=48):
    shape = (num_instances, 3, size_px, size_px)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def two_passes(network, instances):
    with recorded_batch_statistics(network) as statistics:
        with torch.no_grad():
            scores = network(instances)
        with statistics.applied():
            picked = network(instances[PICKED])
    return scores, picked


@pytest.mark.parametrize("norm", ["batch", "group", "frozen"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_picks_keep_the_logits_of_the_scoring_pass(norm, backbone):
    scores, picked = two_passes(make_network(norm, backbone), random_instances())
    torch.testing.assert_close(picked, scores[PICKED], atol=1e-5, rtol=1e-5)


def test_picks_keep_their_logits_where_the_variance_s_bias_matters():
    # 3 instances of one feature each in the last stage: n / (n - 1) = 1.5.
    scores, picked = two_passes(make_network(), random_instances(8, 32)[:7])
    torch.testing.assert_close(picked, scores[PICKED], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("momentum", [0.1, 1.0, None])
def test_running_statistics_equal_those_of_one_ordinary_pass(momentum):
    network, instances = make_network(), random_instances()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = momentum
    ordinary = copy.deepcopy(network)
    for _ in range(2):
        two_passes(network, instances)
        with torch.no_grad():
            ordinary(instances)
    torch.testing.assert_close(network.state_dict(), ordinary.state_dict())
    assert all(layer.training for layer in network.modules())
    assert all(layer.momentum == momentum for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    assert network.resnet.bn1.num_batches_tracked == 2


def test_buffers_stay_the_same_tensors():
    network = make_network()
    before = dict(network.named_buffers())
    two_passes(network, random_instances())
    assert all(buffer is before[name] for name, buffer in network.named_buffers())


@pytest.mark.parametrize("name", ["deeplab", "unet"])
def test_other_networks(name):
    torch.manual_seed(0)
    network = (DeepLabV2("resnet10") if name == "deeplab" else UNet(features=(8,) * 6)).train()
    scores, picked = two_passes(network, random_instances(size_px=32))
    torch.testing.assert_close(picked, scores[PICKED], atol=1e-5, rtol=1e-5)


def test_gradient_takes_the_statistics_for_constants_and_may_come_later():
    network, instances = make_network(), random_instances()
    _, picked = two_passes(network, instances)
    picked.sum().backward()
    gradient = network.resnet.layer2[0].conv1.weight.grad.clone()

    # Reference: a network in eval mode whose running statistics are those of the batch, without the bias correction.
    reference = make_network()
    norms = [layer for layer in reference.modules() if isinstance(layer, nn.BatchNorm2d)]
    sizes = {}
    for layer in norms:
        layer.momentum = 1.0
        layer.register_forward_pre_hook(lambda layer, inputs: sizes.setdefault(layer, inputs[0][:, 0].numel()))
    with torch.no_grad():
        reference(instances)
    for layer in norms:
        layer.running_var *= (sizes[layer] - 1) / sizes[layer]
    reference.eval()(instances[PICKED]).sum().backward()
    torch.testing.assert_close(gradient, reference.resnet.layer2[0].conv1.weight.grad)


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
    assert network.resnet.bn1.momentum == 0.1
    assert not network.resnet.bn1._forward_pre_hooks


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
