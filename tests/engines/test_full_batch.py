"""The whole training set in a step, gradients of a limited size, and learning rates of their own."""

from functools import partial

import pytest
import torch
from ignite.engine import Events
from monai.optimizers import generate_param_groups

from shared.data import RegionDataset, RegionLoader
from shared.engines import Steps, TrainingDevice

FULL = Steps(batch="full")


class CountSteps:
    def __init__(self):
        self.steps = 0

    def attach(self, engine):
        engine.add_event_handler(Events.STARTED, self.watch)

    def watch(self, engine):
        engine.optimizer.register_step_post_hook(lambda *_: setattr(self, "steps", self.steps + 1))


@pytest.fixture
def sgd(make_stage, make_classifier, records):
    """A stage without chance: plain gradient descent, no augmentation, normalisation that looks at single images."""

    def make(folder, batch_size, rate=0.5, **options):
        loader = RegionLoader(RegionDataset(records[:10]), batch_size)
        optimizer = partial(torch.optim.SGD, lr=rate)
        network = make_classifier(norm="group")
        return make_stage(folder, train_data_loader=loader, optimizer=optimizer, network=network, max_epochs=2, **options)

    return make


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10], ids="batches of {}".format)
def test_accumulated_batches_are_one_batch_of_everything(tmp_path, sgd, batch_size):
    """Also where batches differ in size: ten images in batches of three are 3, 3, 2, 2."""
    steps = CountSteps()
    whole, parts = sgd(tmp_path / "whole", 10), sgd(tmp_path / "parts", batch_size, steps=FULL, train_handlers=[steps])
    whole.run()
    parts.run()
    assert steps.steps == 2
    for name, values in whole.plain_network.state_dict().items():
        torch.testing.assert_close(parts.plain_network.state_dict()[name], values, rtol=1e-4, atol=1e-5, msg=name)
    assert [row["train_loss"] for row in parts.history] == pytest.approx([row["train_loss"] for row in whole.history], rel=1e-4)


def test_mini_batches_are_another_training(tmp_path, sgd):
    whole, mini = sgd(tmp_path / "whole", 10), sgd(tmp_path / "mini", 3)
    whole.run()
    mini.run()
    name = "1.weight"
    assert not torch.allclose(whole.plain_network.state_dict()[name], mini.plain_network.state_dict()[name], rtol=1e-4)


@pytest.mark.parametrize("batch", ["mini", "full"])
@pytest.mark.parametrize("max_norm", [0.01, 1e6])
def test_gradients_are_clipped_to_their_norm(tmp_path, sgd, batch, max_norm):
    """Of plain descent at rate 1 a step is the gradient itself."""
    stage = sgd(tmp_path, 10 if batch == "mini" else 3, rate=1.0, steps=Steps(batch=batch, max_gradient_norm=max_norm))
    norms = []
    parameters = list(stage.plain_network.parameters())
    before = [p.detach().clone() for p in parameters]

    def note(*_):
        norms.append(sum(float((p.detach() - b).square().sum()) for p, b in zip(parameters, before, strict=True)) ** 0.5)
        before[:] = [p.detach().clone() for p in parameters]

    stage.optimizer.register_step_post_hook(note)
    stage.run()
    assert len(norms) == 2
    assert all(norm == pytest.approx(max_norm, rel=1e-3) if max_norm < 1 else 0.011 < norm < max_norm for norm in norms)


def test_a_layer_learns_at_its_own_rate(tmp_path, make_stage, make_classifier):
    network = make_classifier()
    groups = generate_param_groups(network, [lambda network: network[-1]], match_types=["select"], lr_values=[0.0])
    options = {"network": network, "optimizer": lambda _: torch.optim.Adam(groups, lr=0.01, fused=True)}
    stage = make_stage(tmp_path, steps=Steps(final_lr_share=0.5), max_epochs=2, **options)
    assert sorted(group["lr"] for group in stage.optimizer.param_groups) == [0.0, 0.01]
    before = {name: values.clone() for name, values in stage.plain_network.state_dict().items()}
    stage.run()
    after = stage.plain_network.state_dict()
    assert torch.equal(after["10.weight"], before["10.weight"])
    assert not torch.equal(after["1.weight"], before["1.weight"])


def test_there_are_two_kinds_of_batch():
    with pytest.raises(ValueError, match="batch must be 'mini' or 'full', got 'half'"):
        Steps(batch="half")


@pytest.mark.parametrize("amp_dtype", ["null", "fp16", "float32"])
def test_precision_that_does_not_exist_is_refused(amp_dtype):
    with pytest.raises(ValueError, match=rf"amp_dtype must be .* or null \(--amp_dtype '\$None'\), got '{amp_dtype}'"):
        TrainingDevice("cpu", amp_dtype)
