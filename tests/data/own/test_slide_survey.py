"""Every slide of a manifest opened once, with real files."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from shared.data import load_manifest
from shared.data.own import slide_survey
from shared.data.own.slide_survey import survey_slides
from shared.wsi import slide_files

from ...wsi.conftest import smooth_rgb
from ...wsi.dicom_files import write_dicom_level

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


@pytest.fixture
def opened(monkeypatch):
    """Paths of the slides that are opened from here on."""
    paths = []
    facts_of = slide_survey._facts_of
    monkeypatch.setattr(slide_survey, "_facts_of", lambda path, mpp: paths.append(path) or facts_of(path, mpp))
    return paths


def test_a_second_survey_opens_what_has_changed(manifest, opened):
    first = survey(manifest)
    opened.clear()
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


def test_a_slide_is_opened_again_when_any_of_its_files_is_another(tmp_path):
    """A TIFF under the name of a MIRAX slide opens as long as the folder is there; a DICOM slide has a file for each level."""
    write(tmp_path / "a.tif", mpp=0.5)
    (tmp_path / "a.tif").rename(tmp_path / "a.mrxs")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/Slidedat.ini").touch()
    pixels = smooth_rgb(256, 256)
    write_dicom_level(tmp_path / "level0.dcm", pixels, 0.5, "1.2.9.1", "1.2.9.1.1")
    write_dicom_level(tmp_path / "level1.dcm", pixels[::2, ::2], 1.0, "1.2.9.1", "1.2.9.1.2")
    (tmp_path / "slides.csv").write_text("image,x,y,width_um,height_um\na.mrxs,,,,\nlevel1.dcm,0,0,32,16\n")
    _, dicom = survey(tmp_path / "slides.csv").usable
    assert (dicom["width_px"], dicom["height_px"]) == (64, 32)
    (tmp_path / "a/Slidedat.ini").unlink()
    (tmp_path / "level0.dcm").unlink()
    again = survey(tmp_path / "slides.csv")
    assert [(record["width_px"], record["height_px"]) for record in again.usable] == [(32, 16)]
    assert [problem["problem"].partition(" in the folder")[0] for problem in again.problems] == ["Slidedat.ini is missing"]


def test_what_an_earlier_version_has_found_is_found_again(manifest, opened, monkeypatch):
    found = survey(manifest)
    names = {Path(path).name for path in opened}
    assert names == {"sound.tif", "magnified.svs", "nothing.tif", "damaged.tif", "told.tif"}
    opened.clear()
    monkeypatch.setattr(slide_files, "SLIDES_VERSION", slide_files.SLIDES_VERSION + 1)
    assert survey(manifest) == found
    assert {Path(path).name for path in opened} == names
    # As it was before states had versions.
    opened.clear()
    headers = manifest.parent / "headers.json"
    entries = {path: {"file": [1, 2], "facts": entry["facts"]} for path, entry in json.loads(headers.read_text()).items()}
    headers.write_text(json.dumps(entries))
    assert survey(manifest) == found
    assert {Path(path).name for path in opened} == names


def test_a_slide_whose_own_pixel_size_makes_no_sense_is_usable_with_a_stated_one(tmp_path):
    """So says the message of the slide itself."""
    write(tmp_path / "a.tif", mpp=0.001)
    (tmp_path / "slides.csv").write_text("image,mpp\na.tif,\n")
    (problem,) = survey(tmp_path / "slides.csv").problems
    assert "fill the manifest's `mpp` column to state the right value" in problem["problem"]
    for _ in range(2):
        (tmp_path / "slides.csv").write_text("image,mpp\na.tif,0.25\n")
        assert [record["mpp"] for record in survey(tmp_path / "slides.csv").usable] == [0.25]
        (tmp_path / "slides.csv").write_text("image,mpp\na.tif,\n")
        assert survey(tmp_path / "slides.csv").problems == [problem]
