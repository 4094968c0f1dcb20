"""A miniature of BACH as it is unpacked: what is read from it, what is missing, and what the masks show."""

import json
import shutil

import numpy as np
import pytest

from shared.data import BACH_CLASSES, bach_photos, bach_slides
from shared.data.public.bach_annotations import bach_class, imagescope_mpp, write_bach_annotations
from shared.wsi import MaskMeaning, open_slide, read_annotations, read_mask_region
from tests.data.bach_layout import write_bach


@pytest.fixture(scope="module")
def bach_folder(tmp_path_factory):
    return write_bach(tmp_path_factory.mktemp("bach"))


@pytest.fixture
def bach_copy(bach_folder, tmp_path):
    """One to damage."""
    return shutil.copytree(bach_folder, tmp_path / "challenge")


def test_photos_have_the_labels_of_the_table(bach_folder):
    records, remarks = bach_photos(bach_folder)
    assert [(record["image"].split("/")[-1], record["label"]) for record in records] == [
        ("n001.tif", 0),
        ("n002.tif", 0),
        ("b001.tif", 1),
        ("b002.tif", 1),
        ("is001.tif", 2),
        ("is002.tif", 2),
        ("iv001.tif", 3),
        ("iv002.tif", 3),
    ]
    assert {(record["mpp"], record["split"]) for record in records} == {(0.42, "train")}
    assert remarks[0] == "8 photos are not of 2048 x 1536 px: n001.tif, n002.tif, b001.tif, b002.tif, is001.tif and 3 more"
    assert remarks[1:] == [f"2 photos of {name}, 100 were published" for name in ("Normal", "Benign", "InSitu", "Invasive")]
    # The folder above will do, too.
    assert bach_photos(bach_folder.parent)[0] == records


def test_photos_that_are_missing(bach_copy):
    (bach_copy / "Photos/Normal/n002.tif").unlink()
    shutil.copy(bach_copy / "Photos/Benign/b001.tif", bach_copy / "Photos/Benign/b003.tif")
    (bach_copy / "Photos/Benign/._b001.tif").touch()
    with pytest.raises(ValueError, match=r"1 photos without a label in .*microscopy_ground_truth\.csv: b003\.tif"):
        bach_photos(bach_copy)
    records, remarks = bach_photos(bach_copy, allow_missing=True)
    assert len(records) == 7
    assert any("left out 1 photos without a label" in remark for remark in remarks)
    assert any("not found in" in remark and "n002.tif" in remark for remark in remarks)


def test_photos_without_the_table(bach_copy):
    (bach_copy / "Photos/microscopy_ground_truth.csv").unlink()
    records, remarks = bach_photos(bach_copy)
    assert [record["label"] for record in records] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert "labels are taken from the folders" in remarks[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("n001.tif,Benign", r"row 9: n001\.tif is Benign here and Normal above"),
        ("n009.tif,Tumour", r"row 9: expected a photo and one of Normal, Benign, InSitu, Invasive, got n009\.tif,Tumour"),
        ("n009.tif", "row 9: expected a photo and one of"),
    ],
)
def test_a_table_that_contradicts(bach_copy, line, message):
    table = bach_copy / "Photos/microscopy_ground_truth.csv"
    table.write_text(table.read_text() + line + "\n")
    with pytest.raises(ValueError, match=message):
        bach_photos(bach_copy)


def test_a_photo_in_another_folder(bach_copy):
    (bach_copy / "Photos/Normal/n001.tif").rename(bach_copy / "Photos/Benign/n001.tif")
    with pytest.raises(ValueError, match=r"Benign/n001\.tif is Normal in .*microscopy_ground_truth\.csv"):
        bach_photos(bach_copy)


@pytest.mark.parametrize("has_table", [True, False])
def test_a_photo_in_two_folders(bach_copy, has_table):
    shutil.copy(bach_copy / "Photos/Benign/b001.tif", bach_copy / "Photos/Normal/b001.tif")
    if not has_table:
        (bach_copy / "Photos/microscopy_ground_truth.csv").unlink()
    with pytest.raises(ValueError, match=r"Benign/b001\.tif exists twice, also as .*Normal/b001\.tif"):
        bach_photos(bach_copy)


def test_a_photo_that_is_none(bach_copy):
    (bach_copy / "Photos/Normal/n001.tif").write_bytes(b"II*")
    with pytest.raises(ValueError, match=r"n001\.tif"):
        bach_photos(bach_copy)


def test_no_challenge(tmp_path):
    with pytest.raises(ValueError, match="contains no folder 'Photos': give the unpacked ICIAR2018_BACH_Challenge"):
        bach_photos(tmp_path)
    (tmp_path / "Photos").mkdir()
    with pytest.raises(ValueError, match="contains no photos: expected Normal, Benign, InSitu, Invasive"):
        bach_photos(tmp_path)
    with pytest.raises(ValueError, match="contains no folder 'WSI'"):
        bach_slides(tmp_path, tmp_path)


