"""Splits and folds of a manifest: what is refused, and which rows a split has."""

from pathlib import Path

import pytest

from shared.data import load_manifest

from .test_manifest import GOOD, assert_refused


def test_a_case_belongs_to_one_split(write_rows):
    rows = [{**GOOD, "case_id": "p1", "split": "train"}, {"image": "b.png", "label": "1", "case_id": "p1", "split": "val"}]
    assert_refused(write_rows(rows), "row 3", "case_id 'p1' has split 'val' here and 'train' in row 2")


def test_the_regions_of_an_image_belong_to_one_split(write_rows):
    region = {"y": "0", "width_px": "4", "height_px": "4"}
    rows = [{**GOOD, "x": "0", **region, "split": "train"}, {**GOOD, "x": "4", **region, "split": "test"}]
    assert_refused(write_rows(rows), "row 3", "a.png", "has split 'test' here and 'train' in row 2")


@pytest.mark.parametrize("split", ["", "train"])
def test_an_image_belongs_to_one_case(write_rows, split):
    region = {"y": "0", "width_px": "4", "height_px": "4", "split": split}
    rows = [{**GOOD, "x": "0", **region, "case_id": "p1"}, {**GOOD, "x": "4", **region, "case_id": "p2"}]
    assert_refused(write_rows(rows), "row 3", "has case_id 'p2' here and 'p1' in row 2")


@pytest.mark.parametrize("word", ["training", "", "Train"])
def test_split_words(write_rows, word):
    rows = [{**GOOD, "split": "train"}, {"image": "b.png", "label": "1", "split": word}]
    assert_refused(write_rows(rows), "row 3", "split must be one of train, val, test", repr(word or None))


def test_a_split_without_rows(write_rows):
    path = write_rows([{**GOOD, "split": "train"}])
    assert len(load_manifest(path, split="train")) == 1
    assert_refused(path, "no row with split 'val'", split="val")


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        ([{**GOOD, "case_id": "p"}, {"image": "b.png", "label": "1", "case_id": "p"}], "0 with label 0, 1 with label 1"),
        ([GOOD, {"image": "b.png", "label": "1"}], "1 with label 0, 1 with label 1"),
    ],
)
def test_too_few_cases_for_a_split(write_rows, rows, counts):
    words = ["too few cases to make a split 'val'", counts, "need 3 cases of each label"]
    assert_refused(write_rows(rows), *words, split="val")


def test_a_split_that_is_never_drawn(write_rows):
    """Of a manifest that assigns no row: more cases would not help."""
    assert_refused(write_rows([GOOD]), "no split 'tets'", "name one of train, val, test", split="tets")


def test_what_is_required_is_required_of_the_split_alone(write_rows):
    path = write_rows([{**GOOD, "split": "train"}, {"image": "b.png", "label": "", "split": "test"}])
    assert len(load_manifest(path, split="train")) == 1
    assert_refused(path, "row 3", "'label' is empty", split="test")


@pytest.mark.parametrize("label", ["0", "1"])
def test_both_classes(write_rows, label):
    rows = [{"image": "a.png", "label": label, "split": "train"}, {"image": "b.png", "label": "0", "split": "val"}]
    rows.append({"image": "c.png", "label": "1", "split": "val"})
    path = write_rows(rows)
    assert_refused(path, "train split has 1 rows of only one class", f"(label {label})", split="train", both_classes=True)
    assert len(load_manifest(path, split="val", both_classes=True)) == 2


def test_both_classes_need_labels(write_rows):
    assert_refused(write_rows([{"image": "a.png"}]), "row 2", "'label' is empty", require=(), both_classes=True)


def test_an_automatic_split_is_the_same_for_every_call(write_rows):
    rows = [{"image": f"{index}.png", "label": str(index % 2)} for index in range(12)]
    path = write_rows(rows)
    parts = {split: load_manifest(path, split=split, both_classes=True) for split in ("train", "val", "test")}
    images = [record["image"] for part in parts.values() for record in part]
    assert sorted(images) == sorted(record["image"] for record in load_manifest(path))
    # 6 images a label; one for each split, and of the others those that .65, .15, .2 ask for: 4, 1, 1.
    assert [len(part) for part in parts.values()] == [8, 2, 2]
    others = [load_manifest(path, split="test", split_seed=seed) for seed in range(1, 5)]
    assert any([r["image"] for r in other] != [r["image"] for r in parts["test"]] for other in others)


