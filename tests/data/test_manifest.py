import re
from pathlib import Path

import numpy as np
import pytest

from shared.data import RegionDataset, load_manifest, write_manifest
from shared.data.splits import SPLITS
from shared.synthetic import write_slide

GOOD = {"image": "a.png", "label": "0"}
# What a column was meant to be.
MISTYPED = {
    "splits": "split",
    "spli": "split",
    "case_ids": "case_id",
    "cae_id": "case_id",
    "cases": "case_id",
    "patients": "case_id",
    "areas": "area",
    "masks": "mask",
    "tumor_classes": "tumour_classes",
    "locations": "location",
}


def assert_refused(path, *words, **options):
    """The error names the file and says every word."""
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        load_manifest(path, **options)
    for word in words:
        assert word in str(error.value)


def test_a_record_is_complete_and_absolute(tmp_path, write_rows):
    path = write_rows([{"image": "a.png", "label": "1", "area": "0.25", "mask": "m.png", "case_id": "c", "split": "train"}])
    (record,) = load_manifest(path)
    assert record == {
        "image": str(tmp_path / "a.png"),
        "mask": str(tmp_path / "m.png"),
        "label": 1,
        "area": 0.25,
        "case_id": "c",
        "split": "train",
        "group": None,
        "location": None,
        "manifest": str(path),
        "row": 2,
        **dict.fromkeys(("x", "y", "width_um", "height_um", "width_px", "height_px", "mpp")),
        **dict.fromkeys(("tumour_classes", "annotation_frame")),
    }


def test_how_annotation_files_are_read_is_said_by_the_row_or_for_all(tmp_path, write_rows):
    rows = [
        {"image": "a.png", "label": "1", "mask": "a.geojson", "tumour_classes": "Tumor | DCIS", "annotation_frame": "level0"},
        {"image": "b.png", "label": "1", "mask": "b.json.gz"},
        {"image": "c.png", "label": "1", "mask": "c.png"},
        {"image": "d.png", "label": "0"},
    ]
    path = write_rows(rows)
    records = load_manifest(path, check_files=False, tumour_classes=["Carcinoma", ""], annotation_frame="qupath")
    read = [(record["tumour_classes"], record["annotation_frame"]) for record in records]
    assert read == [("Tumor | DCIS", "level0"), ("Carcinoma|Unclassified", "qupath"), (None, None), (None, None)]
    write_manifest(records, tmp_path / "again.csv")
    again = load_manifest(tmp_path / "again.csv", check_files=False)
    assert [(record["tumour_classes"], record["annotation_frame"]) for record in again] == read
    assert load_manifest(path, check_files=False, tumour_classes="Tumor | DCIS")[1]["tumour_classes"] == "Tumor|DCIS"
    for classes in ([], [1], 3):
        with pytest.raises(ValueError, match="tumour_classes must be one name at least"):
            load_manifest(path, tumour_classes=classes)
    wrong = write_rows([{"image": "a.png", "label": "1", "mask": "a.png", "annotation_frame": "QuPath"}])
    assert_refused(wrong, "row 2", "one of qupath, level0, got 'QuPath'")


