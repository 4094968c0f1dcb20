"""Every slide of a manifest opened once, with real files."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile

from shared.data import load_manifest, slide_survey
from shared.data.slide_survey import survey_slides

APERIO = "Aperio Image Library v11.2.1\n512x512 [0,0 512x512] (256x256) JPEG/RGB Q=70|AppMag = {}"


def write(path, description="", mpp=None):
    resolution = {"resolution": (1e4 / mpp,) * 2, "resolutionunit": "CENTIMETER"} if mpp else {}
    pixels = np.full((512, 512, 3), 200, np.uint8)
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", description=description, metadata=None, **resolution)


@pytest.fixture
def manifest(tmp_path):
    """A sound slide, one with a magnification alone, with nothing, damaged, not there, and one whose mpp the manifest tells."""
    write(tmp_path / "sound.tif", mpp=0.5)
    write(tmp_path / "magnified.svs", APERIO.format(20))
    write(tmp_path / "nothing.tif")
    (tmp_path / "damaged.tif").write_bytes(b"II*\0" + bytes(100))
    write(tmp_path / "told.tif")
    names = ["sound.tif", "magnified.svs", "nothing.tif", "damaged.tif", "missing.tif", "told.tif"]
    table = pd.DataFrame({"image": names, "label": [0, 1, 0, 1, 0, 1], "mpp": [None] * 5 + [0.25], "split": "train"})
    table.to_csv(tmp_path / "slides.csv", index=False)
    return tmp_path / "slides.csv"


def survey(manifest, **options):
    records = load_manifest(manifest, require=(), check_files=False)
    return survey_slides(records, manifest.parent / "headers.json", num_threads=2, **options)


def test_every_slide_that_cannot_be_used_is_named(manifest):
    found = survey(manifest)
    assert [record["image"].rpartition("/")[2] for record in found.usable] == ["sound.tif", "told.tif"]
    problems = {problem["image"].rpartition("/")[2]: (problem["row"], problem["problem"]) for problem in found.problems}
    assert problems.keys() == {"magnified.svs", "nothing.tif", "damaged.tif", "missing.tif"}
    assert problems["magnified.svs"] == (
        3,
        "it does not state its pixel size, only an objective magnification of 20: fill the manifest's column mpp, "
        "or take 0.5 um for it (--app_mag)",
    )
    assert problems["nothing.tif"][1].startswith("it does not state its pixel size: fill")
    assert problems["missing.tif"] == (6, "it cannot be opened: No such file or directory")


def test_magnification_stands_for_the_pixel_size_if_asked_for(manifest):
    found = survey(manifest, mpp_of_magnification=True)
    mpp = {record["image"].rpartition("/")[2]: record["mpp"] for record in found.usable}
    assert mpp == {"sound.tif": None, "magnified.svs": 0.5, "told.tif": 0.25}


def test_a_second_survey_opens_what_has_changed(manifest, monkeypatch):
    first = survey(manifest)
    opened = []
    monkeypatch.setattr(slide_survey, "_facts_of", lambda path, facts=slide_survey._facts_of: opened.append(path) or facts(path))
    assert survey(manifest) == first
    damaged, nothing = str(manifest.parent / "damaged.tif"), manifest.parent / "nothing.tif"
    assert opened == [damaged]
    write(nothing, mpp=0.25)
    assert len(survey(manifest).problems) == 3
    assert opened[:1] + sorted(opened[1:]) == [damaged, damaged, str(nothing)]  # several threads open them, in any order
    (manifest.parent / "headers.json").write_text("{")
    assert len(survey(manifest).problems) == 3
    assert len(json.loads((manifest.parent / "headers.json").read_text())) == 4


def test_a_slide_whose_folder_has_come_since_is_opened_again(tmp_path):
    (tmp_path / "slide.mrxs").write_bytes(bytes(100))
    (tmp_path / "slides.csv").write_text("image\nslide.mrxs\n")
    assert survey(tmp_path / "slides.csv").problems[0]["problem"].startswith("the folder")
    (tmp_path / "slide").mkdir()
    assert survey(tmp_path / "slides.csv").problems[0]["problem"].startswith("Slidedat.ini is missing")


def test_the_command_line(manifest, run_python):
    out = manifest.parent / "checked"
    command = ["scripts/check_slides.py", "--manifest", manifest, "--out", out]
    process = run_python(*command)
    assert process.returncode == 1, process.stderr
    assert "2 of 6 rows are usable; the problems of the others are listed in" in process.stdout
    assert list(pd.read_csv(out / "problems.csv")["row"]) == [3, 4, 5, 6]
    assert not (out / "slides.csv").exists()
    process = run_python(*command, "--skip", "--app_mag")
    assert process.returncode == 0, process.stderr
    records = load_manifest(out / "slides.csv")
    assert [(record["label"], record["mpp"]) for record in records] == [(0, None), (1, 0.5), (1, 0.25)]
