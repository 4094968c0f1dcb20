"""What lies in the studies folder: every slide is found, by a name of its own, and what is not found is said."""

import json
import logging
import shutil
import time

import pytest
import torch

from scripts.label_server.maps.known_outlines import KnownOutlines
from scripts.label_server.studies.slide_names import find_slides
from shared.data import load_manifest
from shared.networks import InstanceClassifier, SideOutputVGG

from .conftest import DEADLINE_S, TINY_CDWS, TINY_SLIDES, Server, running
from .test_training import say


@pytest.fixture
def put(tmp_path):
    def write(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")

    return write


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        (["a.svs", "case1/b.svs", "case2/deep/c.tif"], {"a": "a.svs", "b": "case1/b.svs", "c": "case2/deep/c.tif"}),
        (["a.svs.svs", "b.tif.svs.tif", "c.ome.tif"], {"a.svs": "a.svs.svs", "b.tif.svs": "b.tif.svs.tif", "c": "c.ome.tif"}),
        (["a.Tif", "B.SVS"], {"a": "a.Tif", "B": "B.SVS"}),
        # One in the folder itself has its name; of several in subfolders none has it alone.
        (["a.svs", "x/a.svs"], {"a": "a.svs", "x~a": "x/a.svs"}),
        (["x/a.svs", "y/a.svs", "y/b.svs"], {"x~a": "x/a.svs", "y~a": "y/a.svs", "b": "y/b.svs"}),
        (["x/a.svs", "x/a.tif"], {"x~a": "x/a.svs", "x~a.tif": "x/a.tif"}),
        (["a.svs", "a.tif"], {"a.svs": "a.svs", "a.tif": "a.tif"}),
        (["labels/final/a.svs", ".hidden/b.svs", "notes.txt", "c.png"], {"c": "c.png"}),
    ],
)
def test_every_slide_has_a_name_of_its_own(put, tmp_path, files, ids):
    put(*files)
    assert dict(find_slides(tmp_path, {}, [tmp_path / "labels"]).paths) == ids


def test_a_name_that_was_given_stays(put, tmp_path):
    put("x/a.svs", "y/a.svs")
    found = find_slides(tmp_path, {"y/a.svs": "a"})
    assert dict(found.paths) == {"a": "y/a.svs", "x~a": "x/a.svs"}
    assert found.called("a") == ["x~a"]


def test_what_was_found_and_what_was_not_is_said(put, tmp_path, caplog):
    put("a.svs", "x/b.svs", "x/c.svs", "y/c.svs", "scan.vsi", "notes.txt", "more.txt")
    (tmp_path / "gone.svs").symlink_to(tmp_path / "nowhere.svs")
    with caplog.at_level(logging.INFO):
        find_slides(tmp_path, {})
    for said in ("4 slides in 3 folders", "2 .txt", "scan.vsi", "gone.svs", "2 slides share their name with another slide"):
        assert said in caplog.text


def test_outlines_are_read_once(tmp_path):
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]}}
    files = [tmp_path / f"{index}.geojson" for index in range(3)]
    for file in files:
        file.write_text(json.dumps({"type": "FeatureCollection", "annotation_frame": "level0", "features": [feature]}))
    size = files[0].stat().st_size
    outlines = KnownOutlines(most_bytes=2 * size)
    for _ in range(3):
        assert outlines.features(files[0], files[0]) == [feature]
    assert outlines.num_read == 1
    for file in files:
        outlines.features(file, file)
    # The oldest had to go.
    outlines.features(files[0], files[0])
    assert outlines.num_read == 4