def test_files_can_be_left_to_whoever_opens_them(tmp_path, write_rows):
    path = write_rows([{"image": "missing.svs", "label": "1", "mask": "missing.png"}])
    (record,) = load_manifest(path, check_files=False)
    assert (record["image"], record["mask"]) == (str(tmp_path / "missing.svs"), str(tmp_path / "missing.png"))
    assert_refused(path, "image 'missing.svs' is not a file")


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"image": "missing.jpg"}, ["image 'missing.jpg' is not a file", "relative to the CSV"]),
        ({"image": ""}, ["the image is empty"]),
        ({"mask": "missing.tif"}, ["mask 'missing.tif' is not a file"]),
        ({"label": "2"}, ["label must be one of 0..1", "got 2", "1 is tumour"]),
        ({"label": "-1"}, ["label must be one of 0..1", "got -1"]),
        ({"label": "0.5"}, ["label must be one of 0..1", "got 0.5"]),
        ({"label": "tumour"}, ["label must be a number", "'tumour'"]),
        ({"label": "nan"}, ["label must be a finite number", "'nan'"]),
        ({"label": ""}, ["the column 'label' is empty"]),
        ({"area": "1.5"}, ["area must be a share between 0 and 1", "1.5"]),
        ({"area": "-0.1"}, ["area must be a share between 0 and 1"]),
        ({"mpp": "0"}, ["mpp", "above 0"]),
        ({"mpp": "0.00025"}, ["mpp must be a number of micrometres per pixel", "0.01 to 100", "got 0.00025"]),
        ({"mpp": "250"}, ["mpp must be a number of micrometres per pixel", "0.01 to 100", "got 250"]),
        ({"x": "3"}, ["needs x, y and its size"]),
        ({"x": "3", "y": "4"}, ["needs x, y and its size"]),
        ({"width_px": "4", "height_px": "4"}, ["needs x, y and its size"]),
        ({"width_um": "4", "height_um": "4"}, ["needs x, y and its size"]),
        ({"x": "0", "y": "0", "width_px": "4"}, ["width_px and height_px must both be given"]),
        (
            {"x": "0", "y": "0", "mpp": "1", **dict.fromkeys(("width_um", "height_um", "width_px", "height_px"), "4")},
            ["width_px, height_px or by width_um, height_um, not by both"],
        ),
        ({"x": "0", "y": "0", "width_um": "4", "height_um": "-4"}, ["width_um and height_um", "above 0"]),
        ({"x": "0", "y": "0", "width_px": "0.2", "height_px": "4"}, ["smaller than a pixel"]),
        ({"x": "0", "y": "inf", "width_px": "4", "height_px": "4"}, ["y must be a finite number"]),
        ({"x": "0", "y": "0", "width_um": "4", "height_um": "4"}, ["does not state its pixel size"]),
    ],
)
def test_an_error_names_file_and_row(write_rows, cells, words):
    path = write_rows([GOOD, {"image": "b.png", "label": "1", **cells}])
    assert_refused(path, "row 3", *words)


def test_more_classes_where_they_are_asked_for(write_rows):
    path = write_rows([GOOD, {"image": "b.png", "label": "3"}])
    assert [record["label"] for record in load_manifest(path, num_classes=4)] == [0, 3]
    assert_refused(path, "row 3", "0..2", num_classes=3)


def test_only_what_is_required_must_be_there(write_rows):
    path = write_rows([{"image": "a.png"}, {"image": "b.png", "area": "0.5"}])
    assert [record["label"] for record in load_manifest(path, require=())] == [None, None]
    assert_refused(path, "row 2", "'area' is empty", require=("area",))


def test_images_that_score_a_run_may_do_without_masks_and_the_error_says_how(write_rows):
    path = write_rows([{"image": f"{name}.png", "label": "1", "split": split} for name, split in zip("abc", SPLITS, strict=True)])
    for split in ("val", "test"):
        assert_refused(path, f"of the split {split!r}", "--truth '$None'", split=split, require=("label", "mask"))
    with pytest.raises(ValueError, match="of the split 'train'") as learned:
        load_manifest(path, "train", require=("mask",))
    assert "--truth" not in str(learned.value)


def test_groups_are_any_words_and_written_again(tmp_path, write_rows):
    groups = ["in_distribution", None, "2"]
    path = write_rows([{"image": f"{index}.png", "label": "0", "group": group or ""} for index, group in enumerate(groups)])
    records = load_manifest(path)
    assert [record["group"] for record in records] == groups
    write_manifest(records, tmp_path / "again.csv")
    assert [record["group"] for record in load_manifest(tmp_path / "again.csv")] == groups


@pytest.mark.parametrize("splits", [("", ""), ("train", "train"), ("train", "test")])
def test_an_image_stands_once(write_rows, splits):
    rows = [{"image": "a.png", "label": "0", "split": splits[0]}, {"image": "a.png", "label": "0", "split": splits[1]}]
    assert_refused(write_rows(rows), "row 3", "a.png is already in row 2", "" if splits[0] == splits[1] else "(split train)")


