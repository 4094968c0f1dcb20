"""A miniature of GlaS as it is unpacked: regions, patients, the official split, and what is wrong with a table."""

from collections import defaultdict

import numpy as np
import pytest

from shared.data import RegionDataset, assign_splits, load_manifest, write_manifest
from shared.data.labels.class_masks import read_codes
from shared.data.public.glas import glas, glas_malignancy
from tests.data.published_layouts import GLAS_ROWS, write_glas

# As published: train before testA and testB, by number.
ORDER = ["train_1", "train_2", "train_3", "train_4", "train_5", "train_6", "train_10", "testA_1", "testA_2", "testB_1"]
ROWS = {name: (str(patient), grade) for name, patient, grade, _ in GLAS_ROWS}


@pytest.fixture
def glas_folder(tmp_path):
    return write_glas(tmp_path)


def file_of(folder, name):
    return folder / f"{name}{'.BMP' if name == 'train_3' else '.bmp'}"


def test_the_manifest_of_glands_line_by_line(glas_folder, tmp_path):
    # Images of 97 x 65 px: two regions of 64 px a row, of which the right one, from x = 33, has no gland.
    data = glas(glas_folder, tmp_path / "masks", size_px=64)
    expected = [
        {"image": str(file_of(glas_folder, name)), "case_id": ROWS[name][0], "label": 1 + (ROWS[name][1] == "malignant")}
        for name in ORDER
    ]
    assign_splits(expected)
    write_manifest(data.records, tmp_path / "classes.csv")
    lines = []
    for record, name in zip(expected, ORDER, strict=True):
        labels = f"{record['label']},{tmp_path / 'masks' / name}.png,{record['case_id']},{record['split']}"
        lines.append(f"{record['image']},0,0,64,64,0.62005,{labels}")
    header = "image,x,y,width_px,height_px,mpp,label,mask,case_id,split"
    assert (tmp_path / "classes.csv").read_text().splitlines() == [header, *lines]
    assert {record["split"] for record in data.records} == {"train", "val", "test"}
    assert data.found == {"train": 7, "testA": 2, "testB": 1}
    assert data.remarks == [
        "7 patients (16 were published)",
        "2 patients have both training and test images in the official split, which is therefore not used",
        "left out 10 regions of 64 px without any gland",
    ]
    for record in load_manifest(tmp_path / "classes.csv", num_classes=3):
        indices = read_codes(record["mask"])
        assert (np.unique(indices).tolist(), int((indices > 0).sum())) == ([0, record["label"]], 400)


def test_malignant_against_benign(glas_folder, tmp_path):
    write_manifest(glas_malignancy(glas(glas_folder.parent, tmp_path / "masks", size_px=64).records), tmp_path / "images.csv")
    records = load_manifest(tmp_path / "images.csv", both_classes=True)
    expected = [
        (int(malignant), str(glas_folder / f"{name}_anno.bmp") if malignant else None)
        for name in ORDER
        for malignant in [ROWS[name][1] == "malignant"]
    ]
    assert [(record["label"], record["mask"]) for record in records] == expected
    # The published mask numbers the glands; all of them are tumour.
    dataset = RegionDataset(records, size_px=64, mpp=0.62005, pixel_labels="mask")
    assert [int(item["mask"].sum()) for item in dataset] == [400 * label for label, _ in expected]
    halved = RegionDataset(records, size_px=32, mpp=1.2401, pixel_labels="mask")
    assert [int(item["mask"].sum()) for item in halved] == [100 * label for label, _ in expected]


def test_patients_stay_together_and_the_official_split_does_not_keep_them_so(glas_folder, tmp_path):
    splits = defaultdict(set)
    for record in glas(glas_folder, tmp_path / "masks", size_px=64, seed=3).records:
        splits[record["case_id"]].add(record["split"])
    assert len(splits) == 7
    assert all(len(of_patient) == 1 for of_patient in splits.values())

    data = glas(glas_folder, tmp_path / "masks", size_px=64, official=True)
    assert data.remarks[1] == "2 patients are on both sides of the official split, so no case is named"
    for record in data.records:
        assert (record["split"] == "test") == (record["part"] != "train")
        assert record["case_id"] is None
    assert {record["split"] for record in data.records} == {"train", "val", "test"}
    by_patient = defaultdict(set)
    for record in data.records:
        if record["part"] == "train":
            by_patient[ROWS[record["image"].rpartition("/")[2].partition(".")[0]][0]].add(record["split"])
    assert all(len(of_patient) == 1 for of_patient in by_patient.values())


def test_what_is_missing(glas_folder, tmp_path):
    (glas_folder / "train_2.bmp").unlink()
    (glas_folder / "testA_1_anno.bmp").unlink()
    with pytest.raises(ValueError, match=r"1 rows of .*Grade\.csv without an image: train_2"):
        glas(glas_folder, tmp_path / "masks")
    data = glas(glas_folder, tmp_path / "masks", size_px=64, allow_missing=True)
    assert [remark for remark in data.remarks if remark.startswith("left out 1 ")] == [
        f"left out 1 rows of {glas_folder / 'Grade.csv'} without an image: train_2",
        "left out 1 images without an annotation: testA_1",
        "left out 1 annotations without an image: train_2",
    ]
    assert len(data.records) == 8
    assert glas(glas_folder, tmp_path / "masks", size_px=80, allow_missing=True).records == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train_1,1, benign, healthy", "row 12: train_1 occurs twice"),
        (
            "train_7,1, unclear, healthy",
            "row 12: expected an image, a patient and one of benign, malignant, got train_7, 1, unclear",
        ),
        ("train_7", "row 12: expected an image, a patient"),
    ],
)
def test_a_table_that_is_wrong(glas_folder, tmp_path, line, message):
    table = glas_folder / "Grade.csv"
    table.write_text(table.read_text() + line + "\n\n")
    with pytest.raises(ValueError, match=message):
        glas(glas_folder, tmp_path / "masks")


def test_not_this_data_set(glas_folder, tmp_path):
    with pytest.raises(ValueError, match=r"contains no Grade\.csv"):
        glas(tmp_path / "none", tmp_path / "masks")
    (glas_folder / "extra.png").touch()
    with pytest.raises(ValueError, match=r"contains images that belong to no part of GlaS: extra\.png"):
        glas(glas_folder, tmp_path / "masks")
    (glas_folder / "Grade.csv").write_text("name,grade\n")
    with pytest.raises(ValueError, match="expected the columns name, patient ID, grade"):
        glas(glas_folder, tmp_path / "masks")
