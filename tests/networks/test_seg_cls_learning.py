"""What segmentation and classification by one ResNet-18 learn from which images, alone and in two processes."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import distributed
from torch.multiprocessing import start_processes
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from shared.losses import JointSegClsLoss

from .seg_cls_networks import HEADS, make, random_images


@torch.no_grad()
def test_in_training_batch_normalisation_sees_each_kind_alone():
    images, labelled = random_images(2), random_images(3, seed=1)
    both, alone = make().train(), make().train()
    logits = both(images, labelled)
    image_logits = alone(labelled=labelled)["image_logits"]
    torch.testing.assert_close(logits["pixel_logits"], alone(images))
    torch.testing.assert_close(logits["image_logits"], image_logits)
    for name, value in both.state_dict().items():
        torch.testing.assert_close(value, alone.state_dict()[name])
    assert both.encoder.bn1.num_batches_tracked == 2
    assert both.classifier[2].num_batches_tracked == 1


def has_gradient(module):
    return [parameter.grad is not None and bool(parameter.grad.any()) for parameter in module.parameters()]


def test_labelled_images_teach_the_encoder_through_the_classifier():
    network = make().train()
    network(labelled=random_images(4))["image_logits"][:, 0].square().sum().backward()
    assert all(has_gradient(network.encoder))
    assert all(has_gradient(network.classifier))
    assert has_gradient(network.decoder).count(True) >= 4
    # The classifier's batch normalisation takes the mean away, and with it whatever the map's bias adds everywhere.
    bias = network.decoder[4].bias.grad
    assert bias.abs().max() < 1e-4 * network.decoder[4].weight.grad.abs().max()


@pytest.mark.parametrize("with_labelled", [False, True])
def test_masked_images_do_not_reach_the_paper_s_classifier(with_labelled):
    network = make().train()
    images = random_images(2)
    logits = network(images, random_images(3, seed=1))["pixel_logits"] if with_labelled else network(images)
    F.cross_entropy(logits, torch.zeros(2, 32, 32, dtype=torch.int64)).backward()
    assert not any(has_gradient(network.classifier))
    assert all(has_gradient(network.encoder))
    assert all(has_gradient(network.decoder))


def test_the_released_head_teaches_the_map_where_it_is_highest():
    network, images = make("released"), random_images(2)
    maps = network.maps(images).detach().requires_grad_()
    network.classifier(maps).sum().backward()
    assert torch.equal(maps.grad.flatten(2).argmax(2), maps.flatten(2).argmax(2))
    assert torch.equal(maps.grad.flatten(2).sum(2), torch.ones(2, 4))


def test_a_classifier_that_does_not_learn():
    network = make(train_classifier=False).train()
    assert not any(parameter.requires_grad for parameter in network.classifier.parameters())
    assert all(parameter.requires_grad for part in (network.encoder, network.decoder) for parameter in part.parameters())
    # A checkpoint fits with and without.
    make().load_state_dict(network.state_dict())


def loss_of(network, step, loss):
    """The loss of a step with images, labelled ones, or both."""
    inputs = {name: step[name] for name in ("images", "labelled") if name in step}
    logits = network(**inputs)
    if isinstance(logits, torch.Tensor):
        logits = {"pixel_logits": logits}
    return loss(**logits, **{name: value for name, value in step.items() if name not in inputs})


def joint_step(mode, batch_size=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    masked = {
        "images": random_images(batch_size, seed=seed),
        "masks": torch.randint(0, 4, (batch_size, 32, 32), generator=generator),
        "labels_of_masked": torch.randint(0, 4, (batch_size,), generator=generator),
    }
    labelled = {
        "labelled": random_images(batch_size, 40, 24, seed=seed + 1),
        "labels": torch.randint(0, 4, (batch_size,), generator=generator),
    }
    return {"masked": masked, "labelled": labelled, "both": masked | labelled}[mode]


@pytest.mark.parametrize("head", HEADS)
def test_learns_both_kinds_by_heart(head):
    network, step, loss = make(head).train(), joint_step("both"), JointSegClsLoss()
    step["masks"] = step["labels_of_masked"][:, None, None].expand(4, 32, 32)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        value = loss_of(network, step, loss)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("with_masked", [False, True])
def test_a_single_labelled_image(with_masked):
    images, labelled = random_images(2) if with_masked else None, random_images(1, seed=1)
    with pytest.raises(ValueError, match="at least 2 labelled images per step and process; got 1"):
        make().train()(images, labelled)
    # Running statistics need no second one, and the maximum has no batch normalisation.
    assert make()(images, labelled)["image_logits"].shape == (1, 4)
    assert make("released").train()(images, labelled)["image_logits"].shape == (1, 4)


def _process(rank, init_file, work):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=2)
    try:
        work(rank)
    finally:
        distributed.destroy_process_group()


def in_two_processes(tmp_path, work):
    # Forked, since to import everything twice more takes a quarter of a minute.
    start_processes(partial(_process, init_file=tmp_path / "init", work=work), nprocs=2, start_method="fork")


DISTRIBUTED = [
    ("paper", "both", True),
    ("paper", "labelled", True),
    ("paper", "masked", False),
    ("released", "both", True),
    ("released", "masked", True),
]


@pytest.mark.slow
@pytest.mark.parametrize(("head", "mode", "train_classifier"), DISTRIBUTED)
def test_two_processes_learn_as_one(head, mode, train_classifier, tmp_path):
    """With running statistics the mean of two halves' gradients is the gradient of the whole batch."""

    def work(rank):
        network, other = (make(head, train_classifier=train_classifier) for _ in range(2))
        whole, loss = joint_step(mode), JointSegClsLoss()
        half = {name: value[2 * rank : 2 * rank + 2] for name, value in whole.items()}
        wrapped = DistributedDataParallel(network)
        loss_of(wrapped, half, loss).backward()
        loss_of(other, whole, loss).backward()
        for (name, parameter), expected in zip(network.named_parameters(), other.parameters(), strict=True):
            assert (parameter.grad is None) == (expected.grad is None) == (name.startswith("classifier") and not train_classifier)
            if expected.grad is not None:
                torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-3, atol=1e-5)
        # Steps of a training, batch normalisation and all: no parameter may be missed, and all processes stay equal.
        wrapped.train()
        optimizer = torch.optim.SGD([parameter for parameter in network.parameters() if parameter.requires_grad], lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(wrapped, half, loss).backward()
            optimizer.step()
        for parameter in network.parameters():
            of_first = parameter.detach().clone()
            distributed.broadcast(of_first, src=0)
            assert torch.equal(of_first, parameter)

    in_two_processes(tmp_path, work)


@pytest.mark.parametrize("train_classifier", [True, False])
def test_masked_images_alone_need_a_classifier_that_does_not_learn(train_classifier, tmp_path):
    """The reason of `train_classifier`: gradient exchange waits for every parameter that could learn."""

    def work(rank):
        wrapped = DistributedDataParallel(make(train_classifier=train_classifier).train())
        step = joint_step("masked", batch_size=2, seed=rank)
        loss_of(wrapped, step, JointSegClsLoss()).backward()
        with pytest.raises(RuntimeError, match="did not receive grad") if train_classifier else nullcontext():
            loss_of(wrapped, step, JointSegClsLoss()).backward()

    in_two_processes(tmp_path, work)
