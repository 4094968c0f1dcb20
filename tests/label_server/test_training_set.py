"""Weak labels of slides become manifests."""

import numpy as np
import pytest
import shapely
from PIL import Image
from shapely.geometry import box

from scripts.label_server.learning.training_set import (
    LabelledSlide,
    drawn_fraction,
    labelled_regions,
    with_cases,
    write_training_set,
)
from scripts.label_server.learning.weak_labels import DRAWN, SAID, DrawnAreas, WeakLabel
from scripts.label_server.refusal import Refusal
from shared.data import load_manifest
from shared.data.case_pattern import CasePattern
from shared.data.tissue_cache import TissueCache
from shared.synthetic import write_slide
from shared.wsi import Slide, TissueMap

NORMAL = WeakLabel(0, 0.0, SAID)
TUMOUR = WeakLabel(1, 0.4, SAID)


@pytest.fixture
def slide(tmp_path):
    """500 x 300 px at 0.5 um, tissue on the left 400 px."""
    pixels = np.full((300, 500, 3), 245, np.uint8)
    pixels[:, :400] = (200, 120, 170)
    write_slide(tmp_path / "slide.tif", pixels)
    return Slide(tmp_path / "slide.tif")


@pytest.fixture
def tissue():
    mask = np.zeros((30, 50), bool)
    mask[:, :40] = True
    return TissueMap(mask, 10.0)


def test_every_region_of_a_normal_slide_is_normal(slide, tissue):
    found = labelled_regions(slide, NORMAL, tissue, 100, 0.5)
    assert {(region["x"], region["y"]) for region in found} == {(x, y) for x in range(0, 400, 100) for y in (0, 100, 200)}
    assert {(region["label"], region["area"], region["width_px"]) for region in found} == {(0, 0.0, 100)}


def test_where_areas_are_drawn_only_what_they_touch_is_known(slide, tissue):
    drawn = DrawnAreas(box(50, 0, 150, 50), box(200, 0, 280, 100))
    found = labelled_regions(slide, WeakLabel(1, 0.1, DRAWN, drawn), tissue, 100, 0.5)
    known = {(region["x"], region["y"]): (region["label"], region["area"]) for region in found}
    assert known == {(0, 0): (1, 0.25), (100, 0): (1, 0.25), (200, 0): (0, 0.0)}


def test_a_slide_label_is_that_of_a_region_which_holds_all_the_tissue(slide, tissue):
    assert labelled_regions(slide, TUMOUR, tissue, 100, 0.5) == []
    (region,) = labelled_regions(slide, TUMOUR, tissue, 256, 1.0)
    assert (region["x"], region["y"], region["width_px"], region["label"]) == (0, 0, 512, 1)
    # 0.4 of the tissue, which covers 400 x 300 of 512 x 512 px.
    assert region["area"] == pytest.approx(0.4 * tissue.shares(np.array([[0, 0]]), 512)[0], abs=1e-4)
    (unknown,) = labelled_regions(slide, WeakLabel(1, None, SAID), tissue, 256, 1.0)
    assert unknown["area"] is None


@pytest.fixture
def slides(tmp_path, slide):
    content = slide.path.read_bytes()

    def make(labels):
        found = []
        for index, label in enumerate(labels):
            path = tmp_path / f"case{index}.tif"
            path.write_bytes(content)
            found.append(LabelledSlide(path.stem, path, label))
        return found

    return make


def test_a_manifest_of_slides_has_both_labels_in_both_splits(slides, tmp_path):
    path, tissue = tmp_path / "labels.csv", TissueCache(tmp_path / "tissue")
    counts = write_training_set(slides([NORMAL, TUMOUR] * 4), path, tissue, None)
    assert counts == {"0": 4, "1": 4}
    splits = {split: load_manifest(path, split=split, both_classes=True) for split in ("train", "val")}
    assert [len(splits[split]) for split in ("train", "val")] == [6, 2]
    # A slide stays where it is when others are added.
    before = {record["image"]: record["split"] for record in load_manifest(path)}
    write_training_set(slides([NORMAL, TUMOUR] * 4 + [NORMAL]), path, tissue, None)
    after = {record["image"]: record["split"] for record in load_manifest(path)}
    assert sum(after[image] != split for image, split in before.items()) <= 1


def test_a_slide_that_does_not_say_how_large_its_pixels_are_has_those_that_are_known(tmp_path):
    """Its own, before those of all slides."""
    labelled = []
    for index, label in enumerate([NORMAL, TUMOUR] * 2):
        Image.new("RGB", (300, 300), (200, 120, 160)).save(tmp_path / f"{index}.png")
        labelled.append(LabelledSlide(str(index), tmp_path / f"{index}.png", label, 0.4 + index if index else None))
    write_training_set(labelled, tmp_path / "labels.csv", TissueCache(tmp_path / "tissue"), None, slide_mpp=0.25)
    assert [record["mpp"] for record in load_manifest(tmp_path / "labels.csv")] == [0.25, 1.4, 2.4, 3.4]


