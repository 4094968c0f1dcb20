"""Weights that carry their threshold: for every reader of state dicts the same as before."""

import json
import logging

import pytest
import torch
from torch import nn

from shared.calibration import ImageCalibration, load_threshold
from shared.calibration.carried_threshold import carried_threshold, carry_threshold, with_threshold


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))


@pytest.fixture(params=[dict, lambda state: state], ids=["plain", "with metadata"])
def weights(request, network, tmp_path):
    path = tmp_path / "model.pt"
    torch.save(request.param(network.state_dict()), path)
    return path


def test_the_weights_are_read_as_before(network, weights):
    before = torch.load(weights, weights_only=True)
    assert carried_threshold(weights) is None
    carry_threshold(weights, 0.3)
    after = torch.load(weights, weights_only=True)
    assert list(after) == list(before)
    assert all(torch.equal(after[name], values) for name, values in before.items())
    network.load_state_dict(after, strict=True)
    assert carried_threshold(weights) == 0.3
    # What PyTorch itself keeps there, such as versions of layers.
    versions = getattr(before, "_metadata", {})
    assert {name: after._metadata[name] for name in versions if name} == {name: versions[name] for name in versions if name}


def test_a_second_threshold_replaces_the_first_and_the_same_one_writes_nothing(weights):
    carry_threshold(weights, 0.3)
    written = weights.stat().st_mtime_ns, weights.stat().st_ino
    carry_threshold(weights, 0.3)
    assert (weights.stat().st_mtime_ns, weights.stat().st_ino) == written
    carry_threshold(weights, 0.4)
    assert carried_threshold(weights) == 0.4


def test_a_second_name_of_the_file_keeps_what_it_had(weights, tmp_path):
    (tmp_path / "stage.pt").hardlink_to(weights)
    carry_threshold(weights, 0.3)
    assert carried_threshold(tmp_path / "stage.pt") is None
    assert carried_threshold(weights) == 0.3


def test_a_state_without_a_threshold_is_saved_as_it_is(network):
    state = network.state_dict()
    assert with_threshold(state, None) is state


@pytest.mark.parametrize("content", [None, b"", b"no checkpoint"])
def test_a_file_that_holds_no_weights_carries_none(tmp_path, content):
    if content is not None:
        (tmp_path / "model.pt").write_bytes(content)
    assert carried_threshold(tmp_path / "model.pt") is None


def test_weights_that_were_copied_alone_bring_their_threshold(weights, tmp_path):
    carry_threshold(weights, 0.25)
    assert load_threshold([weights]) == 0.25
    # The logit of 0.25, divided by 2.
    assert load_threshold([weights], temperature=2.0) == pytest.approx(1 / (1 + 3**0.5))
    assert load_threshold([weights], default=0.5) == 0.25


def test_the_file_beside_them_decides_and_the_log_says_where_they_differ(weights, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    carry_threshold(weights, 0.25)
    (tmp_path / "calibration.json").write_text('{"threshold": 0.25}')
    assert load_threshold([weights]) == 0.25
    assert not caplog.messages
    (tmp_path / "calibration.json").write_text('{"threshold": 0.75}')
    assert load_threshold([weights]) == 0.75
    (said,) = caplog.messages
    assert f"calibration.json has a threshold of 0.75, and {weights} carries 0.25: the file decides" in said


def test_a_calibration_leaves_it_in_the_weights_beside_its_file(network, weights, tmp_path):
    def run():
        return ImageCalibration(tmp_path / "calibration.json", dataset=None, network=network, device="cpu", threshold=0.3).run()

    assert run()["threshold"] == 0.3
    assert carried_threshold(weights) == 0.3
    # A copy that is published again has lost it.
    torch.save(network.state_dict(), weights)
    run()
    assert carried_threshold(weights) == 0.3
    assert json.loads((tmp_path / "calibration.json").read_text())["threshold"] == 0.3
