"""The scripts of the published data sets of images as a user starts them: what they write, print, keep, and refuse."""

from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from shared.data import RegionDataset, check_images, load_manifest

from ..data.published_layouts import EBHI_SIZE_PX, write_bcss, write_ebhi, write_glas, write_luad_histoseg, write_wsss4luad
from .conftest import Prepare

# Script, layout, options; then of each manifest its rows and classes, and the size of an image.
CASES = {
    "ebhi_seg": (write_ebhi, [], {"manifest.csv": (9, 2), "classes.csv": (18, 7)}, EBHI_SIZE_PX),
    "glas": (write_glas, ["--size_px", 64], {"images.csv": (10, 2), "classes.csv": (10, 3)}, 64),
    "bcss": (write_bcss, ["--size_px", 64], {"images.csv": (7, 2), "classes.csv": (7, 5)}, 64),
    "luad_histoseg": (write_luad_histoseg, ["--train_masks", 0.5], {"images.csv": (12, 2), "classes.csv": (11, 5)}, 224),
    "wsss4luad": (write_wsss4luad, ["--train_masks", 0.5], {"classes.csv": (9, 4)}, 128),
}
SUMMARIES = {
    "ebhi_seg": ["Adenocarcinoma: 3 images (795 were published)", "Polyp: 3 images (474 were published)"],
    "glas": ["train: 7 images (85 were published)", "note: 7 patients (16 were published)"],
    "bcss": ["masks: 4 images (151 were published)", "  val: 2 regions of 1 images of 1 cases: 1 no tumour, 1 tumour"],
    "luad_histoseg": ["train: 6 images (16678 were published)", "  test: 2 images of 2 cases: 1 tumour, 1 stroma"],
    "wsss4luad": ["train: 5 images (10091 were published)", "  test: 1 regions of 1 images: 1 tumour"],
}


@pytest.mark.parametrize("name", CASES)
def test_manifests_that_train(tmp_path: Path, prepare: Prepare, name: str) -> None:
    layout, options, manifests, size_px = CASES[name]
    source, output = layout(tmp_path), tmp_path / "my data" / name
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    error, printed = prepare(name, source, output, *options)
    assert error == ""
    assert set(SUMMARIES[name]) <= set(printed.splitlines())
    assert {path.name for path in output.iterdir()} == {*manifests, "masks"}
    for manifest, (num_rows, num_classes) in manifests.items():
        assert f"{output / manifest}:" in printed.splitlines()
        records = load_manifest(output / manifest, num_classes=num_classes)
        assert len(records) == num_rows
        for record in records:
            assert Path(record["image"]).is_relative_to(source), "an image was copied"
        mpp = 0.5 if name == "bcss" else None
        dataset = RegionDataset([r for r in records if r["mask"]], size_px, mpp, pixel_labels="mask", num_classes=num_classes)
        check_images([RegionDataset(records, size_px, mpp, num_classes=num_classes), dataset])
        for item in dataset:
            assert item["mask"].shape == (1, size_px, size_px)
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", CASES)
def test_goes_on_and_gives_the_same(tmp_path: Path, prepare: Prepare, name: str) -> None:
    layout, options, *_ = CASES[name]
    arguments = (name, layout(tmp_path), tmp_path / "out", *options)
    assert prepare(*arguments)[0] == ""
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    masks = sorted(path for path in files if path.suffix == ".png")
    # What a killed run leaves: the first masks whole, the next in part, no manifest.
    written = masks[0].stat().st_mtime_ns
    for path in (*masks[1:], *(path for path in files if path.suffix == ".csv")):
        path.unlink()
    masks[1].with_name(f"{masks[1].name}.part").write_bytes(b"half")
    assert prepare(*arguments)[0] == ""
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == files
    assert masks[0].stat().st_mtime_ns == written


@pytest.mark.parametrize("name", CASES)
def test_says_what_is_wrong(tmp_path: Path, prepare: Prepare, name: str) -> None:
    (tmp_path / "empty").mkdir()
    error, _ = prepare(name, tmp_path / "empty", tmp_path / "out")
    assert error.startswith(f"error: {tmp_path / 'empty'} contains no ")
    assert not (tmp_path / "out").exists()


def test_other_classes_and_the_official_split(tmp_path: Path, prepare: Prepare) -> None:
    ebhi = write_ebhi(tmp_path)
    options = ("--tumour", "Adenocarcinoma", "High-grade IN", "--normal", "Normal", "--seed", 1)
    assert prepare("ebhi_seg", ebhi, tmp_path / "ebhi", *options)[0] == ""
    assert Counter(record["label"] for record in load_manifest(tmp_path / "ebhi/manifest.csv")) == {0: 3, 1: 6}
    error, _ = prepare("ebhi_seg", ebhi, tmp_path / "other", "--normal", "normal")
    assert error.startswith("error: normal: tumour and normal must be classes of Normal, Polyp, Low-grade IN")
    assert not (tmp_path / "other").exists(), "masks were written first"

    assert prepare("glas", write_glas(tmp_path), tmp_path / "glas", "--size_px", 64, "--official")[0] == ""
    records = load_manifest(tmp_path / "glas/images.csv")
    assert {Path(record["image"]).name[:4] for record in records if record["split"] == "test"} == {"test"}
    error, _ = prepare("glas", tmp_path, tmp_path / "large", "--size_px", 640)
    assert error.startswith("error: no image is left for images.csv, classes.csv. 7 patients")


def test_images_are_counted_beside_those_that_were_published(tmp_path: Path, prepare: Prepare) -> None:
    error, printed = prepare("glas", write_glas(tmp_path), tmp_path / "glas", "--size_px", 64)
    assert error == ""
    assert "train: 7 images (85 were published)" in printed
    assert len(load_manifest(tmp_path / "glas/images.csv")) == 10


def test_patch_camelyon(tmp_path: Path, prepare: Prepare) -> None:
    for letter, values in (("x", np.zeros((3, 96, 96, 3), np.uint8)), ("y", np.array([0, 1, 1], np.uint8)[:, None, None, None])):
        with h5py.File(tmp_path / f"camelyonpatch_level_2_split_test_{letter}.h5", "w") as file:
            file.create_dataset(letter, data=values)
    error, printed = prepare("patch_camelyon", tmp_path, "--splits", "test", "--read")
    assert (error, printed) == ("", "test: 3 patches (32768 were published): 1 normal, 2 tumour\n")
    assert "camelyonpatch_level_2_split_train_x.h5 does not exist" in prepare("patch_camelyon", tmp_path)[0]
