"""Manifests on which nothing can be compared are refused, and the message says what to do."""

import shutil

import pytest
from PIL import Image

from scripts.comparison.data import _kept, prepare_data
from scripts.comparison.data_checks import check_comparable, unscored_classes
from scripts.comparison.reporting.report import Report
from scripts.comparison.rows.method_row import SKIPPED, MethodRow
from shared.data import load_manifest


def in_test(index):
    return 4 <= index < 8


BAD = {
    "one class": (
        {"label": lambda index, cell: "1" if index < 4 else cell},
        r"all 4 rows of the split 'train' have the same label, 1 \(tumour\): expected rows with label 0 \(normal\) and",
    ),
    "one case": (
        {"case_id": lambda index, cell: "c", "split": None},
        "no row of the split 'test': expected rows to train on .* found 10 of 'train'; all are of one case, c, and cases are "
        "never",
    ),
    "no test split": (
        {"split": lambda index, cell: "train" if in_test(index) else cell},
        "no row of the split 'test': expected .* found 8 of 'train', 2 of 'val'",
    ),
    "no training split": (
        {"split": lambda index, cell: "val" if cell == "train" else cell},
        "no row of the split 'train': expected .* found 6 of 'val', 4 of 'test'",
    ),
    "no masks in test": (
        {"mask": lambda index, cell: "" if in_test(index) else cell},
        "2 of the 4 rows of the split 'test' have a label above 0, and 0 have a mask: .* Fill the column 'mask' of the test rows",
    ),
    "no tumour in test": (
        {
            "label": lambda index, cell: "0" if in_test(index) else cell,
            "mask": lambda index, cell: "" if in_test(index) else cell,
        },
        r"all 4 rows of the split 'test' have label 0 \(normal\): expected rows with tumour",
    ),
}


@pytest.mark.parametrize(("cells", "problem"), BAD.values(), ids=BAD)
def test_what_cannot_be_compared(changed_csv, tmp_path, cells, problem):
    with pytest.raises(ValueError, match=r"changed\.csv.*" + problem):
        check_comparable(prepare_data(changed_csv(**cells), tmp_path / "data"))


@pytest.fixture
def with_empty_masks(changed_csv, images_csv, tmp_path):
    """The images with the masks of some rows empty."""

    def write(rows):
        def mask(index, cell):
            if index not in rows:
                return cell
            path = tmp_path / f"empty{index}.png"
            Image.open(images_csv.parent / f"m{index}.png").point(lambda value: 0).save(path)
            return str(path)

        return prepare_data(changed_csv(mask=mask), tmp_path / "data")

    return write


def test_masks_without_tumour_are_refused_before_the_training(with_empty_masks):
    problem = (
        r"changed\.csv: none of the 4 masks of the scored rows of the split 'test' has a pixel of tumour at 0\.5 um per pixel, "
        r"though 2 of these rows do not have label 0, such as row 7 with .*/empty5\.png: expected masks in which tumour is not 0 "
    )
    with pytest.raises(ValueError, match=problem):
        check_comparable(with_empty_masks({4, 5, 6, 7}), 0.5)
    # One mask with tumour will do.
    check_comparable(with_empty_masks({5}), 0.5)