@pytest.mark.slow
def test_slides_in_subfolders_are_served_by_a_model_without_a_pixel_size(monai_label, generated, tmp_path):
    """It was trained on images as they are stored: ``--train_set mpp`` says at which pixel size it sees slides."""
    studies, weights = tmp_path / "studies", tmp_path / "weights"
    for folder, name in (("case1", "slide_00"), ("case2", "slide_01")):
        (studies / folder).mkdir(parents=True)
        shutil.copy(generated / "slides" / f"{name}.tif", studies / folder)
    weights.mkdir()
    torch.manual_seed(0)
    torch.save(SideOutputVGG(num_stages=2, norm="batch").state_dict(), weights / "model.pt")
    (weights / "config.json").write_text(json.dumps({**TINY_CDWS, "mpp": None}))
    arguments = ["--models", "cdws_mil", "--checkpoint", f"cdws_mil={weights}", "--train_set", "mpp", "0.5"]
    with running(Server(studies, tmp_path / "work", arguments)) as server:
        assert set(server.ask("GET", "/datastore/?output=all").json["objects"]) == {"slide_00", "slide_01"}
        said = server.log[-1].read_text()
        assert "2 slides in 2 folders" in said
        assert "is trained on them, at 0.5 um per pixel" in said
        assert server.ask("POST", "/infer/wsi/cdws_mil?output=json&image=slide_01", {}).status == 200
        say(server, "slide_00", 1, 0.3)
        (studies / "case3").mkdir()
        for name in ("case3/slide_00.tif", "case3/new.tif"):
            shutil.copy(generated / "slides" / "slide_02.tif", studies / name)
        deadline = time.monotonic() + DEADLINE_S
        while "new" not in server.ask("GET", "/datastore/?output=all").json["objects"]:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        # The name was given before, and what was said of the slide stays.
        assert server.ask("GET", "/datastore/image/info?image=slide_00").json["path"].endswith("case1/slide_00.tif")
        assert server.ask("GET", "/datastore/image/info?image=case3~slide_00").json["path"].endswith("case3/slide_00.tif")
        assert server.ask("GET", "/weak_labels/").json["slide_00"]["fraction"] == 0.3


@pytest.mark.slow
def test_slides_of_one_patient_stay_in_one_split_of_a_training(monai_label, generated, tmp_path):
    studies, weights = tmp_path / "studies", tmp_path / "weights"
    labels = {f"patient{case}_{slide}": slide for case in range(3) for slide in (0, 1)}
    for name in labels:
        (studies / name.partition("_")[0]).mkdir(parents=True, exist_ok=True)
        shutil.copy(generated / "slides" / "slide_00.tif", studies / name.partition("_")[0] / f"{name}.tif")
    weights.mkdir()
    torch.save(InstanceClassifier("resnet10", norm="batch").state_dict(), weights / "model.pt")
    (weights / "config.json").write_text(json.dumps(TINY_SLIDES))
    (weights / "calibration.json").write_text('{"threshold": 0.5}')
    arguments = ["--models", "alpha_beta_mil", "--checkpoint", f"alpha_beta_mil={weights}", "--case_pattern", "^([^/]+)/"]
    with running(Server(studies, tmp_path / "work", arguments)) as server:
        for name, label in labels.items():
            say(server, name, label)
        assert server.ask("POST", "/train/alpha_beta_mil", {}).status == 200
        (manifest,) = (tmp_path / "work").glob("models/alpha_beta_mil/*/labels.csv")
        rows = load_manifest(manifest)
        assert server.ask("DELETE", "/train/").status == 200
        assert {row["case_id"] for row in rows} == {"patient0", "patient1", "patient2"}
        assert sorted({(row["split"], row["case_id"]) for row in rows})[-1][0] == "val"
        assert len({(row["split"], row["case_id"]) for row in rows}) == 3
        # One whose patient is not known could be in both splits.
        shutil.copy(generated / "slides" / "slide_00.tif", studies / "top.tif")
        while "top" not in server.ask("GET", "/datastore/?output=all").json["objects"]:
            time.sleep(0.2)
        say(server, "top", 1)
        while (refused := server.ask("POST", "/train/alpha_beta_mil", {})).status == 429:
            time.sleep(0.2)
        assert (refused.status, "top.tif does not match the case_pattern" in refused.reason) == (422, True), refused