def test_folds_take_the_place_of_the_files_splits(write_rows):
    rows = [{"image": f"{index}.png", "label": str(index % 2), "split": "train"} for index in range(12)]
    rows[3]["split"] = "val"
    path = write_rows(rows)
    tested = []
    for fold in range(3):
        parts = {split: load_manifest(path, split, num_folds=3, fold=fold) for split in ("train", "val", "test")}
        assert [len(part) for part in parts.values()] == [4, 4, 4]
        assert all(sorted(record["label"] for record in part) == [0, 0, 1, 1] for part in parts.values())
        tested += [record["image"] for record in parts["test"]]
    assert sorted(tested) == sorted(record["image"] for record in load_manifest(path, num_folds=3, fold=0))
    other = load_manifest(path, "test", num_folds=3, fold=2, split_seed=1)
    assert [record["image"] for record in other] != tested[-4:]


def test_what_the_file_keeps_for_the_test_is_in_no_fold(write_rows):
    """Nor another image of its case."""
    rows = [{"image": f"{index}.png", "label": str(index % 2), "split": "train", "case_id": f"c{index}"} for index in range(14)]
    rows[3]["split"] = rows[6]["split"] = "test"
    rows[7]["case_id"] = "c6"
    path = write_rows(rows)
    kept_back = {"3.png", "6.png", "7.png"}
    for fold in range(3):
        parts = [load_manifest(path, split, num_folds=3, fold=fold) for split in ("train", "val", "test")]
        names = [Path(record["image"]).name for part in parts for record in part]
        assert sorted(names) == sorted({row["image"] for row in rows} - kept_back)
    with pytest.raises(
        ValueError, match=r"all 14 rows are of the split 'test' or of its cases, and folds are made of the others"
    ):
        load_manifest(write_rows([row | {"split": "test"} for row in rows]), num_folds=3, fold=0)


def test_a_case_that_some_rows_of_its_image_name_is_kept_back_as_a_whole(write_rows):
    rows = [{"image": f"{index}.png", "label": str(index % 2), "case_id": f"c{index}"} for index in range(12)]
    region = {"x": "0", "y": "0", "width_px": "8", "height_px": "8"}
    rows[3] |= {"split": "test", **region}
    rows.append({**rows[3], "case_id": "", "split": "", "x": "8"})
    assert not any(record["image"].endswith("/3.png") for record in load_manifest(write_rows(rows), num_folds=3, fold=0))


@pytest.mark.parametrize("word", ["Test", "testing", "left out"])
def test_a_split_that_folds_do_not_know_is_refused(write_rows, word):
    """Its case would be trained on."""
    rows = [{"image": f"{index}.png", "label": str(index % 2), "split": ""} for index in range(12)]
    rows[5]["split"] = word
    path = write_rows(rows)
    with pytest.raises(ValueError, match=rf"row 7: split must be one of train, val, test, got '{word}'"):
        load_manifest(path, num_folds=3, fold=0)


def test_a_split_may_be_empty(write_rows):
    path = write_rows(
        [{"image": f"{index}.png", "label": str(index % 2), "split": ("train", "test")[index % 2]} for index in range(4)]
    )
    assert load_manifest(path, "val", allow_empty=True) == []
    with pytest.raises(
        ValueError, match=r"has no row with split 'val'; its splits are 'train' \(2 rows\), 'test' \(2 rows\): add some"
    ):
        load_manifest(path, "val")


def test_rejects_folds_without_a_fold(write_rows):
    path = write_rows([{"image": f"{index}.png", "label": "0"} for index in range(3)])
    with pytest.raises(ValueError, match="must be given together; got num_folds=3, fold=None"):
        load_manifest(path, num_folds=3)
    with pytest.raises(ValueError, match="must be given together; got num_folds=None, fold=0"):
        load_manifest(path, fold=0)
    with pytest.raises(ValueError, match="got num_folds=3, fold=3"):
        load_manifest(path, num_folds=3, fold=3)
