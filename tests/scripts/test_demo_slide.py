"""The part of the demo with real tissue, as processes in a checkout whose data and maps are empty."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.synthetic import DemoPlan, SlidePlan, write_demo

ROOT = Path(__file__).resolve().parents[2]
REAL = os.environ.get("WSI_TEST_DATA")
DOWNLOADED = Path("data/demo_slide/CMU-1-Small-Region.svs")
# Nothing answers there.
OFFLINE = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}

pytestmark = pytest.mark.slow
on_real_tissue = pytest.mark.skipif(REAL is None, reason="WSI_TEST_DATA names no folder of real tissue")


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("scripts", "shared", "bundles"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def run(checkout, script="demo_slide.sh", cwd=None, **environment):
    known = {name: value for name, value in os.environ.items() if name != "DEMO_SLIDE"}
    settings = {"DEMO_PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", **OFFLINE, **environment}
    return subprocess.run(
        ["bash", str(checkout / "scripts" / script)],
        cwd=cwd or checkout,
        env=known | settings,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def mapped(checkout):
    with (checkout / "maps/demo_slide/slides.csv").open(newline="") as file:
        return [(row["slide"], row["status"]) for row in csv.DictReader(file)]


def test_without_a_network_nothing_fails(checkout):
    done = run(checkout)
    assert done.returncode == 0, done.stderr
    assert "cannot get https://openslide.cs.cmu.edu/" in done.stderr
    assert done.stdout == (
        "No slide of real tissue is mapped. To map one of yours: DEMO_SLIDE=slide.svs bash scripts/demo_slide.sh\n"
    )
    assert not (checkout / "maps").exists()


def test_a_download_that_is_another_file_is_not_mapped(checkout):
    (checkout / DOWNLOADED).parent.mkdir(parents=True)
    (checkout / DOWNLOADED).write_bytes(b"another file")
    done = run(checkout)
    assert done.returncode == 0, done.stderr
    assert "CMU-1-Small-Region.svs: expected the SHA-256 ed92d5a9" in done.stderr
    assert not (checkout / "maps").exists()


@on_real_tissue
def test_the_slide_that_is_downloaded_is_mapped_and_said_to_be_of_another_organ(checkout):
    (checkout / DOWNLOADED).parent.mkdir(parents=True)
    shutil.copyfile(Path(REAL) / "slides/cmu-1-small-region.svs", checkout / DOWNLOADED)
    done = run(checkout)
    assert done.returncode == 0, done.stderr
    assert mapped(checkout) == [("CMU-1-Small-Region", "ok")]
    assert "This slide is not of colorectal tissue" in done.stdout
    assert "means nothing" in done.stdout


def test_a_slide_of_ones_own_is_mapped_from_any_folder(checkout, tmp_path):
    slides = write_demo(tmp_path / "own", DemoPlan(images={}, slides=(SlidePlan("test", 0.3, (420, 560)),))) / "slides"
    (slide,) = slides.iterdir()
    done = run(checkout, cwd=slides, DEMO_SLIDE=slide.name)
    assert done.returncode == 0, done.stderr
    assert mapped(checkout) == [(slide.stem, "ok")]
    assert f"The map of {slide} is in {checkout}/maps/demo_slide." in done.stdout
    assert "on any other organ it means nothing" in done.stdout
    assert "Research only; not a medical device, not for diagnosis." in done.stdout


@pytest.mark.parametrize("script", ["demo_slide.sh", "demo.sh"])
def test_a_slide_that_is_not_there_is_said_at_once(checkout, script):
    done = run(checkout, script, DEMO_SLIDE="no/slide.svs")
    assert done.returncode == 1
    assert done.stderr == "error: DEMO_SLIDE=no/slide.svs does not exist: give the path of a slide\n"
    assert not done.stdout
