"""The simulated device counts what would make the host wait, and nothing else; what it computes is what the CPU does."""

import numpy as np
import pytest
import torch
from torch import nn

from shared.losses import deep_weak_supervision_loss
from shared.selection import max_max, max_min

from .simulated_device import DEVICE, DEVICES, OnDevice, simulated_device

WAITING = {
    "a value": lambda x: x.sum().item(),
    "a number": lambda x: float(x[0, 0]),
    "a condition": lambda x: bool((x > 0).any()),
    "a list": lambda x: x.tolist(),
    "a mask as index": lambda x: x[x > 0],
    "a mask that is written to": lambda x: x.clone().__setitem__(x > 0, 0),
    "places": lambda x: (x > 0).nonzero(),
    "a mask's values": lambda x: x.masked_select(x > 0),
    "distinct values": lambda x: x.unique(),
    "equality": lambda x: torch.equal(x, x + 1),
    "repetitions": lambda x: torch.arange(3, device=x.device).repeat_interleave(torch.arange(3, device=x.device)),
    "a copy to the host": lambda x: x.cpu(),
    "a copy to the device": lambda x: torch.ones(3).to(x.device),
    "a list to the device": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "a copy into it": lambda x: x.copy_(torch.zeros(3, 4)),
}
RUNNING_AHEAD = {
    "arithmetic": lambda x: (x @ x.T).softmax(0).sum(),
    "a selection": lambda x: torch.where(x > 0, x, 0).clamp(min=0.5),
    "places as index": lambda x: x[torch.arange(3, device=x.device), x.argmax(1)],
    "a mask that is filled in": lambda x: x.masked_fill(x > 0, 0),
    "numbers of the device": lambda x: x.new_full((), 3) + torch.zeros(3, device=x.device).sum(),
    "a copy in the background": lambda x: torch.ones(3).to(x.device, non_blocking=True),
    "another type": lambda x: x.to(torch.float64).float(),
    "its shape": lambda x: x.reshape(len(x), x.shape[1] * 1, -1).numel(),
}


@pytest.mark.parametrize(
    ("act", "is_waiting"),
    [pytest.param(act, kind is WAITING, id=name) for kind in (WAITING, RUNNING_AHEAD) for name, act in kind.items()],
)
def test_what_waits(act, is_waiting, monkeypatch):
    with simulated_device(monkeypatch) as waits:
        values = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).to("cuda", non_blocking=True)
        assert not waits
        act(values)
        assert bool(waits) == is_waiting, waits


def test_where_it_waits_is_named(monkeypatch):
    with simulated_device(monkeypatch) as waits:
        deep_weak_supervision_loss(
            torch.zeros(1, 1, 2, 2).cuda(),
            None,
            torch.ones(1).cuda(),
            superpixels=torch.zeros(1, 1, 2, 2, dtype=torch.long).cuda(),
            etas=[0],
            eta_fuse=0,
        )
        assert {where.partition(":")[0] for where in waits} == {"elsewhere blocking copy", "shared/losses/superpixels.py"}


def test_it_says_where_it_is_and_has_no_array(monkeypatch):
    with simulated_device(monkeypatch):
        values = torch.zeros(2).cuda()
        assert (values.device, values.is_cuda, type(values * 2)) == (DEVICE, True, OnDevice)
        with pytest.raises(TypeError, match="no array"):
            np.asarray(values)
        assert type(values.cpu()) is torch.Tensor


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_a_network_learns_there_what_it_learns_on_the_cpu(optimizer, monkeypatch):
    images, labels = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 0])

    def train(device):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
        network = nn.Sequential(*layers)
        # Before it is moved, and it keeps the network's parameters.
        steps = optimizer(network.parameters(), lr=0.1, fused=True)
        network.to(device)
        for _ in range(3):
            loss = nn.functional.cross_entropy(network(images.to(device)), labels.to(device))
            steps.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            steps.step()
        return {name: values.cpu() for name, values in network.state_dict().items()}

    expected = train("cpu")
    with simulated_device(monkeypatch):
        found = train("cuda")
    assert all(torch.equal(found[name], values) for name, values in expected.items())


def test_what_losses_refuse_on_the_cpu_is_nan_on_a_device(monkeypatch):
    """They look at no value there; labels are looked at before they are moved, see `shared.engines.batches`."""
    nan = float("nan")
    with simulated_device(monkeypatch) as waits:
        logits = torch.tensor([[3.0, nan, 5.0], [1.0, 2.0, 0.0]]).to("cuda", non_blocking=True)
        labels = torch.tensor([0, 1]).to("cuda", non_blocking=True)
        areas = torch.tensor([nan, nan]).to("cuda", non_blocking=True)
        picked = [pick(logits, labels) for pick in (max_max, max_min)]
        loss = deep_weak_supervision_loss(torch.zeros_like(logits)[:, None, None], None, labels, areas, etas=[1], eta_fuse=0)
        assert not waits
        assert [indices.tolist() for indices in picked] == [[1, 1], [1, 1]]
        assert loss.isnan().item()


def test_devices_are_not_mixed(monkeypatch):
    with simulated_device(monkeypatch):
        one, other = (torch.ones(2).to(device) for device in DEVICES)
        assert [one.device, other.device, (other * 2).device, torch.zeros(1, device="cuda:1").device] == [
            *DEVICES,
            *DEVICES[1:] * 2,
        ]
        with pytest.raises(RuntimeError, match="same device, found cuda:0 and cuda:1"):
            one + other
        assert (one + other.to(one.device)).tolist() == [2, 2]


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_a_copy_to_the_host_arrives_with_an_event_of_its_own_device(device, monkeypatch):
    with simulated_device(monkeypatch):
        values = torch.tensor([1.0, 2.0]).to(device)
        copied = values.to("cpu", non_blocking=True)
        for recorded_on in (DEVICES[1 - device.index], device):
            assert copied.tolist() != [1, 2]
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(recorded_on))
            event.synchronize()
        assert copied.tolist() == [1, 2]
        assert values.to("cpu").tolist() == [1, 2]
