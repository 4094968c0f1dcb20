"""Networks on features behind a real server: a head that comes with a bundle answers, and a training on features is trained "
"on."""

import json
import os
import shutil
from pathlib import Path

import pytest

from scripts.packing.contents import shipped_heads
from tests.packing.test_encoded import merged
from tests.shipping.conftest import write_head

from .conftest import IMAGE_SIZE_PX, ROOT, TINY_CAMEL, Server, running
from .test_training import box_around, draw, say, trained, versions

REAL = os.environ.get("WSI_TEST_DATA")
HEADS = shipped_heads(ROOT / "bundles" / "camel")


@pytest.mark.slow
@pytest.mark.skipif(not HEADS, reason="no head comes with the bundle")
def test_a_head_that_comes_with_the_bundle_answers_and_is_not_trained(monai_label, generated, tmp_path):
    """On a region of real tissue where there is any."""
    studies = tmp_path / "studies"
    studies.mkdir()
    slide = Path(REAL) / "case_mosaics/slides/test_tumour_10.tif" if REAL else generated / "slides" / "slide_04.tif"
    shutil.copy(slide, studies)
    arguments = ["--models", "camel", "--checkpoint", f"camel={HEADS[0]}"]
    with running(Server(studies, tmp_path / "work", arguments)) as server:
        assert (list(server.ask("GET", "/info/").json["models"]), server.ask("GET", "/info/").json["trainers"]) == (["camel"], {})
        region = {"location": [400, 400], "size": [448, 448]}
        reply = server.ask("POST", f"/infer/wsi/camel?output=geojson&image={slide.stem}", region)
        assert reply.status == 200, reply
        found = reply.json["features"]
        # Tiles of adenocarcinoma lie there.
        assert not REAL or found
        refused = server.ask("POST", "/train/camel", {})
        assert refused.status >= 400, refused


@pytest.mark.slow
def test_a_training_on_features_is_trained_on_from_a_viewers_labels(monai_label, generated, truth, asap_annotation, tmp_path):
    checkpoint = tmp_path / "camel"
    write_head(checkpoint, merged("train", "features"), image_size_px=IMAGE_SIZE_PX, feature_stride_px=32, instances_per_side=2)
    shutil.copytree(generated / "slides", tmp_path / "studies")
    arguments = ["--models", "camel", "--overlay", "camel=features", "--checkpoint", f"camel={checkpoint}"]
    short = {
        name: value for name, value in TINY_CAMEL.items() if name not in ("backbone", "segmentation_backbone", "image_size_px")
    }
    for key, value in {**short, "tracking::enabled": False, "amp_dtype": None}.items():
        arguments += ["--train_set", key, json.dumps(value)]
    with running(Server(tmp_path / "studies", tmp_path / "work", arguments)) as server:
        assert server.ask("POST", "/infer/wsi/camel?output=json&image=slide_00", {}).json["version"] == "original"
        for slide in ("slide_00", "slide_02"):
            draw(server, slide, asap_annotation("Tumor", box_around(truth[slide])))
        for slide in ("slide_01", "slide_03"):
            say(server, slide, 0)
        task = trained(server, "camel")
        assert (task["status"], versions(server, "camel")) == ("DONE", ["0001"]), task
        assert server.ask("POST", "/infer/wsi/camel?output=json&image=slide_00", {}).json["version"] == "0001"
    folder = tmp_path / "work" / "models" / "camel"
    # The head alone, and the features beside the versions.
    assert (folder / "0001" / "model.pt").stat().st_size < 100_000
    assert list((folder / "features").iterdir())