def test_regions_of_one_image_are_no_duplicates(write_rows):
    region = {"y": "0", "width_px": "4", "height_px": "4"}
    path = write_rows([{**GOOD, "x": "0", **region}, {**GOOD, "x": "4", **region}])
    assert [record["x"] for record in load_manifest(path)] == [0, 4]
    assert_refused(write_rows([{**GOOD, "x": "0", **region}, {**GOOD, "x": "0.2", **region}]), "row 3", "already in row 2")


def test_region_in_micrometres_of_a_file_with_mpp(tmp_path, write_rows):
    write_slide(tmp_path / "slide.tif", np.zeros((64, 64, 3), np.uint8), mpp=0.25)
    region = {"label": "0", "x": "8", "y": "16", "width_um": "4", "height_um": "2"}
    (record,) = load_manifest(write_rows([{"image": "slide.tif", **region}]))
    assert [record[name] for name in ("x", "y", "width_px", "height_px")] == [8, 16, 16, 8]
    assert record["width_um"] is None
    # The manifest's own mpp goes before the file's.
    (record,) = load_manifest(write_rows([{"image": "slide.tif", **region, "mpp": "0.5"}]))
    assert [record[name] for name in ("width_px", "height_px", "mpp")] == [8, 4, 0.5]


@pytest.mark.parametrize("header", ["image,label", "image_name,label"])
def test_the_csv_of_camels_authors(tmp_path, write_image, header):
    write_image("1"), write_image("2")
    path = tmp_path / "labels.csv"
    path.write_text(f"{header}\n1.png,0\n2.png,1\n")
    assert [(Path(r["image"]).name, r["label"]) for r in load_manifest(path)] == [("1.png", 0), ("2.png", 1)]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfimage,label\r\na.png,1\r\n",
        b" image , label\n a.png , 1 \n",
        b'"image","label"\n"a.png","1"\n',
        b"image,label,\na.png,1,\n",
        b"image,label\na.png,1\n,\n",
        b"image,label\na.png,1",
    ],
    ids=["byte order mark", "spaces", "quotes", "closing commas", "row of commas", "no last line break"],
)
def test_what_spreadsheets_write(tmp_path, write_image, content):
    write_image("a")
    (tmp_path / "m.csv").write_bytes(content)
    (record,) = load_manifest(tmp_path / "m.csv")
    assert (Path(record["image"]).name, record["label"], record["row"]) == ("a.png", 1, 2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["is empty"]),
        ("\n\n", ["is empty"]),
        ("image,label\n", ["a header but no rows"]),
        ("file,label\na.png,0\n", ["no column 'image'", "file, label"]),
        (
            "image;label\na.png;0\n",
            ["no column 'image'", "image;label", "separated by semicolons: save it as a CSV file with commas"],
        ),
        ("\xef\xbb\xbfimage;area\na.png;0,5\n", ["separated by semicolons: save it"]),
        ('"image";"label"\n"a.png";"0"\n', ["separated by semicolons: save it"]),
        ("image\tlabel\na.png\t0\n", ["separated by tabs: save it as a CSV file with commas"]),
        ("Image,label\na.png,0\n", ["a column 'Image' and no column 'image'", "was image meant"]),
        ("image,label,spilt\na.png,0,test\n", ["a column 'spilt' and no column 'split'", "was split meant"]),
        *((f"image,label,{name}\na.png,0,1\n", [f"was {meant} meant"]) for name, meant in MISTYPED.items()),
        ("image,label,Patient ID\na.png,0,7\n", ["a column 'Patient ID' and no column 'case_id'", "was case_id meant"]),
        ("image,label,subset\na.png,0,test\n", ["a column 'subset' and no column 'split'", "was split meant"]),
        ("image,label,Case ID\na.png,0,a\n", ["was case_id meant"]),
        ("image,label,label\na.png,0,1\n", ["2 columns 'label'"]),
        ("image,label\na.png,0,1\n", ["row 2", "3 cells under a header of 2"]),
        ('image,label\n"a.png,0\n', ["not a readable CSV"]),
        ("image,label\nx\xe4.png,0\n", ["not a readable CSV", "UTF-8"]),
    ],
)
def test_broken_files(tmp_path, write_image, content, words):
    write_image("a")
    (tmp_path / "m.csv").write_bytes(content.encode("latin-1"))
    assert_refused(tmp_path / "m.csv", *words)


