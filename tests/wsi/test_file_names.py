"""Names with accents, which a Mac and other systems write in different ways, belong together."""

import unicodedata

import numpy as np
import pytest
from PIL import Image

from shared.data import TissueCache, load_manifest
from shared.data.case_pattern import CasePattern
from shared.data.labels.class_names import ClassNames
from shared.data.splits import rotate_validation
from shared.data.tissue_cache import edited_mask_key
from shared.evaluation.maps.map_folder import MapFolder
from shared.evaluation.maps.picture_maps import PictureMaps
from shared.features.slide_files import features_file
from shared.synthetic import write_slide
from shared.wsi.file_names import comparable, existing_file

# Of a letter and its accent, and of one letter.
NAMES = {form: unicodedata.normalize(form, "Präparat é") for form in ("NFD", "NFC")}
BOTH_WAYS = pytest.mark.parametrize(("there", "asked"), [("NFD", "NFC"), ("NFC", "NFD"), ("NFD", "NFD")])


def test_the_two_forms_differ_and_compare_equal():
    assert NAMES["NFD"] != NAMES["NFC"] == comparable(NAMES["NFD"]) == comparable(NAMES["NFC"])


@BOTH_WAYS
def test_a_file_is_found_below_folders_of_such_names(tmp_path, monkeypatch, there, asked):
    there, asked = NAMES[there], NAMES[asked]
    (tmp_path / there / "plain").mkdir(parents=True)
    (tmp_path / there / "plain" / f"{there}.svs").write_bytes(b"")
    assert existing_file(tmp_path / asked / "plain" / f"{asked}.svs") == tmp_path / there / "plain" / f"{there}.svs"
    monkeypatch.chdir(tmp_path)
    assert str(existing_file(f"{asked}/plain")) == f"{there}/plain"
    # What is not there keeps its name, and another name is another name.
    for missing in (tmp_path / asked / "other" / f"{asked}.svs", tmp_path / f"{asked}.svs", tmp_path / "Praparat e"):
        assert existing_file(missing) == missing


def test_of_two_files_each_is_found_by_its_own_name(tmp_path):
    for name in NAMES.values():
        (tmp_path / name).write_text(name)
    assert [existing_file(tmp_path / name).read_text() for name in NAMES.values()] == list(NAMES.values())


@BOTH_WAYS
def test_a_manifest_names_files_and_patients(tmp_path, there, asked):
    folder, name = tmp_path / NAMES[there], NAMES[asked]
    folder.mkdir()
    for file in (f"{NAMES[there]}.png", f"{NAMES[there]}_mask.png"):
        Image.new("RGB", (8, 8)).save(folder / file)
    rows = [f"{name}/{name}.png,1,{name}/{name}_mask.png,{NAMES[form]},{x},0,4,8" for x, form in ((0, "NFC"), (4, "NFD"))]
    header = "image,label,mask,case_id,x,y,width_px,height_px"
    (tmp_path / "a.csv").write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    records = load_manifest(tmp_path / "a.csv", require=())
    assert {record["image"] for record in records} == {str(folder / f"{NAMES[there]}.png")}
    assert {record["mask"] for record in records} == {str(folder / f"{NAMES[there]}_mask.png")}
    # One patient, who is in one split.
    assert len({record["case_id"] for record in records}) == 1
    split = [{"image": "a.svs", "case_id": NAMES[there], "split": "test"}, {"image": "b.svs", "case_id": "b", "split": "val"}]
    rotate_validation(split, name)
    assert [record["split"] for record in split] == ["val", "test"]


@BOTH_WAYS
def test_features_maps_pictures_and_classes_are_found(tmp_path, there, asked):
    there, asked = NAMES[there], NAMES[asked]
    record = {"image": f"slides/{asked}.svs"}
    (tmp_path / f"{there}.h5").write_bytes(b"")
    assert features_file(tmp_path, record["image"]) == tmp_path / f"{there}.h5"
    Image.new("L", (8, 6), 255).save(tmp_path / f"{there}.png")
    assert PictureMaps(tmp_path).path_of(record["image"]) == tmp_path / f"{there}.png"
    (tmp_path / "slides.csv").write_text(f"slide,status,mpp\n{there},ok,0.5\n", encoding="utf-8")
    maps = MapFolder(tmp_path)
    assert (maps.is_finished(record), maps.row(record)["slide"]) == (True, there)
    assert ClassNames(["normal", there]).index_of(asked) == 1
    assert CasePattern(rf"({there})_\d").case_of(f"{asked}_1.svs") == NAMES["NFC"]


@BOTH_WAYS
def test_an_edited_tissue_mask_is_used(tmp_path, there, asked):
    pixels = np.full((400, 600, 3), 245, np.uint8)
    pixels[100:300, 150:450] = (190, 90, 160)
    slides = [tmp_path / folder / f"{NAMES[form]}.tif" for folder, form in (("first", there), ("then", asked))]
    for slide in slides:
        slide.parent.mkdir()
        write_slide(slide, pixels, mpp=0.5)
    cache = TissueCache(tmp_path / "tissue")
    edited = ~cache.get(slides[0]).mask
    Image.fromarray(edited).save(cache.file(slides[0], 0.5))
    assert np.array_equal(cache.get(slides[1]).mask, edited)
    assert edited_mask_key(cache.folder, slides[1]) == edited_mask_key(cache.folder, slides[0]) is not None
    assert len(list(cache.folder.iterdir())) == 1
