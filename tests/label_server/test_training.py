"""Weak labels come back, a working copy is trained from them, answers, and can be taken back; killed trainings change nothing."""

import contextlib
import json
import time
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
DEADLINE_S = 900
# Every stage of every bundle as short as it can be.
SHORT = {"cmil::num_epochs": 1, "max_min::num_epochs": 1, "retrain::num_epochs": 1, "num_epochs": 1}


def say(server, image, tumour, fraction=None):
    label = {"tumor": tumour} | ({} if fraction is None else {"fraction": fraction})
    reply = server.ask(
        "PUT", f"/datastore/image/info?image={image}", urlencode({"info": json.dumps({"weak_label": label})}), FORM
    )
    assert reply.status == 200, reply


def draw(server, image, content):
    files = {"label": (f"{image}8877.xml", content, "application/xml")}
    reply = server.send("PUT", f"/datastore/label?image={image}", files, {"params": "{}"})
    assert reply.status == 200, reply


def box_around(mask):
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def trained(server, name, options=None):
    """The task of a training when it has ended."""
    reply = server.ask("POST", f"/train/{name}", options or {})
    assert reply.status == 200, reply
    deadline = time.monotonic() + DEADLINE_S
    while True:
        task = server.ask("GET", "/train/").json
        if task["status"] not in ("RUNNING", "SUBMITTED"):
            return task
        assert time.monotonic() < deadline, task
        time.sleep(0.3)


def versions(server, name):
    return [row["version"] for row in server.ask("GET", f"/model/{name}/versions").json if row["is_current"]]


