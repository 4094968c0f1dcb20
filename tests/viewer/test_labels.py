"""What is said of slides and drawn on them, and the manifest that comes of it."""

import json
import unicodedata

import numpy as np
import pytest

from scripts.label_server.refusal import Refusal
from scripts.viewer.cohort import open_cohort
from scripts.viewer.labelling.labels import Labels
from shared.data import TissueCache, load_manifest
from tests.inference.conftest import write_pyramid

from .conftest import slide_pixels


@pytest.fixture
def manifest(tmp_path):
    (tmp_path / "slides").mkdir()
    write_pyramid(tmp_path / "slides/a.tif", slide_pixels(0, (300, 300, 240)))
    rows = ["a.tif,,,c1,train", "b.tif,1,0.25,c2,train", "c.tif,0,,c3,test"]
    (tmp_path / "slides.csv").write_text("image,label,area,case_id,split\n" + "".join(f"slides/{row}\n" for row in rows))
    for name in ("b", "c"):
        (tmp_path / "slides" / f"{name}.tif").write_bytes(b"never opened")
    return tmp_path / "slides.csv"


@pytest.fixture
def opened(manifest):
    """The labels of the manifest, as often as they are opened."""

    def open_labels():
        cohort = open_cohort([], manifest)
        return Labels(manifest.with_name("work"), cohort.slides, TissueCache(manifest.with_name("tissue")), manifest)

    return open_labels


def written(labels):
    return {
        row["case_id"]: (row["label"], row["area"], row["split"])
        for row in load_manifest(labels.path, check_files=False, require=())
    }


@pytest.mark.parametrize(("before", "now"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_what_was_said_of_a_slide_counts_however_its_accents_are_written(manifest, before, now):
    """Of slides that were copied from a Mac; what is found under either name is one slide's."""
    work, labelled = manifest.with_name("work"), []
    for form in (before, now):
        name = unicodedata.normalize(form, "Präparat")
        folder = manifest.with_name(form)
        folder.mkdir()
        write_pyramid(folder / f"{name}.tif", slide_pixels(0, (300, 300, 240)))
        table = folder / "slides.csv"
        table.write_text(f"image\n{name}.tif\n", encoding="utf-8")
        cohort = open_cohort([], table)
        labels = Labels(work, cohort.slides, TissueCache(manifest.with_name("tissue")), table)
        (own,) = cohort.slides
        if form == before:
            labels.draw(own, "Tumor", [(400, 400), (800, 400)], 20)
            labels.set_label(own, 1, 0.4)
            for file in (work / "strokes").iterdir():
                file.rename(file.with_name(f"{name}.geojson"))
            said = (work / "said.json").read_text()
            (work / "said.json").write_text(json.dumps({name: json.loads(said)[own]}))
        labelled.append((labels.label(own).fraction, len(labels.strokes(own))))
    assert labelled == [(0.4, 1)] * 2


def test_the_manifests_own_labels_are_known_from_the_start(opened):
    assert written(opened()) == {"c2": (1, 0.25, "train"), "c3": (0, 0.0, "test")}


def test_what_is_said_counts_before_what_is_drawn_and_what_the_manifest_says(opened):
    labels = opened()
    # 400 x 20 px of 1000 x 700 px of tissue, with a half circle at each end.
    labels.draw("a", "Tumor", [(400, 400), (800, 400)], 20)
    drawn = (400 * 20 + np.pi * 10**2) / (1000 * 700)
    assert (labels.label("a").label, labels.label("a").source) == (1, "annotations")
    assert labels.label("a").fraction == pytest.approx(drawn, rel=0.05)
    labels.set_label("a", 1, 0.4)
    labels.set_label("b", 0)
    assert written(labels) == {"c1": (1, 0.4, "train"), "c2": (0, 0.0, "train"), "c3": (0, 0.0, "test")}
    labels.set_label("a", 0)
    assert labels.label("a").drawn.label is None
    # All of it is found again.
    again = opened()
    assert (again.given_label("a").label, len(again.strokes("a")), written(again)) == (0, 1, written(labels))
    again.set_label("a", None)
    again.undo_stroke("a")
    again.set_label("b", None)
    assert written(again) == {"c2": (1, 0.25, "train"), "c3": (0, 0.0, "test")}
    assert not list(again.path.parent.glob("strokes/*"))


def test_slides_of_the_test_are_not_learnt_from(opened):
    labels = opened()
    labels.set_label("c", 1)
    assert [slide.image_id for slide in labels.slides_to_learn_from()] == ["b"]
    assert written(labels)["c3"] == (1, None, "test")


def test_splits_are_left_to_the_training_where_the_manifest_has_none(manifest, opened):
    manifest.write_text("image,label\nslides/a.tif,\nslides/b.tif,1\nslides/c.tif,0\n")
    assert opened().path.read_text().splitlines()[0] == "image,label,area"
    assert [slide.image_id for slide in opened().slides_to_learn_from()] == ["b", "c"]


def test_a_manifest_that_a_kill_has_left_behind_is_made_anew(opened):
    labels = opened()
    labels.set_label("a", 1, 0.5)
    labels.path.write_text("image\n")
    assert written(opened())["c1"] == (1, 0.5, "train")


def test_what_cannot_be_kept_changes_nothing(opened):
    labels = opened()
    before = labels.path.read_bytes()
    with pytest.raises(Refusal, match="contradict"):
        labels.set_label("a", 0, 0.5)
    labels.draw("a", "Stroma", [(0, 0), (9, 9)], 5)
    labels.draw("a", "Tumor", [(float("nan"), 0)], 5)
    # A folder in the place of the file: it cannot be replaced.
    (labels.folder / "said.json").mkdir()
    with pytest.raises(OSError, match="said"):
        labels.set_label("a", 1, 0.5)
    assert labels.given_label("a") is None
    (labels.folder / "said.json").rmdir()
    assert labels.path.read_bytes() == before
    assert opened().label("a") is None


def test_what_was_kept_and_cannot_be_read_is_named(opened):
    folder = opened().path.parent
    (folder / "said.json").write_text(json.dumps({"a": {"tumor": 7}}))
    with pytest.raises(ValueError, match=r"said\.json cannot be read \(weak_label: tumor must be 0 or 1, got 7\)"):
        opened()


@pytest.mark.parametrize(
    ("row", "reason"),
    [("slides/a.tif,0,0.3,,,,", "contradict"), ("slides/a.tif,1,,0,0,100,100", "it is a region")],
)
def test_rows_that_are_no_labels_of_slides_are_named(manifest, opened, row, reason):
    manifest.write_text(f"image,label,area,x,y,width_px,height_px\n{row}\n")
    with pytest.raises(ValueError, match=rf"slides\.csv, row 2, .*{reason}"):
        opened()
