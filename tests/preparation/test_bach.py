"""`prepare.py bach` as a user starts it, and what the data set reads from its manifests."""

import functools
from collections import Counter
from pathlib import Path

import pytest

from shared.data import BACH_CLASSES, RegionDataset, check_images, load_manifest

from ..data.bach_layout import write_bach
from .conftest import Prepare

# 8 px of 16 x 0.467 um are 128 level-0 px.
SIZE_PX, MPP = 8, 7.472


@pytest.fixture
def run_here(prepare: Prepare) -> Prepare:
    return functools.partial(prepare, "bach")


@pytest.fixture(scope="module")
def challenge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bach(tmp_path_factory.mktemp("bach"))


def test_manifests_that_train(challenge: Path, tmp_path: Path, run_here: Prepare) -> None:
    error, printed = run_here(challenge, tmp_path / "bach", "--size_px", SIZE_PX, "--num_background", 2)
    assert error == ""
    assert "8 photos (400 were published): 2 normal, 2 benign, 2 in situ, 2 invasive" in printed
    assert "3 train slides (A01, A02, A03): 15 patches: 6 normal, 3 benign, 3 in situ, 3 invasive" in printed
    assert "1 val slides (A04): 5 patches" in printed
    assert "6 test slides (A05, A06, A07, A08, A09, A10): 30 patches" in printed
    assert "note: 2 photos of Normal, 100 were published" in printed

    images = load_manifest(tmp_path / "bach/images.csv", num_classes=4)
    assert Counter((record["label"], record["split"]) for record in images) == dict.fromkeys([(i, "train") for i in range(4)], 2)
    check_images([RegionDataset(images, num_classes=4)])
    slides = load_manifest(tmp_path / "bach/slides.csv", require=("mask",), num_classes=4)
    assert Counter(record["split"] for record in slides) == {"train": 3, "val": 1, "test": 6}
    patches = load_manifest(tmp_path / "bach/patches.csv", num_classes=4)
    assert len(patches) == 50 + 8
    assert [record["label"] for record in patches if record["mask"] is None] == [record["label"] for record in images]

    masked = [record for record in patches if record["mask"]]
    dataset = RegionDataset(masked, SIZE_PX, MPP, pixel_labels="mask", num_classes=4, class_names=BACH_CLASSES)
    check_images([dataset])
    shown = Counter()
    for item in dataset:
        values, counts = item["mask"].unique(return_counts=True)
        shown[item["label"], tuple(zip(values.tolist(), counts.tolist(), strict=True))] += 1
    # A lesion is 6 x 6 of 8 x 8; 2 x 2 are taken away from the benign one.
    expected = {
        (0, ((0, 64),)): 20,
        (1, ((0, 32), (1, 32))): 10,
        (2, ((0, 28), (2, 36))): 10,
        (3, ((0, 28), (3, 36))): 10,
    }
    assert shown == expected


def test_goes_on_and_gives_the_same(challenge: Path, tmp_path: Path, run_here: Prepare) -> None:
    arguments = (challenge.parent, tmp_path / "bach", "--size_px", SIZE_PX)
    assert run_here(*arguments)[0] == ""
    before = {path: path.read_bytes() for path in (tmp_path / "bach").rglob("*.*")}
    assert {path.suffix for path in before} == {".csv", ".geojson", ".png"}
    assert run_here(*arguments)[0] == ""
    assert {path: path.read_bytes() for path in (tmp_path / "bach").rglob("*.*")} == before


def test_the_split_of_the_released_results(challenge: Path, tmp_path: Path, run_here: Prepare) -> None:
    error, printed = run_here(challenge, tmp_path / "bach", "--split_with_a08", "--size_px", SIZE_PX)
    assert error == ""
    assert "3 train slides (A01, A06, A08)" in printed
    assert "1 val slides (A02)" in printed


def test_another_validation_slide(challenge: Path, tmp_path: Path, run_here: Prepare) -> None:
    error, printed = run_here(challenge, tmp_path / "bach", "--val", "A07", "--train", "A01", "A02", "--size_px", SIZE_PX)
    assert error == ""
    assert "2 train slides (A01, A02): 6 patches" in printed
    slides = load_manifest(tmp_path / "bach/slides.csv", num_classes=4)
    assert [record["split"] for record in slides] == ["train"] * 2 + ["test"] * 4 + ["val"] + ["test"] * 3


def test_says_what_is_wrong(challenge: Path, tmp_path: Path, run_here: Prepare) -> None:
    assert "error: A11 of the val slides are not among" in run_here(challenge, tmp_path / "bach", "--val", "A11")[0]
    assert "contains no folder 'Photos'" in run_here(tmp_path, tmp_path / "bach")[0]
    assert not list(tmp_path.rglob("*.csv"))
