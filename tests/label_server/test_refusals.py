"""Wrong requests get a 4xx with its reason, and the server lives on; nobody gets out of the studies folder."""

import json
import re
import subprocess
import sys

import pytest

from tests.label_server.conftest import DEADLINE_S, SCRIPT, environment

WSI = "/infer/wsi/camel?output=asap&image="


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        (WSI + "other", {}, 404, "no slide 'other'"),
        (WSI, {}, 400, "no image"),
        ("/infer/wsi/other?image=slide_00", {}, 404, "the models are camel"),
        (WSI + "broken", {}, 422, r"broken\.svs cannot be read: .*truncated"),
        (WSI + "slide_00", {"location": [5000, 0], "size": [100, 100]}, 422, "contains nothing of the image of 680 x 520 px"),
        (WSI + "slide_00", {"location": [10, 10], "size": [0, 100]}, 422, "an empty region"),
        (WSI + "slide_00", {"location": [10, 10], "size": [-5, 100]}, 422, "an empty region"),
        (WSI + "slide_00", {"location": [10, 10]}, 422, "an empty region"),
        (WSI + "slide_00", {"size": "large"}, 422, "size must be two numbers, got 'large'"),
        (WSI + "slide_00", {"size": [10, None]}, 422, "size must be a number, got None"),
        (WSI + "slide_00", {"level": 2, "size": [10, 10]}, 422, "level must be 0"),
        (WSI + "slide_00", {"min_poly_area": -1}, 422, "min_poly_area must be from 0 to 1e"),
        (WSI + "slide_00", {"params": {"image": "/etc/passwd"}}, 422, "unknown keys image"),
        (WSI + "slide_00", [1], 422, "must be a JSON object, got list"),
        (WSI + "slide_00", "{", 400, "the body is not valid JSON"),
        ("/infer/wsi/camel?output=png&image=slide_00", {}, 422, "output must be one of asap, dsa, json, geojson"),
        ("/train/other", {}, 404, "no model 'other'"),
        ("/train/camel", {"max_epochs": "many"}, 422, "max_epochs must be of type int, got 'many'"),
        ("/train/camel", {"max_epochs": 0}, 422, "max_epochs must be a whole number from 1 to 10000"),
        ("/train/camel", {"learning_rate": 1}, 422, "unknown options of a training: learning_rate"),
        ("/train/camel", {}, 422, "at least two normal and two tumour slides"),
        ("/model/camel/rollback", {}, 409, "there is no earlier version"),
        ("/activelearning/least_certain", {"patch_size": 5}, 422, "patch_size must be two whole numbers"),
        ("/activelearning/other", {}, 400, "no such strategy 'other'"),
    ],
)
def test_a_wrong_request_is_refused_with_its_reason(server, path, body, status, reason):
    reply = server.ask("POST", path, body)
    assert reply.status == status, reply
    assert re.search(reason, reply.reason)
    assert server.ask("GET", "/info/").status == 200


def test_an_upload_that_is_no_image_is_refused(server):
    for name, reason in (("notes.txt", "not in a known format"), ("noise.png", "cannot be mapped")):
        reply = server.send("POST", "/infer/wsi_v2/camel?output=asap", {"file": (name, b"no image", "image/png")}, {"wsi": "{}"})
        assert reply.status == 422
        assert reason in reply.reason


@pytest.mark.parametrize(
    "name", ["../secret", "..", "a/b", "%2Fetc%2Fpasswd", "..%5Csecret", ".hidden", "slide_00%00.tif", "a" * 300]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/infer/wsi/camel?output=asap&image={}"),
        ("GET", "/datastore/image?image={}"),
        ("GET", "/datastore/label?label={}&tag=final"),
        ("GET", "/datastore/label?label=slide_00&tag={}"),
        ("PUT", "/datastore/image?image={}"),
        ("PUT", "/datastore/label?image=slide_00&tag={}"),
        ("PUT", "/datastore/label?image={}"),
        ("DELETE", "/datastore/image?id={}"),
        ("GET", "/datastore/image/info?image={}"),
    ],
)
def test_names_cannot_leave_the_studies_folder(server, method, path, name):
    before = sorted(server.studies.parent.rglob("*"))
    reply = server.ask(method, path.format(name), b"{}")
    assert reply.status == 400
    assert "is no valid name" in reply.reason
    assert sorted(file for file in server.studies.parent.rglob("*") if "logs" not in str(file)) == before