def test_a_missing_file(tmp_path):
    assert_refused(tmp_path / "m.csv", "does not exist")


def test_a_short_row_leaves_the_rest_empty(tmp_path, write_image):
    write_image("a")
    (tmp_path / "m.csv").write_text("image,label,case_id\na.png,1\n")
    assert load_manifest(tmp_path / "m.csv")[0]["case_id"] is None


def test_row_numbers_are_those_of_the_file(tmp_path, write_image):
    write_image("a"), write_image("b"), write_image("c")
    lines = ["image,note,label", "a.png,,0", "", 'b.png,"two', 'lines",1', ",,", "c.png,,1"]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    assert [record["row"] for record in load_manifest(tmp_path / "m.csv")] == [2, 4, 7]


def test_relative_and_absolute_paths(tmp_path, write_image):
    image = write_image("a")
    (tmp_path / "lists").mkdir()
    for name in ("../a.png", str(image)):
        (tmp_path / "lists/m.csv").write_text(f"image,label\n{name},1\n")
        assert load_manifest(tmp_path / "lists/m.csv")[0]["image"] == str(image)


def test_a_link_keeps_its_name(tmp_path, write_image):
    """Stores such as git-annex link to files whose names have no ending, by which formats are distinguished."""
    write_image("a").rename(tmp_path / "sha256-1f2e")
    (tmp_path / "a.png").symlink_to(tmp_path / "sha256-1f2e")
    (tmp_path / "m.csv").write_text("image,label\na.png,1\n")
    assert load_manifest(tmp_path / "m.csv")[0]["image"] == str(tmp_path / "a.png")


def test_round_trip(tmp_path, write_rows):
    region = {"x": "1", "y": "2", "width_px": "3", "height_px": "4"}
    rows = [
        {"image": "a.png", "label": "0", "mask": "m.png", "area": "0.1", "case_id": "k,1", "split": "train", "mpp": "0.2525"},
        {"image": "b.png", "label": "1", **region, "case_id": 'say "b"', "split": "val"},
        {"image": "ü.png", "label": "", "split": "test"},
    ]
    records = load_manifest(write_rows(rows), require=())
    (tmp_path / "other").mkdir()
    write_manifest(records, tmp_path / "other/copy.csv", extra_columns=["criterion"])
    copied = load_manifest(tmp_path / "other/copy.csv", require=())
    assert copied == [{**record, "manifest": str(tmp_path / "other/copy.csv")} for record in records]
    header = (tmp_path / "other/copy.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "image,x,y,width_px,height_px,mpp,label,area,mask,case_id,split,criterion"
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["copy.csv"]


def test_tiles_of_a_known_magnification_are_read_coarser(tmp_path, write_rows, write_image):
    """Only plain images without a size of their own: a row's mpp counts, and a slide is asked itself."""
    write_image("a", size_px=(16, 12))
    write_image("b", size_px=(16, 12))
    write_slide(tmp_path / "slide.tif", np.full((64, 64, 3), 200, np.uint8))
    rows = [
        {"image": "a.png", "label": "0"},
        {"image": "b.png", "label": "0", "mpp": "0.5"},
        {"image": "slide.tif", "label": "1"},
    ]
    records = load_manifest(write_rows(rows), tile_mpp=0.25)
    assert [record["mpp"] for record in records] == [0.25, 0.5, None]
    dataset = RegionDataset(records, mpp=1.0)
    assert [tuple(dataset[index]["image"].shape[1:]) for index in (0, 1)] == [(3, 4), (6, 8)]