def test_a_manifest_of_regions_needs_areas_where_they_are_asked_for(slides, tmp_path):
    path, tissue = tmp_path / "labels.csv", TissueCache(tmp_path / "tissue")
    unknown = WeakLabel(1, None, SAID)
    labelled = slides([NORMAL, NORMAL, TUMOUR, TUMOUR, unknown, unknown])
    assert write_training_set(labelled, path, tissue, (256, 1.0))["1"] == 4
    assert write_training_set(labelled, path, tissue, (256, 1.0), needs_area=True)["1"] == 2
    for record in load_manifest(path):
        assert record["case_id"].startswith("case")
        assert record["area"] is not None


def splits_of(slides, path, tissue, cases, val_share=0.25):
    """case -> its splits, and split -> its labels, of slides ``case_index.tif``."""
    names = {slide.image_id: f"{case}/{slide.path.name}" for slide, case in zip(slides, cases, strict=True)}
    write_training_set(with_cases(slides, names, CasePattern("^([^/]+)/")), path, tissue, None, val_share=val_share)
    of_case, of_split = {}, {}
    for record in load_manifest(path):
        of_case.setdefault(record["case_id"], set()).add(record["split"])
        of_split.setdefault(record["split"], set()).add(record["label"])
    return of_case, of_split


@pytest.mark.parametrize("val_share", [0.01, 0.25, 0.99])
@pytest.mark.parametrize(
    ("labels", "cases"),
    [
        # A normal and a tumour slide of each patient; two slides of each; one patient with both, and others.
        ([NORMAL, TUMOUR] * 4, "aabbccdd"),
        ([NORMAL] * 4 + [TUMOUR] * 4, "aabbccdd"),
        ([NORMAL, TUMOUR] * 2, "aabb"),
        ([NORMAL, TUMOUR, NORMAL, TUMOUR], "aabc"),
        ([NORMAL, TUMOUR, NORMAL, TUMOUR, TUMOUR], "aabbc"),
        ([NORMAL, TUMOUR, NORMAL, TUMOUR, NORMAL, NORMAL], "aabbcd"),
    ],
)
def test_a_patient_is_in_one_split_and_both_labels_in_both(slides, tmp_path, labels, cases, val_share):
    of_case, of_split = splits_of(slides(labels), tmp_path / "labels.csv", TissueCache(tmp_path / "tissue"), cases, val_share)
    assert set(of_case) == set(cases)
    assert all(len(splits) == 1 for splits in of_case.values())
    assert of_split == {"train": {0, 1}, "val": {0, 1}}


def test_a_quarter_of_the_patients_validates(slides, tmp_path):
    cases = "aabbccddeeffgghh"
    of_case, _ = splits_of(slides([NORMAL, TUMOUR] * 8), tmp_path / "labels.csv", TissueCache(tmp_path / "tissue"), cases)
    assert sum(splits == {"val"} for splits in of_case.values()) == 2


def test_a_label_of_a_single_patient_and_slides_of_an_unknown_one_are_refused(slides, tmp_path):
    path, tissue = tmp_path / "labels.csv", TissueCache(tmp_path / "tissue")
    with pytest.raises(Refusal, match="found normal slides of 2 and tumour slides of 1"):
        splits_of(slides([NORMAL, TUMOUR] * 2 + [NORMAL]), path, tissue, "aaaab")
    with pytest.raises(
        Refusal, match=r"the case of 2 labelled slides is not known.*: /case2\.tif does not match the case_pattern"
    ):
        splits_of(slides([NORMAL, TUMOUR] * 2), path, tissue, ["a", "b", "", ""])
    assert not path.exists()


@pytest.mark.parametrize("labels", [[NORMAL, NORMAL, TUMOUR], [NORMAL, TUMOUR, TUMOUR], []])
def test_too_few_labels_are_refused_with_their_number(slides, tmp_path, labels):
    with pytest.raises(Refusal, match=f"found {labels.count(NORMAL)} normal and {labels.count(TUMOUR)} tumour slides"):
        write_training_set(slides(labels), tmp_path / "labels.csv", TissueCache(tmp_path / "tissue"), None)


def test_the_drawn_fraction_is_of_the_tissue(slide, tmp_path):
    drawn = DrawnAreas(shapely.union(box(-50, 0, 100, 300), box(50, 0, 200, 150)))
    found = drawn_fraction(LabelledSlide("slide", slide.path, WeakLabel(1, None, DRAWN, drawn)), TissueCache(tmp_path, mpp=2.0))
    assert found == pytest.approx((100 * 300 + 100 * 150) / (400 * 300), rel=0.03)