def test_an_upload_cannot_leave_the_studies_folder_by_its_own_name(server, generated):
    content = (generated / "images").iterdir().__next__().read_bytes()
    reply = server.send("PUT", "/datastore/image", {"file": ("../../outside.png", content, "image/png")}, {"params": "{}"})
    assert not (server.studies.parents[1] / "outside.png").exists()
    assert not (server.studies.parent / "outside.png").exists()
    if reply.status == 200:
        assert (server.studies / f"{reply.json['image']}.png").is_file()
        (server.studies / f"{reply.json['image']}.png").unlink()


def test_web_pages_of_others_are_sent_away(server):
    assert server.ask("POST", WSI + "slide_00", {}, {"Origin": "http://evil.example"}).status == 403
    assert (
        server.ask(
            "GET", "/info/", None, {"Origin": f"http://127.0.0.1:{server.port}", "Host": f"127.0.0.1:{server.port}"}
        ).status
        == 200
    )
    assert server.ask("GET", "/info/", None, {"Host": "evil.example"}).status == 400


def test_doors_that_nobody_needs_are_shut(server):
    for method, path in (
        ("GET", "/proxy/dicom/x"),
        ("PUT", "/session/"),
        ("PUT", "/model/camel"),
        ("GET", "/logs/"),
        ("POST", "/batch/infer/camel"),
    ):
        assert server.ask(method, path, b"{}").status in (404, 405), path


def test_a_server_for_strangers_needs_authentication(monai_label, tmp_path):
    command = [
        sys.executable,
        str(SCRIPT),
        "--studies",
        str(tmp_path),
        "--work_dir",
        str(tmp_path / "work"),
        "--host",
        "0.0.0.0",
    ]
    run = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert run.returncode == 1
    assert "--host 0.0.0.0 can be reached from other machines" in run.stderr
    assert "--insecure" in run.stderr


@pytest.mark.parametrize(
    ("work_dir", "options", "said"),
    [
        ("work", ["--case_pattern", "patient"], "the case_pattern 'patient' has no group (...) that names the case"),
        (".", [], "give another --work_dir for maps and trainings"),
    ],
)
def test_what_is_refused_before_the_server_starts(monai_label, tmp_path, work_dir, options, said):
    command = [sys.executable, str(SCRIPT), "--studies", str(tmp_path), "--work_dir", str(tmp_path / work_dir), *options]
    run = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("error: ")
    assert said in run.stderr


def test_labels_of_another_form_are_refused(server, asap_annotation):
    def info(value):
        return server.ask("PUT", "/datastore/image/info?image=slide_00", "info=" + json.dumps(value), FORM)

    FORM = {"Content-Type": "application/x-www-form-urlencoded"}
    assert info({"weak_label": {"tumor": 2}}).status == 422
    assert info({"weak_label": {"tumor": 0, "fraction": 0.5}}).status == 422
    assert info([1]).status == 422
    assert server.ask("PUT", "/datastore/image/info?image=slide_00", "info={", FORM).status == 400
    assert server.ask("PUT", "/datastore/image/info?image=other", "info={}", FORM).status == 404
    files = {"label": ("slide_00.xml", b"<html/>", "application/xml")}
    assert server.send("PUT", "/datastore/label?image=slide_00", files, {"params": "{}"}).status == 400
    good = {"label": ("slide_00.xml", asap_annotation("Tumor", (0, 0, 9, 9)), "application/xml")}
    assert server.send("PUT", "/datastore/label?image=other", good, {"params": "{}"}).status == 404
    assert server.ask("GET", "/weak_labels/").json == {}
