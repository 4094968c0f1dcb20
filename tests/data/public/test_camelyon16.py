"""CAMELYON16 as published: every slide with its label and its annotations, and what is wrong named at once."""

import copy
import logging
import shutil
import textwrap
from collections import Counter

import numpy as np
import pytest
import shapely
import tifffile

from shared.data import TissueCache, load_manifest, write_manifest
from shared.data.public.camelyon16 import PARTLY_ANNOTATED, camelyon16_slides
from shared.data.public.camelyon16_regions import assign_camelyon16_splits, balanced_regions, camelyon16_regions
from shared.data.record_masks import read_record_mask
from shared.wsi import read_annotations, read_mask_region
from tests.data.camelyon16_layout import HOLE, LESION, SLIDE_SIZE_PX, asap, corners, write_camelyon16
from tests.data.sparse_slide import write_sparse_slide

# As published: without normal_086 and test_049.
NAMES = [
    *(f"normal_{number:03}" for number in range(1, 161) if number != 86),
    *(f"tumor_{number:03}" for number in range(1, 112)),
    *(f"test_{number:03}" for number in range(1, 131) if number != 49),
]
TEST_TUMOUR = [f"test_{number:03}" for number in (*range(1, 49), 114)]
FEW = ["normal_001", "normal_002", "tumor_001", "tumor_010", "test_001", "test_002"]
# 159 + 111 + 128 are wanted.
MISSING = "392 slides not found: normal_003, normal_004, normal_005, normal_006, normal_007 and 387 more"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All 399 slides, in a folder with a blank in its name."""
    return write_camelyon16(tmp_path_factory.mktemp("camelyon") / "CAMELYON 16", NAMES, TEST_TUMOUR)


@pytest.fixture(scope="module")
def published(whole):
    return camelyon16_slides(whole)


@pytest.fixture
def slides(published):
    return copy.deepcopy(published.records)


@pytest.fixture
def few(tmp_path):
    return write_camelyon16(tmp_path / "CAMELYON16", FEW, ["test_001"])


def problems_of(root, **options):
    with pytest.raises(ValueError, match="cannot be used") as caught:
        camelyon16_slides(root, **options)
    return str(caught.value)


def test_the_published_data_set(whole, published):
    data = published
    assert data.lines() == [
        "note: left out test_114: not all of its tumour is annotated",
        "training, normal: 159 images (159 were published)",
        "training, tumour: 111 images (111 were published)",
        "testing, normal: 80 images (80 were published)",
        "testing, tumour: 49 images (49 were published)",
    ]
    expected = [
        {
            "image": str(whole / folder / f"{name}.tif"),
            "mpp": None,
            "label": int(has_tumour),
            "mask": str(whole / part / "lesion_annotations" / f"{name}.xml") if has_tumour else None,
            **({"tumour_classes": "_0"} if has_tumour else {}),
            "case_id": name,
            "split": "test" if part == "testing" else "train",
        }
        for name in sorted(NAMES)
        if name != "test_114"
        for part in ["testing" if name.startswith("test") else "training"]
        for folder in ["testing/images" if part == "testing" else f"training/{name.split('_')[0]}"]
        for has_tumour in [name.startswith("tumor") or name in TEST_TUMOUR]
    ]
    assert data.records == expected
    assert Counter(record["split"] for record in data.records) == {"train": 270, "test": 128}


def test_a_part_of_it(few):
    assert MISSING in problems_of(few)
    data = camelyon16_slides(few, allow_missing=True)
    assert [record["case_id"] for record in data.records] == sorted(FEW)
    assert data.remarks == [
        "left out 392 slides not found: normal_003, normal_004, normal_005, normal_006, normal_007 and 387 more"
    ]


def test_upper_case_and_the_mirrors_layout(tmp_path):
    root = write_camelyon16(tmp_path / "data", FEW, ["test_001"])
    for folder in ("images", "annotations", "masks", "background_tissue"):
        (root / folder).mkdir()
    for path in sorted(root.rglob("*.tif")):
        (root / "masks" / path.name).hardlink_to(path)
        (root / "background_tissue" / path.name).hardlink_to(path)
        path.rename(root / "images" / path.name.capitalize().replace(".tif", ".TIF"))
    for path in sorted(root.rglob("*.xml")):
        path.rename(root / "annotations" / path.name.replace(".xml", ".XML"))
    (root / "testing/reference.csv").write_text("NAME,LABEL\nTest_001.tif,Tumor\nTest_002.tif,Normal\n")
    (root / "testing/reference.csv").rename(root / "Reference.csv")
    records = camelyon16_slides(root, allow_missing=True).records
    assert [(record["case_id"], record["label"]) for record in records] == [
        ("normal_001", 0),
        ("normal_002", 0),
        ("test_001", 1),
        ("test_002", 0),
        ("tumor_001", 1),
        ("tumor_010", 1),
    ]
    assert records[2]["image"] == str(root / "images" / "Test_001.TIF")
    assert records[2]["mask"] == str(root / "annotations" / "test_001.XML")


def test_all_that_is_wrong_in_one_message(few):
    """Missing and empty annotations, annotations of another slide, a cut-off slide, a contradiction, a slide without label."""
    annotations = few / "training/lesion_annotations"
    (annotations / "tumor_001.xml").unlink()
    (annotations / "tumor_010.xml").write_text(asap([("_2", corners(HOLE))]))
    for number, text in ((11, asap([("_0", corners((900, 900, 950, 950)))])), (12, asap([])[:60])):
        (few / f"training/tumor/tumor_{number:03}.tif").hardlink_to(few / "training/tumor/tumor_001.tif")
        (annotations / f"tumor_{number:03}.xml").write_text(text)
    (few / "training/normal/normal_003.tif").write_bytes((few / "training/tumor/tumor_001.tif").read_bytes()[:1000])
    (few / "testing/images/test_003.tif").hardlink_to(few / "training/tumor/tumor_001.tif")
    (few / "testing/lesion_annotations/test_002.xml").write_text(asap([("_0", corners(LESION))]))
    message = problems_of(few)
    assert "388 slides not found" in message
    assert "1 slides with tumour without annotations (.xml): tumor_001" in message
    assert f"1 test slides without a label in {few / 'testing/reference.csv'}: test_003" in message
    assert "1 test slides that are Normal in" in message
    assert "have tumour in their annotations: test_002" in message
    assert "4 slides that cannot be used: " in message
    for part in ("normal_003.tif", "no tumour is drawn in", "tumor_011.xml lie outside the image", "tumor_012.xml are damaged"):
        assert part in message
    data = camelyon16_slides(few, allow_missing=True)
    assert [record["case_id"] for record in data.records] == ["normal_001", "normal_002", "test_001"]


def test_without_the_table(few):
    (few / "testing/reference.csv").unlink()
    assert "1 file not found, so the annotated test slides are taken as those with tumour: testing/reference.csv" in problems_of(
        few
    )
    records = camelyon16_slides(few, allow_missing=True).records
    assert {record["case_id"]: record["label"] for record in records if record["split"] == "test"} == {
        "test_001": 1,
        "test_002": 0,
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("test_001,Tumor\ntest_002,Normal\ntest_001,Normal\n", r"reference\.csv, row 3: test_001 is already in row 1"),
        ("test_001,Tumor\ntest_002,Macro\n", r"reference\.csv, row 2: expected a slide and Tumor or Normal, got test_002,Macro"),
        ("test_001,Tumor\ntest_002\n", r"reference\.csv, row 2: expected a slide and Tumor or Normal, got test_002"),
    ],
)
def test_a_table_that_is_wrong(few, rows, message):
    (few / "testing/reference.csv").write_text(rows)
    with pytest.raises(ValueError, match=message):
        camelyon16_slides(few, allow_missing=True)


def test_a_slide_that_is_there_twice(few):
    (few / "copy").mkdir()
    (few / "copy/Normal_001.tif").hardlink_to(few / "training/normal/normal_001.tif")
    with pytest.raises(ValueError, match=r"1 files exist twice.*copy/Normal_001\.tif and .*normal/normal_001\.tif"):
        camelyon16_slides(few, allow_missing=True)


def test_early_copies_have_slides_that_were_taken_back(few):
    (few / "training/normal/normal_086.tif").hardlink_to(few / "training/normal/normal_001.tif")
    (few / "testing/images/test_049.tif").hardlink_to(few / "training/normal/normal_001.tif")
    (few / "testing/reference.csv").write_text("test_001,Tumor\ntest_002,Normal\ntest_049,Normal\n")
    data = camelyon16_slides(few, allow_missing=True)
    assert [record["case_id"] for record in data.records] == sorted(FEW)
    assert data.remarks[:2] == [
        "left out normal_086: mislabelled, published again as tumor_111",
        "left out test_049: a copy of another slide",
    ]
    assert data.found == {"training, normal": 2, "training, tumour": 2, "testing, normal": 1, "testing, tumour": 1}


def test_slides_without_a_pixel_size(few):
    path = few / "training/normal/normal_001.tif"
    path.unlink()
    write_without_mpp(path)
    assert f"1 slides that cannot be used: {path} does not state its pixel size: give slide_mpp" in problems_of(few)
    records = camelyon16_slides(few, allow_missing=True, slide_mpp=0.243).records
    assert [record["mpp"] for record in records] == [0.243, None, None, None, None, None]


def write_without_mpp(path):
    tifffile.imwrite(path, np.full((256, 256, 3), 200, np.uint8), photometric="rgb", tile=(128, 128))


def test_areas_of_other_groups_are_said(few):
    xml = few / "training/lesion_annotations/tumor_001.xml"
    xml.write_text(asap([("Tumor", corners(LESION)), ("Exclusion", corners(HOLE))]))
    data = camelyon16_slides(few, allow_missing=True)
    assert data.remarks[-1] == "areas of group 'Tumor' count as tumour: tumor_001"


def test_groups_of_tumour_are_one_class_and_what_is_below_an_exclusion_is_none(few, tmp_path):
    xml = few / "training/lesion_annotations/tumor_001.xml"
    parts = (LESION, (10, 10, 30, 30), HOLE, (12, 12, 14, 14))
    text = asap(list(zip(("_0", "_1", "_2", "blood"), map(corners, parts), strict=True)))
    xml.write_text(text.replace("</ASAP", '<AnnotationGroups><Group Name="blood" PartOfGroup="_2"/></AnnotationGroups></ASAP'))
    data = camelyon16_slides(few, allow_missing=True)
    (record,) = (record for record in data.records if record["case_id"] == "tumor_001")
    assert record["tumour_classes"] == "_0|_1"
    assert not any("count as tumour" in remark for remark in data.remarks)
    write_manifest([record], tmp_path / "slides.csv")
    (again,) = load_manifest(tmp_path / "slides.csv")
    mask = read_record_mask(again, (0, 0), 64, SLIDE_SIZE_PX)
    assert mask[10:30, 10:30].sum() == 20 * 20 - 2 * 2


def test_an_annotation_outside_the_slide_beside_others(few, caplog):
    xml = few / "training/lesion_annotations/tumor_001.xml"
    xml.write_text(asap([("_0", corners(LESION)), ("_1", corners((5000, 5000, 5100, 5100)))]))
    with caplog.at_level(logging.WARNING):
        records = camelyon16_slides(few, allow_missing=True).records
    assert "tumor_001" in {record["case_id"] for record in records}
    assert "tumor_001.xml lie outside the image of 768 x 512 px" in caplog.text


def test_the_papers_split(slides):
    again = copy.deepcopy(slides)
    official = {slide["case_id"]: slide["split"] for slide in slides}
    assign_camelyon16_splits(slides, "paper", val_share=0)
    counts = Counter((slide["split"], slide["label"]) for slide in slides)
    # 240 = 110 + 130 in the paper, before normal_086 became tumor_111; 160 = 49 + 111 with test_049 and test_114.
    assert counts == {("train", 1): 111, ("train", 0): 129, ("test", 1): 48, ("test", 0): 110}
    moved = {slide["case_id"] for slide in slides if slide["split"] != official[slide["case_id"]]}
    assert len(moved) == 30
    assert all(name.startswith("normal_") for name in moved)

    assign_camelyon16_splits(again, "paper", val_share=0.1)
    counts = Counter((slide["split"], slide["label"]) for slide in again)
    assert counts == {("train", 1): 100, ("val", 1): 11, ("train", 0): 116, ("val", 0): 13, ("test", 1): 48, ("test", 0): 110}
    assert {slide["case_id"] for slide in again if slide["split"] == "test"} == {
        slide["case_id"] for slide in slides if slide["split"] == "test"
    }
    other = [dict(slide, split=official[slide["case_id"]]) for slide in again]
    assign_camelyon16_splits(other, "paper", seed=1)
    assert [slide["split"] for slide in other] != [slide["split"] for slide in again]


def test_the_official_split(slides):
    assign_camelyon16_splits(slides, "official", val_share=0.2)
    counts = Counter((slide["split"], slide["label"]) for slide in slides)
    assert counts == {("train", 1): 89, ("val", 1): 22, ("train", 0): 127, ("val", 0): 32, ("test", 1): 48, ("test", 0): 80}


@pytest.mark.parametrize(("reading", "share"), [("mine", 0.1), ("paper", 1.0), ("paper", -0.1)])
def test_refuses_other_splits(reading, share):
    with pytest.raises(ValueError, match=f"got '{reading}' and {share}"):
        assign_camelyon16_splits([], reading, share)


def test_regions(few):
    slides = camelyon16_slides(few, allow_missing=True).records
    regions = camelyon16_regions(slides, size_px=64, mpp=0.5)
    # 128 level-0 px; tissue fills 5 of 6 columns and all 4 rows.
    assert Counter(region["case_id"] for region in regions) == {
        "normal_001": 20,
        "normal_002": 20,
        "tumor_001": 20,
        "tumor_010": 4,
        "test_001": 20,
        "test_002": 20,
    }
    tumour = [region for region in regions if region["case_id"] == "tumor_010"]
    assert "tumor_010" in PARTLY_ANNOTATED
    # The lesion is 64 px of 128 in each of four regions; a hole of 16 x 16 pixels at 0.5 um lies in the first.
    assert [(r["x"], r["y"], r["width_px"], r["label"], r["area"]) for r in tumour] == [
        (0, 0, 128, 1, round((32 * 32 - 16 * 16) / 64**2, 4)),
        (128, 0, 128, 1, 0.25),
        (0, 128, 128, 1, 0.25),
        (128, 128, 128, 1, 0.25),
    ]
    unsure = camelyon16_regions(slides, size_px=64, mpp=0.5, keep_unsure=True)
    assert len(unsure) == len(regions) + 16


def test_as_many_normal_regions_as_there_are_with_tumour():
    regions = [
        {"split": split, "label": label, "x": x}
        for split in ("train", "val", "test")
        for label, count in ((0, 9), (1, 4))
        for x in range(count)
    ]
    chosen = balanced_regions(regions, seed=3)
    counts = Counter((region["split"], region["label"]) for region in chosen)
    assert counts == {("train", 0): 9, ("train", 1): 4, ("val", 0): 4, ("val", 1): 4, ("test", 0): 4, ("test", 1): 4}
    order = [regions.index(region) for region in chosen]
    assert order == sorted(order)
    assert chosen == balanced_regions(regions, seed=3) != balanced_regions(regions, seed=4)
    without = [region for region in regions if region["split"] != "test" or region["label"] == 0]
    assert sum(region["split"] == "test" for region in balanced_regions(without)) == 9


def test_outlines_that_cross_themselves_and_holes(few):
    """A figure of eight has both lobes; what ``_2`` encloses is none."""
    xml = few / "training/lesion_annotations/tumor_001.xml"
    xml.write_text(asap([("_0", [(0, 0), (128, 128), (128, 0), (0, 128)]), ("_2", corners((0, 0, 32, 128)))]))
    assert camelyon16_slides(few, allow_missing=True).records[4]["mask"] == str(xml)
    mask = read_mask_region(xml, (0, 0), 128, SLIDE_SIZE_PX)
    columns = np.arange(128)
    # Each column of the two triangles between the diagonals.
    expected = np.where(columns < 32, 0, np.abs(128 - 2 * columns - 1))
    np.testing.assert_allclose(mask.sum(axis=0), expected, atol=1)


# Their slides are about 98 000 x 220 000 px large.
@pytest.mark.parametrize("name", ["tumor_001", "tumor_002", "tumor_010"])
def test_real_annotations(name, wsi_test_data, tmp_path):
    """The regions of a slide of real size add up to what is annotated on it."""
    (tmp_path / "training/tumor").mkdir(parents=True)
    shutil.copy(wsi_test_data / f"annotations/{name}.xml", tmp_path / f"training/{name}.xml")
    polygons = [area.polygon for area in read_annotations(tmp_path / f"training/{name}.xml")]
    lesions = shapely.union_all(polygons)
    # A region with a lesion is tissue throughout.
    tissue = [polygon.buffer(2560, cap_style="square").bounds for polygon in polygons]
    write_sparse_slide(tmp_path / f"training/tumor/{name}.tif", (98_304, 221_184), tissue)
    slides = camelyon16_slides(tmp_path, allow_missing=True).records
    regions = camelyon16_regions(slides, size_px=1280, mpp=0.5, tissue=TissueCache(tmp_path / "tissue", 32.0))
    tumour = [region for region in regions if region["label"]]
    squares = [shapely.box(r["x"], r["y"], r["x"] + 2560, r["y"] + 2560) for r in tumour]
    for region, square in zip(tumour, squares, strict=True):
        assert region["area"] == pytest.approx(lesions.intersection(square).area / 2560**2, abs=1e-3)
    assert shapely.union_all(squares).intersection(lesions).area == pytest.approx(lesions.area)
    # Not all of tumor_010 is annotated.
    assert (len(regions) > len(tumour)) == (name != "tumor_010")


def test_memory_does_not_grow_with_the_slide(run_python, tmp_path):
    """Its mask would have 5 GB at the regions' pixel size and 20 GB at level 0."""
    sizes = {"normal_001": (8192, 16_384), "tumor_001": (8192, 16_384), "tumor_002": (102_400, 204_800)}
    for name, (width, height) in sizes.items():
        # 3 x 3 regions.
        left, top = (0, 0) if width < 9000 else (25_600, 51_200)
        write_sparse_slide(tmp_path / f"{name}.tif", (width, height), [(left, top, left + 7680, top + 7680)])
        outline = [(left + 3000 + 2500 * np.cos(angle), top + 3000 + 2500 * np.sin(angle)) for angle in np.arange(0, 6.28, 1e-4)]
        (tmp_path / f"{name}.xml").write_text(
            asap([("_0", outline), ("_2", corners((left + 2900, top, left + 3100, top + 6000)))])
        )
    script = f"""
        import resource
        from shared.data import RegionDataset, TissueCache
        from shared.data.public.camelyon16 import camelyon16_slides
        from shared.data.public.camelyon16_regions import camelyon16_regions

        slides = camelyon16_slides({str(tmp_path)!r}, allow_missing=True).records
        for slide in (slides[1], slides[1], slides[2]):
            regions = camelyon16_regions([slide], 1280, 0.5, tissue=TissueCache({str(tmp_path)!r}, 32.0))
            tumour = [region for region in regions if region["label"]]
            items = list(RegionDataset(tumour, 1280, 0.5, pixel_labels="mask"))
            print(len(tumour), sum(int(item["mask"].sum()) for item in items))
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    """
    finished = run_python("-c", textwrap.dedent(script))
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.split()
    # A disc of radius 2500 px less a stripe of 200 px through its middle, at half the size.
    assert [int(count) for count in lines[1::3]] == pytest.approx([(np.pi * 2500**2 - 200 * 5000) / 4] * 3, rel=0.01)
    small_mb, large_mb = (float(megabytes) for megabytes in lines[5::3])
    print(f"{small_mb:.0f} MB, then {large_mb:.0f} MB")
    assert large_mb - small_mb < 128
