"""What a method learns from and validates on are the records of its configuration, and never what is scored."""

from pathlib import Path

import pytest

from scripts.comparison.data import prepare_data
from scripts.comparison.planning.method_records import NotComparable
from scripts.comparison.planning.plan import plan
from shared.data import load_manifest, write_manifest
from shared.synthetic import DemoPlan, SlidePlan, write_demo

from .conftest import method


def own_case(index, cell):
    return f"c{index}"


@pytest.mark.parametrize("name", ["joint_seg_cls", "joint_seg_cls+features"])
def test_a_scored_case_chooses_nothing(data, tmp_path, name):
    with pytest.raises(NotComparable, match=r"validates on images of case2, whose rows of the split 'test' are scored: expected"):
        plan(method(name), data, tmp_path, {"validation_case": "case2"})


def test_an_image_without_a_case_is_known_by_its_file(changed, tmp_path):
    data = changed(case_id=None)
    with pytest.raises(NotComparable, match=r"validates on images of i5\.png, whose"):
        plan(method("joint_seg_cls"), data, tmp_path, {"validation_case": "i5"})


def test_a_case_that_is_not_scored_may_choose_alone(changed, tmp_path):
    """Of two validation cases of one image each, the first one: with tumour it has a mask."""
    data = changed(case_id=own_case)
    for given, selection in (({}, (1, 1)), ({"validation_case": "c8"}, (1, 0)), ({"validation_case": "c9"}, (0, 1))):
        planned = plan(method("joint_seg_cls"), data, tmp_path, given)
        assert (planned.selection["labels"], planned.selection["masks"]) == selection


def test_a_case_that_is_not_there_is_said_by_the_manifest(data, tmp_path):
    with pytest.raises(ValueError, match=r"images\.csv: no case 'case9' outside the training images can validate"):
        plan(method("joint_seg_cls"), data, tmp_path, {"validation_case": "case9"})


def test_nothing_is_learned_from_a_scored_case(data, changed, tmp_path):
    """Of another manifest, in which the test cases train."""
    swapped = {"train": "test", "test": "train"}
    other = changed(split=lambda index, cell: swapped.get(cell, cell))
    with pytest.raises(NotComparable, match="learns from images of case2, case3, whose rows of the split 'test' are scored"):
        plan(method("cdws_mil"), data, tmp_path, {"manifest": str(other.manifests["images"])})


def test_regions_of_a_scored_slide_choose_nothing(tmp_path):
    """Regions are rows of another manifest than the slides that are scored."""
    slides = tuple(SlidePlan(split, share, (700, 700)) for split in ("train", "val", "test") for share in (0.3, 0.0))
    folder = write_demo(tmp_path / "demo", DemoPlan(images={}, slides=slides))
    data = prepare_data(folder / "slides.csv", tmp_path / "data", region_size_px=128)
    cases = {
        split: [row["case_id"] or Path(row["image"]).stem for row in data.rows if row["split"] == split]
        for split in ("val", "test")
    }
    found = method("joint_seg_cls")
    assert plan(found, data, tmp_path, {"validation_case": cases["val"][0]}).selection["masks"] > 0
    with pytest.raises(NotComparable, match=f"validates on images of {cases['test'][0]}"):
        plan(found, data, tmp_path, {"validation_case": cases["test"][0]})


@pytest.mark.parametrize(("validating", "number"), [((8, 9), 2), ((0, 1, 8, 9), 2), ((), 2)], ids=["two", "four", "none"])
@pytest.mark.parametrize("name", ["cdws_mil", "cdws_mil+five_fold"])
def test_folds_have_validation_images_of_their_own(changed, tmp_path, validating, number, name):
    """Of six images outside the test split two validate in each of three folds, whatever validates in the manifest."""
    data = changed(
        case_id=own_case,
        split=lambda index, cell: cell if cell == "test" else "val" if index in validating else "train",
    )
    planned = plan(method(name), data, tmp_path, {"num_folds": 3, "fold": 1})
    assert planned.selection == {"labels": number, "areas": 0, "masks": 0}
    assert planned.effort["labels"] == 2


def test_labels_and_masks_of_folds_are_those_of_all_that_is_not_tested(changed, tmp_path):
    """Validation images train in other folds, and training images validate: neither may lack what the others have."""
    folds = {"num_folds": 3, "fold": 0}
    without_area = changed(case_id=own_case, area=lambda index, cell: "" if index == 9 else cell, mask=None)
    with pytest.raises(NotComparable, match="needs label 'area': 1 of 3 training images with tumour have none"):
        plan(method("cdws_mil"), without_area, tmp_path, folds)
    without_mask = changed(case_id=own_case, mask=lambda index, cell: "" if index == 1 else cell)
    assert plan(method("cdws_mil"), without_mask, tmp_path, {}).settings.get("truth", "mask") == "mask"
    assert plan(method("cdws_mil"), without_mask, tmp_path, folds).settings["truth"] is None


def test_a_threshold_is_chosen_on_the_slides_that_the_calibration_draws(tmp_path):
    slides = tuple(SlidePlan(split, share, (420, 500)) for split in ("train", "val", "val", "test") for share in (0.3, 0.0))
    folder = write_demo(tmp_path / "demo", DemoPlan(images={}, slides=slides))
    write_manifest(load_manifest(folder / "slides.csv"), folder / "all.csv")
    data = prepare_data(folder / "all.csv", tmp_path / "data")
    drawn = {"calibration_slides": 2}
    for given, number in ((drawn | {"keep_best": None}, 2), (drawn, 4), ({"keep_best": None}, 4)):
        assert plan(method("alpha_beta_mil"), data, tmp_path, given).selection["labels"] == number