def test_slides_and_their_splits(bach_folder, tmp_path):
    records, remarks = bach_slides(bach_folder, tmp_path / "annotations")
    assert [record["case_id"] for record in records] == [f"A{number:02}" for number in range(1, 11)]
    splits = {split: [r["case_id"] for r in records if r["split"] == split] for split in ("train", "val", "test")}
    assert splits == {"train": ["A01", "A02", "A03"], "val": ["A04"], "test": ["A05", "A06", "A07", "A08", "A09", "A10"]}
    assert {record["label"] for record in records} == {3}
    # A10 has no pixel size of its own, and its XML gives one; the others have it.
    assert [record["mpp"] for record in records] == [None] * 9 + [0.4671]
    assert remarks == ["1 slides without annotations left out (20 were published)"]
    assert bach_slides(bach_folder, tmp_path / "annotations", train=["A05"], val=["A04"])[0][4]["split"] == "train"


def test_masks_have_one_name_a_class(bach_folder, tmp_path):
    records, _ = bach_slides(bach_folder, tmp_path)
    for record in records:
        size = open_slide(record["image"], record["mpp"]).size_px
        mask = read_mask_region(record["mask"], (0, 0), size, size, meaning=MaskMeaning(num_classes=4, class_names=BACH_CLASSES))
        assert np.unique(mask).tolist() == [0, 1, 2, 3]
        # 96 x 96 of which a square of 32 x 32 is taken away.
        assert (mask == 1).sum() == 96 * 96 - 32 * 32
        assert (mask[64:160, 320:416] == 3).all()
    names = {a["properties"]["classification"]["name"] for a in json.loads((tmp_path / "A01.geojson").read_text())["features"]}
    assert names == {"benign", "in situ", "invasive"}


def test_slides_that_are_missing(bach_copy, tmp_path):
    (bach_copy / "WSI/A05.xml").unlink()
    (bach_copy / "WSI/A06.svs").unlink()
    with pytest.raises(ValueError, match=r"1 slides \(\.svs\) not found in .*WSI: A06"):
        bach_slides(bach_copy, tmp_path)
    records, remarks = bach_slides(bach_copy, tmp_path, allow_missing=True)
    assert len(records) == 8
    assert any("slides without .xml" in remark and "A05" in remark for remark in remarks)
    with pytest.raises(ValueError, match="A06 of the val slides are not among the annotated slides"):
        bach_slides(bach_copy, tmp_path, val=["A06"], allow_missing=True)


def test_splits_that_cannot_be(bach_folder, tmp_path):
    with pytest.raises(ValueError, match="A01 cannot be both training and validation slides"):
        bach_slides(bach_folder, tmp_path, val=["A01"])
    with pytest.raises(ValueError, match="01 of the train slides are not among the annotated slides"):
        bach_slides(bach_folder, tmp_path, train=["01"])


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("Normal", 0),
        ("Benign", 1),
        ("Carcinoma in situ", 2),
        ("In situ carcinoma", 2),
        ("in-situ", 2),
        ("Carcinoma  INVASIVE", 3),
    ],
)
def test_names_of_classes(name, index):
    assert bach_class(name) == index


@pytest.mark.parametrize("name", ["", "Tumour", "in situ and invasive"])
def test_names_of_no_class(name):
    with pytest.raises(ValueError, match="is not one of normal, benign, in situ, invasive"):
        bach_class(name)


def layers(*regions, mpp="0.467"):
    return f'<Annotations MicronsPerPixel="{mpp}"><Annotation><Regions>{"".join(regions)}</Regions></Annotation></Annotations>'


SQUARE = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in [(0, 0), (9, 0), (9, 9), (0, 9)])


def test_annotations_without_a_known_class(tmp_path):
    file = tmp_path / "A01.xml"
    file.write_text(layers(f'<Region Text="Tumour"><Vertices>{SQUARE}</Vertices></Region>'))
    with pytest.raises(ValueError, match=r"A01\.xml: annotation 1, region 1: the class 'Tumour' is not one of"):
        write_bach_annotations(file, tmp_path / "A01.geojson")
    file.write_text(layers())
    with pytest.raises(ValueError, match=r"A01\.xml contain no area of normal, benign, in situ, invasive"):
        write_bach_annotations(file, tmp_path / "A01.geojson")
    assert not (tmp_path / "A01.geojson").exists()


def test_what_is_drawn_later_stays_on_top(tmp_path):
    inner = SQUARE.replace("9", "5")
    regions = [f'<Region Text="{t}"><Vertices>{v}</Vertices></Region>' for t, v in (("benign", SQUARE), ("Normal", inner))]
    (tmp_path / "a.xml").write_text(layers(*regions))
    assert write_bach_annotations(tmp_path / "a.xml", tmp_path / "a.geojson") == [0, 1]
    assert [a.class_name for a in read_annotations(tmp_path / "a.geojson")] == ["benign", "normal"]
    mask = read_mask_region(
        tmp_path / "a.geojson", (0, 0), 9, (9, 9), meaning=MaskMeaning(num_classes=4, class_names=BACH_CLASSES)
    )
    assert (mask.sum(), mask[:5, :5].any()) == (81 - 25, False)


@pytest.mark.parametrize(("mpp", "expected"), [("0.467", 0.467), ("", None), ("0", None), ("inf", None)])
def test_pixel_size_of_annotations(tmp_path, mpp, expected):
    (tmp_path / "a.xml").write_text(layers(mpp=mpp))
    assert imagescope_mpp(tmp_path / "a.xml") == expected


def test_pixel_size_of_what_is_no_xml(tmp_path):
    (tmp_path / "a.xml").write_text("A01")
    with pytest.raises(ValueError, match=r"a\.xml cannot be read"):
        imagescope_mpp(tmp_path / "a.xml")
