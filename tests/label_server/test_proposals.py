"""What is proposed to be labelled: slides that cannot be used hold up no other, and are not taken for nothing left to do."""

import json
import re
import shutil
import time
from urllib.parse import urlencode

import pytest
import torch

from scripts.label_server.refusal import Refusal
from scripts.label_server.tasks.passed_over import PassedOver
from shared.networks import InstanceClassifier

from .conftest import DEADLINE_S, TINY_SLIDES, Server, running
from .test_training import FORM

BODY = {"patch_size": [128, 128]}


@pytest.fixture
def server(monai_label, generated, tmp_path):
    """Over two slides, before and behind which stand two that cannot be read, and with an untrained model."""
    studies, weights = tmp_path / "studies", tmp_path / "weights"
    studies.mkdir()
    weights.mkdir()
    for name in ("slide_00", "slide_01"):
        shutil.copy(generated / "slides" / f"{name}.tif", studies)
    content = (studies / "slide_00.tif").read_bytes()
    for name in ("a_broken", "z_broken"):
        (studies / f"{name}.svs").write_bytes(content[:3000])
    torch.manual_seed(0)
    torch.save(InstanceClassifier("resnet10", norm="batch").state_dict(), weights / "model.pt")
    (weights / "config.json").write_text(json.dumps(TINY_SLIDES))
    (weights / "calibration.json").write_text('{"threshold": 0.5}')
    arguments = ["--models", "alpha_beta_mil", "--checkpoint", f"alpha_beta_mil={weights}"]
    with running(Server(studies, tmp_path / "work", arguments)) as started:
        yield started


def mapped(server):
    return sorted(path.name.partition(".")[0] for path in server.work_dir.glob("maps/alpha_beta_mil/*/*.ome.tif"))


def wait_until(found):
    deadline = time.monotonic() + DEADLINE_S
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_slides_that_cannot_be_read_hold_up_no_other(server):
    for expected in (["slide_00"], ["slide_00", "slide_01"], ["slide_00", "slide_01"]):
        sample = server.ask("POST", "/activelearning/least_certain", BODY)
        assert (sample.status, sample.json.get("id") in expected, mapped(server)) == (200, True, expected), sample
    # Its file is the reason, so it was tried once.
    log = server.log[-1].read_text()
    assert len(re.findall(r"ERROR .*a_broken.* failed", log)) == 1, log
    assert len(re.findall("a_broken is not proposed", log)) == 3
    shutil.copy(server.studies / "slide_01.tif", server.studies / "a_broken.svs")
    assert server.ask("POST", "/activelearning/least_certain", BODY).status == 200
    assert mapped(server) == ["a_broken", "slide_00", "slide_01"]
    # Whoever asks for one gets the reason.
    refused = server.ask("POST", "/activelearning/least_certain", BODY | {"image": "z_broken"})
    assert (refused.status, "z_broken cannot be mapped" in refused.reason) == (422, True), refused


def test_that_no_slide_can_be_used_is_said(server):
    for name in ("slide_00", "slide_01"):
        (server.studies / f"{name}.tif").unlink()
    wait_until(lambda: set(server.ask("GET", "/datastore/?output=all").json["objects"]) == {"a_broken", "z_broken"})
    for strategy in ("least_certain", "unlabelled"):
        for _ in range(2):
            reply = server.ask("POST", f"/activelearning/{strategy}", {})
            assert reply.status == 422, reply
            assert re.search(
                "no slide can be proposed, as 2 cannot be used: repair them, .* The first is a_broken: ", reply.reason
            )
            assert str(server.studies) not in reply.reason
    # Nothing to do is another matter.
    for name in ("a_broken", "z_broken"):
        (server.studies / f"{name}.svs").unlink()
    wait_until(lambda: not server.ask("GET", "/datastore/?output=all").json["objects"])
    assert server.ask("POST", "/activelearning/unlabelled", {}).json == {}


def test_what_is_stored_on_a_slide_changes_no_proposal(server):
    stored = {"id": "LIMS-4711", "bbox": "n/a", "uncertainty": "high", "model": "A", "batch": 5}
    for name in ("slide_00", "slide_01"):
        info = urlencode({"info": json.dumps(stored)})
        assert server.ask("PUT", f"/datastore/image/info?image={name}", info, FORM).status == 200
    sample = server.ask("POST", "/activelearning/least_certain", BODY).json
    assert (sample["id"], sample["model"], sample["bbox"][2:], sample["batch"]) == ("slide_00", "alpha_beta_mil", [128, 128], 5)
    assert 0 <= sample["uncertainty"] <= 1
    assert server.ask("POST", "/activelearning/unlabelled", {}).json["id"] == "slide_00"


def use(image):
    if image.startswith("bad"):
        raise ValueError(f"{image} is damaged")
    return image.upper()


def test_only_slides_that_can_be_used_count():
    passed_over = PassedOver()
    assert passed_over.usable(["bad1", "a", "bad2", "b", "c", "bad3"], use, 2) == {"a": "A", "b": "B"}
    with pytest.raises(Refusal, match=r"as 2 cannot be used: .*The first is bad1: bad1 is damaged"):
        passed_over.check()
    nothing = PassedOver()
    assert nothing.usable([], use, 2) == {}
    nothing.check()
