"""Slides with annotations exported from QuPath: labels, masks of the right classes, and what does not fit together."""

import gzip
import json
import logging
import unicodedata
import zipfile

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image

from shared.data import load_manifest, pixel_target, write_manifest
from shared.data.own.annotated_slides import annotated_slides
from shared.synthetic import write_slide
from shared.wsi import MaskMeaning, read_annotations, read_mask_region
from tests.data.camelyon16_layout import asap, corners
from tests.data.qupath_layout import collection, feature, project, square, write
from tests.data.sparse_slide import write_sparse_slide
from tests.wsi.scn_slide import write_scn

SIZE_PX = (300, 200)
# A ring: 40 px less a hole of 20; a figure of eight: two triangles of 20 px.
RING, RING_AREA = [square(20, 20, 40), square(30, 30, 20)], 40**2 - 20**2
EIGHT, EIGHT_AREA = [[(100, 20), (140, 60), (140, 20), (100, 60)]], 2 * 20 * 40 // 2


@pytest.fixture
def slides(tmp_path):
    """Blanks in names, upper-case endings, a folder: each with annotations by another of its names."""
    folder = tmp_path / "my slides"
    (folder / "more").mkdir(parents=True)
    for index, name in enumerate(["p1 a.tif", "more/p2 b.TIF", "p3.ome.tif", "p4.tif"]):
        write_slide(folder / name, np.full((SIZE_PX[1], SIZE_PX[0], 3), 200 + index, np.uint8), mpp=0.5)
    exported = tmp_path / "exported"
    write(exported / "p1 a.tif.geojson", collection(feature(RING, "Tumor"), feature(EIGHT, "Tumor")))
    write(exported / "P2 b.GEOJSON", collection(feature([square(0, 0, 50)], "Tumor"), feature([square(250, 150, 99)], "Tumor")))
    write(exported / "p3.json", collection(feature([square(5, 5, 2)], "Tumor", "cell")))
    write(exported / "p4.xml", asap([("Tumor", corners((10, 10, 30, 20)))]))
    return folder


def mask_of(record, size_px=SIZE_PX, **options):
    return read_mask_region(record["mask"], (0, 0), size_px, SIZE_PX, meaning=MaskMeaning(**options))


def test_the_records_line_by_line(slides, tmp_path):
    data = annotated_slides(slides, tmp_path / "exported", tmp_path / "out", case_pattern=r"(p\d)")
    assert [(r["image"], r["mpp"], r["label"], r["mask"], r["case_id"]) for r in data.records] == [
        (str(slides / "more/p2 b.TIF"), None, 1, str(tmp_path / "exported/P2 b.GEOJSON"), "p2"),
        (str(slides / "p1 a.tif"), None, 1, str(tmp_path / "exported/p1 a.tif.geojson"), "p1"),
        (str(slides / "p3.ome.tif"), None, 0, None, "p3"),
        (str(slides / "p4.tif"), None, 1, str(tmp_path / "exported/p4.xml"), "p4"),
    ]
    assert data.found == {"background": 1, "annotated": 3}
    assert data.remarks == ["1 slides have only background drawn, and count as background throughout", "drawn: 5 areas of Tumor"]
    # Nothing is written: the files are the masks as they are.
    assert not (tmp_path / "out").exists()
    write_manifest(data.records, tmp_path / "manifest.csv")
    records = load_manifest(tmp_path / "manifest.csv")
    assert [record["split"] for record in records] == [record["split"] for record in data.records]
    assert int(mask_of(records[1]).sum()) == pytest.approx(RING_AREA + EIGHT_AREA, abs=45)
    # What of an area lies outside the slide is cut off.
    assert int(mask_of(records[0]).sum()) == 50 * 50 + 50 * 50
    assert int(pixel_target(records[2], "mask", SIZE_PX[::-1]).sum()) == 0


