"""CAMEL's adenoma data: the table's rows become the manifest's, and what does not fit is named at once."""

import csv

import numpy as np
import pytest
from PIL import Image

from shared.data import load_manifest, write_manifest
from shared.data.public.adenoma import adenoma_images

SIZE_PX = 1280
# Blanks, upper-case endings, a folder, one without its ending in the table.
FILES = ["slide 1_a.png", "slide 1_b.PNG", "more/slide2_a.JPG", "slide2_b.jpg", "slide3_a.png", "slide4_a.png"]
ROWS = [
    ("slide 1_a.png", 1),
    ("slide 1_b.png", 1),
    ("slide2_a.JPG", 0),
    ("slide2_b", 0),
    ("slide3_a.png", 1),
    ("slide4_a.png", 0),
]


@pytest.fixture
def release(tmp_path):
    folder = tmp_path / "the release"
    (folder / "more").mkdir(parents=True)
    for index, name in enumerate(FILES):
        write_flat(folder / name, index)
    write_table(folder, ROWS)
    (folder / "notes.csv").write_text("a,b\n1,2\n")
    return folder


def write_flat(path, value, size_px=SIZE_PX):
    Image.fromarray(np.full((size_px, size_px, 3), value, np.uint8)).save(path, format="PNG")


def write_table(folder, rows):
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image_name", "label"), *rows])


def test_the_manifest_line_by_line(release, tmp_path):
    data = adenoma_images(release, case_pattern=r"([^/_]+)_[^/]*$")
    assert data.remarks == []
    assert data.found == {"normal": 3, "adenoma": 3}
    assert [(r["image"], r["label"], r["case_id"]) for r in data.records] == [
        (str(release / "slide 1_a.png"), 1, "slide 1"),
        (str(release / "slide 1_b.PNG"), 1, "slide 1"),
        (str(release / "more/slide2_a.JPG"), 0, "slide2"),
        (str(release / "slide2_b.jpg"), 0, "slide2"),
        (str(release / "slide3_a.png"), 1, "slide3"),
        (str(release / "slide4_a.png"), 0, "slide4"),
    ]
    write_manifest(data.records, tmp_path / "manifest.csv")
    read = load_manifest(tmp_path / "manifest.csv")
    assert [(r["image"], r["label"], r["split"]) for r in read] == [(r["image"], r["label"], r["split"]) for r in data.records]
    splits = {record["case_id"]: set() for record in data.records}
    for record in data.records:
        splits[record["case_id"]].add(record["split"])
    assert all(len(of_case) == 1 for of_case in splits.values())


def test_without_cases_it_says_so(release):
    (remark,) = adenoma_images(release).remarks
    assert remark == "images of one slide cannot be recognised and may be in several splits (give a case_pattern)"


def test_all_that_is_wrong_in_one_message(release):
    write_table(release, [*ROWS[:-1], ("slide9_a.png", 1)])
    write_flat(release / "slide3_a.png", 1, 640)
    (release / "slide2_b.jpg").write_bytes((release / "slide2_b.jpg").read_bytes()[:20])
    with pytest.raises(ValueError, match="allow_missing") as caught:
        adenoma_images(release)
    message = str(caught.value)
    assert f"1 images of {release / 'labels.csv'} not found: slide9_a.png" in message
    assert f"1 images without a label in {release / 'labels.csv'}: slide4_a.png" in message
    assert "2 images that cannot be used: slide2_b.jpg cannot be read" in message
    assert "slide3_a.png is 640 x 640 px, not 1280 x 1280" in message
    data = adenoma_images(release, allow_missing=True)
    assert [record["image"].rsplit("/", 1)[1] for record in data.records] == ["slide 1_a.png", "slide 1_b.PNG", "slide2_a.JPG"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("slide3_a.png", 1), ("slide3_a.png", 1)], r"labels\.csv, row 3: .*slide3_a\.png is already in row 2"),
        ([("slide3_a.png", 2)], r"labels\.csv, row 2: expected an image and 0 or 1, got slide3_a\.png,2"),
        ([("slide3_a.png",)], r"labels\.csv, row 2: expected an image and 0 or 1"),
        ([("", 1)], r"labels\.csv, row 2: expected an image and 0 or 1"),
    ],
)
def test_a_table_that_is_wrong(release, rows, message):
    write_table(release, rows)
    with pytest.raises(ValueError, match=message):
        adenoma_images(release, allow_missing=True)


def test_an_image_that_is_there_twice(release):
    write_flat(release / "more/slide3_a.png", 9)
    write_table(release, [("slide3_a.jpg", 1)])
    with pytest.raises(ValueError, match=r"row 2: slide3_a\.jpg exists twice, as .*more/slide3_a\.png and .*slide3_a\.png"):
        adenoma_images(release, allow_missing=True)


def test_finds_the_table(release, tmp_path):
    (release / "labels.csv").rename(tmp_path / "elsewhere.csv")
    with pytest.raises(ValueError, match="columns image_name, label, found no such table"):
        adenoma_images(release)
    assert len(adenoma_images(release, tmp_path / "elsewhere.csv").records) == 6
    for name in ("a.csv", "b.CSV"):
        (release / name).write_text("label,image_name\n1,slide3_a.png\n")
    with pytest.raises(ValueError, match=r"found 2 such tables: .*a\.csv, .*b\.CSV; name one"):
        adenoma_images(release)
    with pytest.raises(ValueError, match=r"notes\.csv is not a readable CSV file with the columns image_name, label"):
        adenoma_images(release, release / "notes.csv")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "is not a valid regular expression"), ("slide", "has no group"), ("(x)", "does not match the case_pattern")],
)
def test_patterns_that_are_wrong(release, pattern, message):
    with pytest.raises(ValueError, match=message):
        adenoma_images(release, case_pattern=pattern)
