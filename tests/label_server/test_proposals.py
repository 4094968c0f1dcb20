"""What is proposed to be labelled: slides that cannot be used hold up no other, and are not taken for nothing left to do."""

import json
import re
import shutil
import time
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
import torch

from scripts.label_server.refusal import Refusal
from scripts.label_server.tasks.passed_over import MOST_TRIED, KnownFault, LastInTurn, PassedOver
from shared.networks import InstanceClassifier

from .conftest import DEADLINE_S, SCRIPT, TINY_SLIDES, Server, running
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
    # Having failed, it comes last: the second request did not get to it.
    assert len(re.findall("a_broken is not proposed", log)) == 2
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


def test_after_a_number_of_slides_that_cannot_be_used_the_others_wait_for_the_next_request(tmp_path):
    names = [f"bad{index:03d}" for index in range(2 * MOST_TRIED + 1)]
    for name in (*names, "good"):
        (tmp_path / name).write_text("")
    last, tried = LastInTurn(lambda name: [tmp_path / name]), []

    def request():
        passed_over = PassedOver(last)
        tried.clear()
        found = passed_over.usable(last.in_turn([*names, "good"]), lambda name: tried.append(name) or use(name), 1)
        return found or passed_over.check()

    with pytest.raises(Refusal, match=rf"as {MOST_TRIED} cannot be used: .* {MOST_TRIED + 2} others wait for the next request"):
        request()
    assert tried == names[:MOST_TRIED]
    with pytest.raises(Refusal, match=rf"as {MOST_TRIED} cannot be used: .* {MOST_TRIED + 2} others wait for the next request"):
        request()
    assert tried == names[MOST_TRIED : 2 * MOST_TRIED]
    assert request() == {"good": "GOOD"}
    assert tried == [names[-1], "good"]
    assert request() == {"good": "GOOD"}
    assert tried == ["good"]
    # One that was repaired has its turn again.
    (tmp_path / names[1]).write_text("repaired")
    request()
    assert tried == [names[1], "good"]


def test_slides_that_are_known_to_be_damaged_do_not_use_up_the_number_of_tries():
    def use(name):
        raise KnownFault(f"{name} is damaged")

    passed_over, names = PassedOver(), [f"bad{index}" for index in range(5000)]
    assert passed_over.usable(names, use, 1) == {}
    with pytest.raises(Refusal, match="as 5000 cannot be used"):
        passed_over.check()


@pytest.fixture
def least_certain(monai_label):
    """Asks for a proposal of 5,000 slides that no one has mapped; it says which were tried."""
    from scripts.label_server.tasks.bundle_tasks import LeastCertain

    names = [f"slide{index:04d}" for index in range(5000)]

    def strategy(map_slide):
        tried = []
        maps = SimpleNamespace(
            row=lambda *slide: None,
            fault_of_file=lambda *slide: None,
            folder_of=lambda *model: None,
            map_slide=lambda name, model, image, path: tried.append(image) or map_slide(image),
        )
        models = {"a": SimpleNamespace(loaded=lambda: None)}
        proposed = LeastCertain(models, maps, lambda image: None, lambda image: SCRIPT)
        return lambda **wanted: proposed(wanted, SimpleNamespace(list_images=lambda: names)), tried

    return strategy


@pytest.mark.parametrize(
    ("error", "status", "num_tried"),
    [
        (Refusal("CUDA out of memory", 500), 500, 1),
        (OSError(28, "no space is left"), 507, 1),
        (Refusal("another process is mapping it", 409), 409, 3),
        (Refusal("it is damaged"), 422, MOST_TRIED),
    ],
)
def test_what_is_no_fault_of_a_file_is_not_tried_with_every_slide(least_certain, error, status, num_tried):
    def fail(image):
        raise error

    request, tried = least_certain(fail)
    for start in (0, 1):
        with pytest.raises(Refusal, match=str(error.args[-1] if isinstance(error, OSError) else error)) as refusal:
            request(map_slides=3)
        assert refusal.value.status == status
        assert len(tried) == num_tried * (start + 1)
    # One at which the server fails does not keep the others from their turn.
    assert (tried[0] == tried[num_tried]) == (status == 409)