@pytest.mark.parametrize(("of_slide", "of_file"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_with_accents_belong_together_however_they_are_written(tmp_path, of_slide, of_file):
    """A Mac writes ä as a letter and its dots: by the slide's name, without its ending, and by the name in a project."""
    slides, exported = tmp_path / "slides", tmp_path / "exported"
    names = [unicodedata.normalize(of_slide, name) for name in ("Äther.tif", "Übung.tif", "déjà.tif")]
    slides.mkdir()
    for index, name in enumerate(names):
        write_slide(slides / name, np.full((SIZE_PX[1], SIZE_PX[0], 3), 200 + index, np.uint8), mpp=0.5)
    files = [unicodedata.normalize(of_file, name) for name in ("äther.tif.geojson", "Übung.geojson", "Größe.geojson")]
    for name in files:
        write(exported / name, collection(feature(RING, "Tumor")))
    listed = unicodedata.normalize(of_file, "/slides/déjà.tif"), unicodedata.normalize(of_slide, "Größe")
    path = write(tmp_path / "project.qpproj", project([(f"file:{listed[0]}", listed[1])]))
    data = annotated_slides(slides, exported, tmp_path / "out", project=path)
    # The files keep their names.
    found = {record["image"]: record["mask"] for record in data.records}
    assert found == {str(slides / name): str(exported / file) for name, file in zip(names, files, strict=True)}


def test_classes_of_several_names(slides, tmp_path):
    """The later area is on top, background cuts, and what is to be passed over is taken away."""
    drawn = [
        feature([square(0, 0, 100)], "Tumor"),
        feature([square(0, 0, 10)], "Stroma"),
        feature([square(5, 0, 5)], "Tumor: Invasive"),
        feature([square(90, 90, 10)], "Ignore*"),
    ]
    write(tmp_path / "exported/p1 a.tif.geojson", collection(*drawn))
    with pytest.raises(ValueError, match=r"give classes, .*Tumor \(4\), Stroma \(1\), Tumor: Invasive \(1\)"):
        annotated_slides(slides, tmp_path / "exported", tmp_path / "out")
    classes = ["Other|stroma", "Tumor|Tumor: Invasive"]
    data = annotated_slides(slides, tmp_path / "exported", tmp_path / "out", classes)
    record = data.records[1]
    assert record["mask"] == str(tmp_path / "out/p1 a.tif.geojson")
    mask = mask_of(record)
    expected = np.zeros(SIZE_PX[::-1], np.uint8)
    expected[:100, :100] = 1
    expected[:10, :10] = 0
    expected[:5, 5:10] = 1
    expected[90:100, 90:100] = 0
    np.testing.assert_array_equal(mask, expected)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {path.name for path in before} == {"p1 a.tif.geojson", "p2 b.TIF.geojson", "p4.tif.geojson"}
    assert annotated_slides(slides, tmp_path / "exported", tmp_path / "out", classes).records == data.records
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before

    three = annotated_slides(slides, tmp_path / "exported", tmp_path / "out", ["Stroma", "Tumor", "Tumor: Invasive"])
    assert [record["label"] for record in three.records] == [1, 2, 0, 1]
    indices = mask_of(three.records[1], num_classes=3, class_names=["Stroma", "Tumor", "Tumor: Invasive"])
    expected[:5, 5:10] = 2
    np.testing.assert_array_equal(indices, expected)


@pytest.mark.parametrize("order", [1, -1])
def test_what_lies_inside_decides_whichever_was_drawn_first(slides, tmp_path, order):
    """Tumour in stroma in tumour: all are seen, in the label, in the file that is written and in the mask."""
    drawn = [
        feature([square(0, 0, 100)], "Tumor"),
        feature([square(10, 10, 60)], "Stroma"),
        feature([square(20, 20, 20)], "Tumor: Positive"),
    ]
    write(tmp_path / "exported/p1 a.tif.geojson", collection(*drawn[::order]))
    write(tmp_path / "exported/P2 b.GEOJSON", collection(*(drawn[1:][::order])))
    data = annotated_slides(slides, tmp_path / "exported", tmp_path / "out", ["Stroma", "Tumor"])
    assert [record["label"] for record in data.records] == [1, 1, 0, 1]
    expected = np.zeros(SIZE_PX[::-1], np.uint8)
    expected[20:40, 20:40] = 1
    np.testing.assert_array_equal(mask_of(data.records[0]), expected)
    expected[:100, :100] = 1
    expected[10:70, 10:70] = 0
    expected[20:40, 20:40] = 1
    np.testing.assert_array_equal(mask_of(data.records[1]), expected)


def test_a_slide_that_was_scanned_in_part(tmp_path):
    """Annotations are in QuPath's frame, those that are read and those that are written, unless a key says otherwise."""
    pixels = np.random.default_rng(0).integers(90, 200, (200, 240, 3), dtype=np.uint8)
    (tmp_path / "slides").mkdir()
    slide = write_scn(tmp_path / "slides/a.scn", pixels, (300, 200), (900, 700))
    for frame, origin in ((None, (0, 0)), ("level0", (300, 200))):
        drawn = [feature([square(40 + origin[0], 60 + origin[1], 100)], "Tumor")]
        drawn.append(feature([square(40 + origin[0], 60 + origin[1], 10)], "Stroma"))
        write(tmp_path / "exported/a.geojson", collection(*drawn))
        out = tmp_path / f"out_{frame}"
        data = annotated_slides(tmp_path / "slides", tmp_path / "exported", out, ["Stroma", "Tumor"], annotation_frame=frame)
        (record,) = data.records
        (written,) = json.loads((out / "a.scn.geojson").read_text())["features"]
        assert shapely.geometry.shape(written["geometry"]).bounds == (40, 60, 140, 160)
        mask = read_mask_region(record["mask"], (0, 0), (900, 700), (900, 700), image_path=slide)
        expected = np.zeros((700, 900), np.uint8)
        expected[260:360, 340:440] = 1
        expected[260:270, 340:350] = 0
        np.testing.assert_array_equal(mask, expected)
    write(tmp_path / "exported/a.geojson", collection(feature([square(340, 260, 100)], "Tumor")))
    with pytest.raises(ValueError, match="lie outside the image of 240 x 200 px"):
        annotated_slides(tmp_path / "slides", tmp_path / "exported", tmp_path / "out")
    data = annotated_slides(tmp_path / "slides", tmp_path / "exported", tmp_path / "out", annotation_frame="level0")
    # The file is the mask as it is, so the row says its frame.
    assert data.records[0]["annotation_frame"] == "level0"


def test_packed_exports_are_found_by_their_names(slides, tmp_path):
    exported = tmp_path / "exported"
    for name, packed in (("p1 a.tif.geojson", "p1 a.tif.geojson.gz"), ("p3.json", "p3.json.gz")):
        (exported / packed).write_bytes(gzip.compress((exported / name).read_bytes()))
        (exported / name).unlink()
    with zipfile.ZipFile(exported / "p4.zip", "w") as archive:
        archive.write(exported / "p4.xml", "annotations/p4.xml")
    (exported / "p4.xml").unlink()
    data = annotated_slides(slides, exported, tmp_path / "out")
    assert [record["label"] for record in data.records] == [1, 1, 0, 1]
    assert int(mask_of(data.records[1]).sum()) == pytest.approx(RING_AREA + EIGHT_AREA, abs=45)


def test_only_background_drawn(slides, tmp_path):
    write(tmp_path / "exported/p1 a.tif.geojson", collection(feature(RING, "Stroma")))
    data = annotated_slides(slides, tmp_path / "exported", tmp_path / "out", ["Stroma", "Tumor"])
    assert [(record["label"], record["mask"] is None) for record in data.records] == [
        (1, False),
        (0, True),
        (0, True),
        (1, False),
    ]


def test_all_that_is_wrong_in_one_message(slides, tmp_path, caplog):
    """No annotations, no slide, another class, annotations outside the slide, damage, no pixel size, a slide cut off."""
    exported = tmp_path / "exported"
    (exported / "p3.json").unlink()
    write(exported / "p9.geojson", collection())
    write(exported / "p1 a.tif.geojson", collection(feature(RING, "Necrosis"), feature(RING)))
    write(exported / "p4.xml", asap([("Tumor", corners((900, 900, 950, 950)))]))
    write(exported / "P2 b.GEOJSON", '{"type": "FeatureCollection", ')
    tifffile.imwrite(slides / "p5.tif", np.full((64, 64, 3), 9, np.uint8), photometric="rgb", tile=(32, 32))
    (slides / "p6.svs").write_bytes((slides / "p4.tif").read_bytes()[:200])
    for name in ("p5", "p6"):
        write(exported / f"{name}.geojson", collection(feature([square(0, 0, 9)], "Tumor")))
    with caplog.at_level(logging.CRITICAL), pytest.raises(ValueError, match="allow_missing") as caught:
        annotated_slides(slides, exported, tmp_path / "out", ["Stroma", "Tumor"])
    message = str(caught.value)
    for part in (
        "1 slides without annotations: p3.ome.tif",
        "1 annotation files without a slide: p9.geojson",
        "5 slides that cannot be used",
        "p1 a.tif.geojson: 2 annotations have other classes than Stroma, Tumor: 'Necrosis', none",
        "P2 b.GEOJSON are damaged",
        "lie outside the image of 300 x 200 px",
        "p5.tif does not state its pixel size: give mpp",
        "p6.svs",
    ):
        assert part in message
    data = annotated_slides(slides, exported, tmp_path / "out", ["Stroma", "Tumor"], mpp=0.25, allow_missing=True)
    assert [(record["image"], record["mpp"]) for record in data.records] == [(str(slides / "p5.tif"), 0.25)]
    assert [remark.split(":")[0] for remark in data.remarks] == [
        "left out 1 slides without annotations",
        "left out 1 annotation files without a slide",
        "left out 4 slides that cannot be used",
        "drawn",
    ]


def test_a_slide_that_is_there_twice(slides, tmp_path):
    (slides / "copy").mkdir()
    (slides / "copy/p1 a.tif").write_bytes((slides / "p1 a.tif").read_bytes())
    write(tmp_path / "exported/p4.geojson", collection())
    with pytest.raises(ValueError, match="cannot be used as it is") as caught:
        annotated_slides(slides, tmp_path / "exported", tmp_path / "out")
    exported = tmp_path / "exported"
    assert f"1 annotation files of several slides: {exported / 'p1 a.tif.geojson'} (" in str(caught.value)
    assert f"({slides / 'copy/p1 a.tif'}, {slides / 'p1 a.tif'})" in str(caught.value)
    assert f"1 slides with several annotation files: {slides / 'p4.tif'} (p4.geojson, p4.xml)" in str(caught.value)


def test_copies_of_an_annotated_slide_are_left_out(slides, tmp_path):
    """Under other names, each with its annotations: one would train and another be tested on."""
    exported = tmp_path / "exported"
    for name in ("p1 b", "q"):
        (slides / f"{name}.tif").write_bytes((slides / "p1 a.tif").read_bytes())
        (exported / f"{name}.geojson").write_bytes((exported / "p1 a.tif.geojson").read_bytes())
    data = annotated_slides(slides, exported, tmp_path / "out")
    assert [record["image"] for record in data.records] == [
        str(slides / name) for name in ("more/p2 b.TIF", "p1 a.tif", "p3.ome.tif", "p4.tif")
    ]
    assert data.remarks == [
        "left out 2 copies: files with the same content: p1 b.tif (of p1 a.tif), q.tif (of p1 a.tif)",
        "1 slides have only background drawn, and count as background throughout",
        "drawn: 5 areas of Tumor",
    ]
    write(exported / "q.geojson", collection())
    with pytest.raises(ValueError, match=r"q\.tif is the same image as .*p1 a\.tif, in another class"):
        annotated_slides(slides, exported, tmp_path / "out")


def test_images_that_the_project_calls_otherwise(slides, tmp_path):
    exported = tmp_path / "exported"
    (exported / "p1 a.tif.geojson").rename(exported / "Patient 1.geojson")
    images = [("file:/C:/study/p1%20a.tif", "Patient 1"), ("file:///data/p4.tif", "p4.tif")]
    listed = write(tmp_path / "project.qpproj", project(images))
    data = annotated_slides(slides, exported, tmp_path / "out", project=listed)
    assert data.records[1]["mask"] == str(exported / "Patient 1.geojson")
    with pytest.raises(ValueError, match=r"1 slides without annotations: p1 a\.tif"):
        annotated_slides(slides, exported, tmp_path / "out")
    with pytest.raises(ValueError, match=r"p4\.xml is not a QuPath project"):
        annotated_slides(slides, exported, tmp_path / "out", project=exported / "p4.xml")


def test_folders_that_are_none(slides, tmp_path):
    with pytest.raises(ValueError, match=r"the folder .*nothing does not exist"):
        annotated_slides(slides, tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="4 slides without annotations"):
        annotated_slides(slides, tmp_path / "empty", tmp_path / "out")


def test_real_export(wsi_test_data, tmp_path):
    """QuPath's own export of a TCGA slide, on a blank of about its size, next to an image without annotations."""
    name, size_px = "TCGA-EJ-5519-01Z-00-DX1", (102_400, 76_800)
    source = wsi_test_data / f"annotations/tcga_imagescope_qupath/{name}.json"
    (tmp_path / "slides").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "slides/other.png")
    write(tmp_path / f"exported/{name}.json", source.read_text())
    write_sparse_slide(tmp_path / f"slides/{name}.tif", size_px, [(0, 0, 1024, 1024)])
    classes = ["Other|Negative", "Tumor"]
    data = annotated_slides(tmp_path / "slides", tmp_path / "exported", tmp_path / "out", classes, allow_missing=True)
    assert data.remarks == [
        "left out 1 slides without annotations: other.png",
        *(f"drawn: 1 areas of {drawn}" for drawn in ("Tumor", "Other", "Negative")),
    ]
    (record,) = data.records
    assert record["label"] == 1
    mask = read_mask_region(record["mask"], (0, 0), (1600, 1200), size_px, downsample=64.0)
    tumour, *others = (annotation.polygon for annotation in read_annotations(source))
    expected = tumour.difference(shapely.union_all(others)).intersection(shapely.box(0, 0, *size_px))
    assert mask.sum() * 64**2 == pytest.approx(expected.area, rel=1e-3)


def test_annotations_are_not_replaced_by_those_of_their_classes(slides, tmp_path):
    """Where they lie in the folder that gets these."""
    exported = tmp_path / "exported"
    before = {path: path.read_bytes() for path in exported.iterdir()}
    with pytest.raises(ValueError, match=r"p1 a\.tif\.geojson is a file to read, and p1 a\.tif\.geojson"):
        annotated_slides(slides, exported, exported, classes=["Stroma", "Tumor"])
    assert {path: path.read_bytes() for path in exported.iterdir()} == before
