"""A miniature of EBHI-Seg as it is unpacked, and the real tiles where they are."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from shared.data import assign_splits, load_manifest, write_manifest
from shared.data.labels.class_masks import read_codes
from shared.data.public.ebhi_seg import EBHI_CLASSES, PUBLISHED_TILES, ebhi_seg, ebhi_tumour
from tests.data.published_layouts import EBHI_FOLDERS, write_ebhi


@pytest.fixture
def ebhi_folder(tmp_path):
    return write_ebhi(tmp_path)


def test_the_manifest_of_six_classes_line_by_line(ebhi_folder, tmp_path):
    data = ebhi_seg(ebhi_folder, tmp_path / "masks")
    expected = []
    for label, folder in enumerate(EBHI_FOLDERS, start=1):
        for number in range(3):
            case = 2012000 + (30 if number == 0 and folder in ("Polyp", "Adenocarcinoma") else 3 * (label - 1) + number)
            stem = f"GT{'xc' if number == 1 else ''}{case}-1-400-00{number}"
            suffix = ".PNG" if (folder, number) == ("Polyp", 2) else ".png"
            mask = tmp_path / "masks" / EBHI_CLASSES[label].replace(" ", "_") / f"{stem}.png"
            image = ebhi_folder / folder / "image" / f"{stem}{suffix}"
            expected.append({"image": str(image), "label": label, "mask": str(mask), "case_id": str(case)})
    expected.sort(key=lambda record: (record["label"], record["image"]))
    assign_splits(expected)
    write_manifest(data.records, tmp_path / "classes.csv")
    lines = [",".join(str(record[name]) for name in ("image", "label", "mask", "case_id", "split")) for record in expected]
    assert (tmp_path / "classes.csv").read_text().splitlines() == ["image,label,mask,case_id,split", *lines]
    assert len({(record["case_id"], record["split"]) for record in data.records}) == 3 * 6 - 1
    assert data.found == dict.fromkeys(EBHI_FOLDERS, 3) | {"Low-grade IN": 4}
    assert data.remarks == [
        f"left out 1 image files without a label file, or the reverse, in {ebhi_folder}: Low-grade "
        "IN/image/GT2012099-1-400-001.png"
    ]
    # One class everywhere in a mask, where the published one is not 0.
    for record in load_manifest(tmp_path / "classes.csv", num_classes=7):
        indices = read_codes(record["mask"])
        assert (np.unique(indices).tolist(), int((indices > 0).sum())) == ([0, record["label"]], 8 * 16)


def test_tumour_and_normal_line_by_line(ebhi_folder, tmp_path):
    # The folder above will do, too.
    records = ebhi_seg(ebhi_folder.parent, tmp_path / "masks").records
    binary = ebhi_tumour(records)
    split_of = {record["image"]: record["split"] for record in records}
    expected = []
    for folder, label in (("Normal", 0), ("Polyp", 0), ("Adenocarcinoma", 1)):
        for image in sorted((ebhi_folder / folder / "image").glob("GT*")):
            mask = str(ebhi_folder / folder / "label" / f"{image.stem}.png") if label else None
            expected.append((str(image), label, mask, split_of[str(image)]))
    assert [(r["image"], r["label"], r["mask"], r["split"]) for r in binary] == expected
    other = ebhi_tumour(records, ("Adenocarcinoma", "High-grade IN"), ("Normal",))
    assert [record["label"] for record in other] == [0] * 3 + [1] * 6
    # A tile has the split that it has among all classes.
    assert {(record["image"], record["split"]) for record in other} <= set(split_of.items())
    for tumour, message in (
        (("Adeno",), "Adeno: tumour and normal must be classes of"),
        (("Normal",), "Normal: tumour and normal must be"),
    ):
        with pytest.raises(ValueError, match=message):
            ebhi_tumour(records, tumour)


def test_what_is_missing(ebhi_folder, tmp_path):
    shutil.rmtree(ebhi_folder / "Polyp")
    for number in (0, 1):
        next((ebhi_folder / "Normal/label").glob(f"*00{number}.png")).unlink()
    with pytest.raises(ValueError, match=r"1 folders of classes not found in .*EBHI-SEG: Polyp"):
        ebhi_seg(ebhi_folder, tmp_path / "masks")
    data = ebhi_seg(ebhi_folder, tmp_path / "masks", allow_missing=True)
    assert "3 image files without a label file, or the reverse" in data.remarks[1]
    assert len(data.records) == 5 * 3 - 2
    assert "Polyp: 0 images (474 were published)" in data.lines()
    # Two are missing in the release itself; a third is not.
    (ebhi_folder / "Polyp/image").mkdir(parents=True)
    (ebhi_folder / "Polyp/label").mkdir()
    with pytest.raises(ValueError, match="3 image files without a label file, or the reverse"):
        ebhi_seg(ebhi_folder, tmp_path / "masks")


@pytest.mark.parametrize("name", ["tile-1.png", "1234.png"])
def test_a_name_without_a_case(ebhi_folder, tmp_path, name):
    for part in ("image", "label"):
        Image.new("L", (4, 4)).save(ebhi_folder / "Normal" / part / name)
    with pytest.raises(ValueError, match="the name does not identify the case"):
        ebhi_seg(ebhi_folder, tmp_path / "masks")


def test_not_this_data_set(tmp_path):
    with pytest.raises(ValueError, match=f"contains no folder '{next(iter(PUBLISHED_TILES))}' or"):
        ebhi_seg(tmp_path, tmp_path / "masks")


def test_real_tiles(wsi_test_data, tmp_path):
    """Put back into the published layout, they give what is known of them."""
    with (wsi_test_data / "ebhi_seg/labels.csv").open(newline="") as file:
        rows = {row["image_name"].partition("_")[2]: row for row in csv.DictReader(file)}
    for name, row in rows.items():
        for part, folder in (("image", "images"), ("label", "masks")):
            link = tmp_path / "EBHI-SEG" / row["class"] / part / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(wsi_test_data / "ebhi_seg" / folder / row["image_name"])
    data = ebhi_seg(tmp_path, tmp_path / "masks", allow_missing=True)
    write_manifest(ebhi_tumour(data.records), tmp_path / "manifest.csv")
    records = load_manifest(tmp_path / "manifest.csv", both_classes=True)
    assert len(records) == len(rows) == 605
    for record in records:
        row = rows[record["image"].rpartition("/")[2]]
        assert (str(record["label"]), record["case_id"]) == (row["label"], row["case_id"])
        if record["label"]:
            assert float((read_codes(record["mask"]) > 0).mean()) == pytest.approx(float(row["tumour_fraction"]), abs=1e-4)