def children_of(pid):
    """Process numbers, as Linux lists them for each thread."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        # A thread may end in between.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, path.read_text().split())
    return found


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="module")
def labelled(server, truth, asap_annotation):
    """Two slides with tumour, one drawn on, one drawn on and said; two without; one of which nothing is known."""
    server.stop()
    server.arguments += [text for key, value in SHORT.items() for text in ("--train_set", key, str(value))]
    server.start()
    draw(server, "slide_00", asap_annotation("Tumor", box_around(truth["slide_00"])))
    draw(server, "slide_02", asap_annotation("Tumor", box_around(truth["slide_02"])))
    say(server, "slide_02", 1, 0.3)
    draw(server, "slide_01", asap_annotation("Normal", (0, 0, 50, 50)))
    say(server, "slide_03", 0)
    return server


def test_labels_from_both_ways_are_listed_with_their_source(labelled):
    assert labelled.ask("GET", "/weak_labels/").json == {
        "slide_00": {"tumor": 1, "fraction": None, "source": "annotations", "is_drawn": True},
        "slide_01": {"tumor": 0, "fraction": 0.0, "source": "annotations", "is_drawn": True},
        "slide_02": {"tumor": 1, "fraction": 0.3, "source": "info", "is_drawn": True},
        "slide_03": {"tumor": 0, "fraction": 0.0, "source": "info", "is_drawn": False},
    }
    status = labelled.ask("GET", "/info/").json["datastore"]
    assert status["completed"] == 3


def test_strategies_propose_what_is_unknown_and_where_the_model_is_least_certain(labelled):
    body = {"image": "", "patch_size": [128, 128], "image_size": [0, 0]}
    assert labelled.ask("POST", "/activelearning/unlabelled", body).json["id"] == "slide_04"
    sample = labelled.ask("POST", "/activelearning/least_certain", body | {"map_slides": 9}).json
    assert sample["id"] == "slide_04"
    x, y, width, height = sample["bbox"]
    assert (width, height) == (128, 128)
    assert 0 <= x <= 1100 - 128
    assert 0 <= y <= 1300 - 128
    assert sample["uncertainty"] > 0
    other = labelled.ask("POST", "/activelearning/least_certain", body | {"image": "slide_00"}).json
    assert other["id"] == "slide_00"


def test_a_training_gives_a_version_that_answers_and_can_be_taken_back(labelled, checkpoints):
    before = labelled.ask("POST", "/infer/wsi/camel?output=json&image=slide_00", {}).json
    weights = (checkpoints["camel"] / "model.pt").read_bytes()
    task = trained(labelled, "camel", {"max_epochs": 1, "train_batch_size": 1, "val_batch_size": 1})
    assert (task["status"], task["version"]) == ("DONE", "0001"), task
    assert versions(labelled, "camel") == ["0001"]
    after = labelled.ask("POST", "/infer/wsi/camel?output=json&image=slide_00", {}).json
    assert (before["version"], after["version"]) == ("original", "0001")
    assert after["weights"] != before["weights"]
    assert not after["cached"]
    assert (checkpoints["camel"] / "model.pt").read_bytes() == weights
    folder = labelled.work_dir / "models" / "camel" / "0001"
    record = json.loads((folder / "version.json").read_text())
    assert record["trained_from"] == "original"
    assert record["labels"]["slide_02"] == [1, 0.3]
    assert min(record["rows"].values()) > 0
    overlay = json.loads((folder / "overlay.json").read_text())
    assert overlay["initial_weights"] == str(checkpoints["camel"] / "model.pt")
    assert overlay["segmentation_backbone"] == "resnet10"

    assert labelled.ask("POST", "/model/camel/rollback").json["version"] == "original"
    back = labelled.ask("POST", "/infer/wsi/camel?output=json&image=slide_00", {}).json
    assert (back["version"], back["cached"], back["annotations"]) == ("original", True, before["annotations"])


@pytest.mark.parametrize("name", ["alpha_beta_mil", "cdws_mil"])
def test_slides_with_labels_and_regions_with_areas_train_the_other_bundles(labelled, name):
    task = trained(labelled, name)
    assert task["status"] == "DONE", task
    assert versions(labelled, name) == ["0001"]
    rows = (labelled.work_dir / "models" / name / "0001" / "labels.csv").read_text().splitlines()
    assert len(rows) == 5 if name == "alpha_beta_mil" else len(rows) > 20
    reply = labelled.ask("POST", f"/infer/wsi/{name}?output=json&image=slide_01", {})
    assert reply.json["version"] == "0001"


def test_a_training_that_is_killed_with_the_server_leaves_the_old_model(labelled):
    now = versions(labelled, "cdws_mil")
    assert labelled.ask("POST", "/train/cdws_mil").status == 200
    assert labelled.ask("POST", "/train/cdws_mil").status == 429
    log = next((labelled.work_dir / "models" / "cdws_mil").glob("training-*")) / "log.txt"
    deadline = time.monotonic() + DEADLINE_S
    while not (children := children_of(labelled.process.pid)) or not log.is_file() or not log.stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    labelled.process.kill()
    labelled.process.wait()
    # The kernel ends the training with the server.
    while any(map(is_running, children)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    labelled.start()
    assert versions(labelled, "cdws_mil") == now
    assert not list((labelled.work_dir / "models" / "cdws_mil").glob("training-*"))
    assert labelled.ask("POST", "/infer/wsi/cdws_mil?output=json&image=slide_01", {}).json["version"] == now[0]
    assert set(labelled.ask("GET", "/weak_labels/").json) == {"slide_00", "slide_01", "slide_02", "slide_03"}


def test_enough_new_labels_start_a_training_which_can_be_stopped(labelled):
    labelled.stop()
    labelled.arguments += ["--retrain", "cdws_mil", "--retrain_every", "2"]
    labelled.start()
    assert labelled.ask("GET", "/train/").status == 404
    say(labelled, "slide_03", 0)
    say(labelled, "slide_02", 1, 0.4)
    assert labelled.ask("GET", "/train/").status == 404
    say(labelled, "slide_00", 1, 0.2)
    deadline = time.monotonic() + DEADLINE_S
    while (reply := labelled.ask("GET", "/train/")).status != 200 or reply.json["status"] != "RUNNING":
        assert time.monotonic() < deadline, reply
        time.sleep(0.1)
    assert reply.json["request"]["model"] == "cdws_mil"
    assert labelled.ask("DELETE", "/train/").json["status"] == "STOPPED"
    while labelled.ask("GET", "/train/").json["end_ts"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert versions(labelled, "cdws_mil") == ["0001"]