def test_a_mask_that_cannot_be_read_is_said_before_the_training(changed_csv, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    broken = str(tmp_path / "broken.png")
    data = prepare_data(changed_csv(mask=lambda index, cell: broken if index == 5 else cell), tmp_path / "data")
    with pytest.raises(ValueError, match=r"changed\.csv, row 7, .*i5\.png: .*broken\.png"):
        check_comparable(data)


@pytest.mark.parametrize(("truth", "normal"), [("masks_where_given", 2), ("masks_only", 1)])
def test_tumour_that_is_not_scored_is_warned_of(changed_csv, tmp_path, caplog, truth, normal):
    """One of two test images with tumour, and one of two without, have no mask."""
    manifest = changed_csv(mask=lambda index, cell: "" if index in (4, 5) else cell)
    check_comparable(prepare_data(manifest, tmp_path / "data", truth=truth))
    (said,) = caplog.messages
    assert "changed.csv: 1 of the 2 rows of the split 'test' without label 0 have no mask and are not scored, while " in said
    assert f" while {normal} of the 2 rows with label 0 are: " in said


def test_what_was_cut_is_kept_for_the_same_classes_alone(images_csv, tmp_path):
    """The same names in another order give the regions other labels; and a damaged note says nothing."""
    records, calls = load_manifest(images_csv), []

    def regions(*names):
        def cut():
            calls.append(names)
            return records

        assert len(_kept(records, [48.0], names, tmp_path, cut)) == len(records)

    for names in (("a", "b", "c"), ("a", "b", "c"), ("a", "c", "b")):
        regions(*names)
    assert calls == [("a", "b", "c"), ("a", "c", "b")]
    (tmp_path / "regions.json").write_bytes(b"\xff")
    regions("a", "c", "b")
    assert len(calls) == 3


@pytest.fixture
def of_classes(changed_csv, images_csv, tmp_path):
    """The images with labels of the classes a, b and c, by a function of the row's number and cell."""

    def write(label):
        path = changed_csv(label=label)
        for index in range(10):
            # Of three classes masks hold indices.
            mask = Image.open(images_csv.parent / f"m{index}.png").point(lambda value: value // 255)
            mask.save(tmp_path / f"m{index}.png")
        path.write_text(path.read_text().replace(f"{images_csv.parent}/m", f"{tmp_path}/m"))
        return prepare_data(path, tmp_path / "data", class_names=["a", "b", "c"])

    return write


@pytest.mark.parametrize(("split", "rows", "number"), [("val", range(8, 10), 1), ("test", range(4, 8), 2)])
def test_a_class_that_no_training_row_has(of_classes, split, rows, number):
    data = of_classes(lambda index, cell: "2" if cell == "1" and index in rows else cell)
    problem = (
        rf"changed\.csv: the split '{split}' has label 2 \(c, {number} rows\), which no row .*; labels there: 0 \(a\), 1 \(b\)"
    )
    with pytest.raises(ValueError, match=problem):
        check_comparable(data)


def test_a_class_that_no_test_row_has_is_warned_of(of_classes, caplog):
    """The rows 1 and 3 train with label 1 and 2; the rows 5 and 7 test label 1 alone."""
    check_comparable(of_classes(lambda index, cell: "2" if index == 3 else cell))
    (said,) = caplog.messages
    assert "changed.csv: no scored row of the split 'test' has label 2 (c, 1 rows) of the split 'train'." in said
    assert "its score cannot be measured" in said


def test_readers_are_told_of_it_too(of_classes, migrated_database, tmp_path):
    """And of what macro F1 is then the mean of."""
    data = of_classes(lambda index, cell: "2" if index == 3 else cell)
    said = unscored_classes(data)
    assert said.startswith("No scored row of the split 'test' has label 2 (c, 1 rows)")
    assert said.endswith(", its score cannot be measured, and macro F1 is the mean of the other classes.")
    shutil.copy(migrated_database, tmp_path / "mlruns.db")
    skipped = MethodRow("wildcat", "WILDCAT", SKIPPED, "needs something")
    seconds = {"labels": 5.0, "areas": 10.0, "masks": 240.0}
    Report(data, 0.5, seconds, None, f"sqlite:///{tmp_path}/mlruns.db", None, 0, "comparison").write(tmp_path, [skipped])
    assert said in (tmp_path / "table.md").read_text()
    assert said.replace("'", "&#39;") in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(("unnamed", "number"), [(None, 4), (lambda index, cell: "" if index < 6 else cell, 2)])
def test_scored_rows_without_a_case_are_warned_of(changed_csv, tmp_path, caplog, unnamed, number):
    """Of all rows, because there is no such column, or of two of the four test rows."""
    check_comparable(prepare_data(changed_csv(case_id=unnamed), tmp_path / "data"))
    (said,) = caplog.messages
    assert f"changed.csv: {number} of the 4 scored rows of the split 'test' have no case_id: " in said
    assert "intervals are too narrow. Fill the column 'case_id'" in said


def test_nothing_is_said_where_all_splits_have_the_same_classes(changed_csv, tmp_path, caplog):
    check_comparable(prepare_data(changed_csv(), tmp_path / "data"))
    assert caplog.messages == []
