"""A new bundle is one folder: it is served and trained from a viewer's labels, and no other file has to know its name."""

import shutil

import pytest

from tests.bundles.newcomer import add_newcomer
from tests.packing.conftest import write_training

from .conftest import IMAGE_SIZE_PX, Server, running
from .test_training import box_around, draw, say, trained, versions


@pytest.mark.slow
def test_a_new_bundle_answers_and_is_trained(monai_label, generated, truth, asap_annotation, tmp_path):
    settings = {"num_stages": 1, "image_size_px": IMAGE_SIZE_PX, "mpp": 0.5, "tile_size_px": 128}
    bundles = add_newcomer(tmp_path, "cdws_mil", "newcomer", **settings)
    # Another that has no from_viewer.json.
    shutil.copytree(bundles / "newcomer", bundles / "another", symlinks=True)
    (bundles / "another" / "configs" / "from_viewer.json").unlink()
    for name in ("newcomer", "another"):
        write_training(bundles / name, bundles / name / "models")
    shutil.copytree(generated / "slides", tmp_path / "studies")
    arguments = ["--bundles", str(bundles), "--train_set", "tracking::enabled", "false"]
    with running(Server(tmp_path / "studies", tmp_path / "work", arguments)) as server:
        info = server.ask("GET", "/info/").json
        assert (sorted(info["models"]), list(info["trainers"])) == (["another", "newcomer"], ["newcomer"])
        assert server.ask("POST", "/infer/wsi/newcomer?output=json&image=slide_01", {}).json["version"] == "original"
        for slide in ("slide_00", "slide_02"):
            draw(server, slide, asap_annotation("Tumor", box_around(truth[slide])))
        for slide in ("slide_01", "slide_03"):
            say(server, slide, 0)
        task = trained(server, "newcomer", {"max_epochs": 1})
        assert (task["status"], versions(server, "newcomer")) == ("DONE", ["0001"]), task
        rows = (tmp_path / "work" / "models" / "newcomer" / "0001" / "labels.csv").read_text().splitlines()
        # Regions, each with its area.
        assert "area" in rows[0]
        assert len(rows) > 20
        assert server.ask("POST", "/infer/wsi/newcomer?output=json&image=slide_01", {}).json["version"] == "0001"
        refused = server.ask("POST", "/train/another", {})
        assert refused.status >= 400, refused
