import copy
from functools import partial

import pytest
import torch
from ignite.engine import Events

from shared.data import RegionDataset, RegionLoader
from shared.engines import Steps, Weights, lattice_validator
from shared.engines.averaged_weights import AveragedWeights

from .conftest import in_processes

AVERAGED = Weights(ema_decay=0.9, publish=True)


class Watch:
    """The weights of a stage after every step, and those that its network has when an epoch is validated."""

    def __init__(self):
        self.steps, self.validated = [], []

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: self.steps.append(weights_of(engine.plain_network)))
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: self.validated.append(weights_of(engine.plain_network)))


def weights_of(network):
    return copy.deepcopy(network.state_dict())


def expected_mean(steps, decay):
    """By hand, in doubles."""
    mean = {name: values.double() for name, values in steps[0].items()}
    for number, weights in enumerate(steps):
        share = min(decay, (1 + number) / (10 + number))
        for name, values in weights.items():
            mean[name] = share * mean[name] + (1 - share) * values.double() if values.is_floating_point() else values
    return mean


def test_the_mean_is_validated_and_kept_and_the_weights_are_trained(tmp_path, make_stage):
    watch, plain = Watch(), Watch()
    stage = make_stage(tmp_path / "averaged", weights=AVERAGED, train_handlers=[watch])
    stage.run()
    make_stage(tmp_path / "plain", train_handlers=[plain]).run()
    # The training itself does not see the mean.
    for ours, theirs in zip(watch.steps, plain.steps, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert len(watch.steps) == 12
    for epoch, validated in enumerate(watch.validated, 1):
        for name, values in expected_mean(watch.steps[: 3 * epoch], 0.9).items():
            torch.testing.assert_close(validated[name].double(), values.double(), rtol=1e-5, atol=1e-6, msg=name)
    for file in ("averaged/model.pt", "model.pt"):
        final = torch.load(tmp_path / file, weights_only=True)
        assert all(torch.equal(values, watch.validated[-1][name]) for name, values in final.items())
    assert not torch.equal(final["1.weight"], watch.steps[-1]["1.weight"])
    assert all(torch.equal(values, final[name]) for name, values in stage.plain_network.state_dict().items())


def test_without_it_no_resume_point_changes(tmp_path, make_stage, interrupt_at, interruption):
    with pytest.raises(interruption):
        make_stage(tmp_path, train_handlers=[interrupt_at(2, Events.EPOCH_STARTED)]).run()
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["average"] is None
    with pytest.raises(ValueError, match=r"resume\.pt belongs to a training without averaged weights \(ema_decay\)"):
        make_stage(tmp_path, weights=AVERAGED).run()


@pytest.mark.parametrize("event", [Events.ITERATION_COMPLETED(every=2), Events.EPOCH_COMPLETED, Events.EPOCH_STARTED])
def test_it_resumes_bit_by_bit(tmp_path, make_stage, records, interrupt_at, interruption, event):
    validator = partial(lattice_validator, RegionDataset(records, pixel_labels="mask"), instances_per_side=2, device="cpu")
    options = {"validator": validator, "weights": Weights(ema_decay=0.9, keep_best="val_image_auc")}
    make_stage(tmp_path / "whole", **options).run()
    for epoch in (2, 4):
        with pytest.raises(interruption):
            make_stage(tmp_path / "parts", train_handlers=[interrupt_at(epoch, event)], **options).run()
    make_stage(tmp_path / "parts", **options).run()
    whole, parts = (torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("whole", "parts"))
    assert all(torch.equal(values, parts[name]) for name, values in whole.items())
    assert (tmp_path / "whole/history.csv").read_bytes() == (tmp_path / "parts/history.csv").read_bytes()


def test_two_swaps_are_none(make_classifier):
    network = make_classifier()
    average = AveragedWeights(network, 0.5)
    average.swap()  # before the first step there is nothing to exchange
    for step in range(4):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
        average.update()
    before, mean = weights_of(network), copy.deepcopy(average.mean)
    average.swap()
    assert all(torch.equal(values, mean[name]) for name, values in network.state_dict().items())
    assert all(torch.equal(values, before[name]) for name, values in average.mean.items())
    average.swap()
    assert all(torch.equal(values, before[name]) for name, values in network.state_dict().items())


def test_a_full_batch_is_one_step(tmp_path, make_stage):
    stage = make_stage(tmp_path, weights=AVERAGED, steps=Steps(batch="full"))
    stage.run()
    assert stage.average.num_steps == 4


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range(make_classifier, decay):
    with pytest.raises(ValueError, match=r"ema_decay must be in \[0, 1\)"):
        AveragedWeights(make_classifier(), decay)


def test_two_processes_keep_the_same_mean(tmp_path, make_stage, records):
    """Of their parameters, which agree, and of their running statistics, which are averaged."""

    def train(rank):
        stage = make_stage(tmp_path / "two", train_data_loader=RegionLoader(RegionDataset(records), 4), weights=AVERAGED)
        stage.run()
        torch.save(stage.plain_network.state_dict(), tmp_path / f"{rank}.pt")

    in_processes(train)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(values, second[name]) for name, values in first.items())
