"""`prepare.py folder` and `prepare.py adenoma` as a user starts them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.data import load_manifest
from shared.synthetic import write_slide

from ..data.qupath_layout import collection, feature, project, square, write
from .conftest import Prepare


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    for index in range(6):
        path = tmp_path / "tiles" / ("tumour" if index % 2 else "normal") / f"p{index} x.PNG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), index, np.uint8)).save(path)
    return tmp_path / "tiles"


def test_class_folders(tiles: Path, tmp_path: Path, prepare: Prepare) -> None:
    error, printed = prepare("folder", tiles, tmp_path / "out", "--classes", "normal", "tumour")
    assert error == ""
    assert printed.splitlines() == [
        "normal: 3 images",
        "tumour: 3 images",
        f"{tmp_path / 'out/manifest.csv'}:",
        "  train: 2 images: 1 normal, 1 tumour",
        "  val: 2 images: 1 normal, 1 tumour",
        "  test: 2 images: 1 normal, 1 tumour",
    ]
    records = load_manifest(tmp_path / "out/manifest.csv", both_classes=True)
    assert [(Path(record["image"]).name, record["label"]) for record in records] == [
        (f"p{index} x.PNG", index % 2) for index in (0, 2, 4, 1, 3, 5)
    ]


def test_annotated_slides(tmp_path: Path, prepare: Prepare) -> None:
    (tmp_path / "slides").mkdir()
    for index in range(3):
        write_slide(tmp_path / f"slides/s {index}.tif", np.full((128, 128, 3), 200 + index, np.uint8), mpp=0.5)
        drawn = [feature([square(0, 0, 64)], "Tumor"), feature([square(0, 0, 32)], "Stroma")]
        write(tmp_path / f"geojson/image {index}.geojson", collection(*drawn))
    listed = write(tmp_path / "project.qpproj", project((f"file:/C:/s%20{index}.tif", f"image {index}") for index in range(3)))
    common = (tmp_path / "slides", tmp_path / "out", "--annotations", tmp_path / "geojson", "--project", listed)
    assert "give classes, background first" in prepare("folder", *common)[0]
    assert not (tmp_path / "out").exists()
    error, printed = prepare("folder", *common, "--classes", "Other|Stroma", "Tumor")
    assert error == ""
    assert printed.splitlines()[:2] == ["note: drawn: 3 areas of Tumor", "note: drawn: 3 areas of Stroma"]
    records = load_manifest(tmp_path / "out/manifest.csv", require=("label", "mask"))
    masks = [tmp_path / f"out/annotations/s {index}.tif.geojson" for index in range(3)]
    assert [record["mask"] for record in records] == list(map(str, masks))
    features = json.loads(masks[0].read_text())["features"]
    assert [part["properties"]["classification"]["name"] for part in features] == ["Tumor"]
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    assert prepare("folder", *common, "--classes", "Other|Stroma", "Tumor")[0] == ""
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == before


def test_says_what_is_wrong(tiles: Path, tmp_path: Path, prepare: Prepare) -> None:
    out = tmp_path / "out"
    assert "give classes, background first" in prepare("folder", tiles, out)[0]
    assert "p1 x.PNG has no mask" in prepare("folder", tiles, out, "--classes", "normal", "tumour", "--masks", tmp_path)[0]
    assert prepare("folder", tiles, out, "--masks", tiles, "--annotations", tiles)[0] == "2"
    assert prepare("folder", tiles, out, "--project", tiles)[0] == "2"
    assert not out.exists()


def test_adenoma(tiles: Path, tmp_path: Path, prepare: Prepare) -> None:
    Image.fromarray(np.zeros((1280, 1280, 3), np.uint8)).save(tmp_path / "white.png")
    for name in ("a_1.png", "b_1.png", "c_1.png", "d_1.png", "e_1.png", "f_1.png"):
        (tiles / name).hardlink_to(tmp_path / "white.png")
    rows = "".join(f"{name}_1.png,{index % 2}\n" for index, name in enumerate("abcdef"))
    write(tiles / "labels.csv", f"image_name,label\n{rows}")
    error, _ = prepare("adenoma", tiles, tmp_path / "out")
    assert "6 images without a label in" in error
    error, printed = prepare("adenoma", tiles, tmp_path / "out", "--allow_missing", "--case_pattern", "(.)_1")
    assert error == ""
    assert "  test: 2 images of 2 cases: 1 normal, 1 adenoma" in printed
    records = load_manifest(tmp_path / "out/manifest.csv", both_classes=True)
    assert [(Path(record["image"]).name, record["label"], record["case_id"]) for record in records] == [
        (f"{name}_1.png", index % 2, name) for index, name in enumerate("abcdef")
    ]
