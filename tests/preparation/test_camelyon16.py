"""`prepare.py camelyon16` as a user starts it, and what the data set reads from its manifests."""

import functools
from collections import Counter
from pathlib import Path

import pytest

from shared.data import RegionDataset, check_images, load_manifest

from ..data.camelyon16_layout import write_camelyon16
from .conftest import Prepare

NAMES = [
    *(f"normal_{number:03}" for number in range(1, 6)),
    *(f"tumor_{number:03}" for number in (1, 2, 3, 10)),
    *(f"test_{number:03}" for number in (1, 2, 114)),
]
# 64 px of 0.5 um are 128 level-0 px.
ARGUMENTS = ("--size_px", 64, "--training_slides", 7, "--allow_missing")


@pytest.fixture
def run_here(prepare: Prepare) -> Prepare:
    return functools.partial(prepare, "camelyon16")


@pytest.fixture(scope="module")
def challenge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_camelyon16(tmp_path_factory.mktemp("camelyon") / "CAMELYON 16", NAMES, ["test_001", "test_114"])


def test_manifests_that_train(challenge: Path, tmp_path: Path, run_here: Prepare) -> None:
    error, printed = run_here(challenge, tmp_path / "out", *ARGUMENTS)
    assert error == ""
    for line in (
        "note: left out test_114: not all of its tumour is annotated",
        "training, normal: 5 images (159 were published)",
        "training, tumour: 4 images (111 were published)",
        "testing, tumour: 2 images (49 were published)",
        # 5 + 4 slides, of which 7 are trained on; a tenth of each label, but at least one, is for validation.
        "  train: 5 images of 5 cases: 2 normal, 3 tumour",
        "  val: 2 images of 2 cases: 1 normal, 1 tumour",
        "  test: 4 images of 4 cases: 3 normal, 1 tumour",
        "  test: 8 regions of ",
    ):
        assert line in printed

    slides = load_manifest(tmp_path / "out/slides.csv", require=("mask",))
    assert [Path(slide["image"]).stem for slide in slides] == sorted(set(NAMES) - {"test_114"})
    assert all(Path(slide["mask"]).name == f"{slide['case_id']}.xml" for slide in slides if slide["label"])
    regions = load_manifest(tmp_path / "out/regions.csv", both_classes=True)
    counts = Counter((region["split"], region["label"]) for region in regions)
    # A slide with tumour has it in 4 of 20 regions; of val and test as many without are taken.
    assert counts[("test", 0)] == counts[("test", 1)] == counts[("val", 0)] == counts[("val", 1)] == 4
    assert counts[("train", 1)] == 12
    dataset = RegionDataset(regions, 64, 0.5, pixel_labels="mask")
    check_images([dataset])
    for item, region in zip(dataset, regions, strict=True):
        assert int(item["mask"].sum()) == round(region["area"] * 64**2)
        assert bool(item["mask"].any()) == bool(item["label"])


def test_goes_on_and_gives_the_same(challenge: Path, tmp_path: Path, run_here: Prepare) -> None:
    out = tmp_path / "out"
    assert run_here(challenge, out, *ARGUMENTS)[0] == ""
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*.*")}
    tissue = [path for path in before if path.suffix == ".png"]
    assert len(tissue) == len(NAMES) - 1
    tissue[0].unlink()
    assert run_here(challenge, out, *ARGUMENTS)[0] == ""
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*.*")}
    assert {path: content for path, (content, _) in after.items()} == {path: content for path, (content, _) in before.items()}
    # What was found is not found again.
    assert [path for path in tissue if after[path][1] != before[path][1]] == tissue[:1]


def test_the_official_split_and_all_regions(challenge: Path, tmp_path: Path, run_here: Prepare) -> None:
    options = ("--split", "official", "--val_share", 0, "--all_regions", "--keep_unsure")
    error, printed = run_here(challenge, tmp_path / "out", *ARGUMENTS, *options)
    assert error == ""
    assert "  train: 180 regions of 9 images of 9 cases: 164 normal, 16 tumour" in printed
    assert "  test: 40 regions of 2 images of 2 cases: 36 normal, 4 tumour" in printed
    assert {record["split"] for record in load_manifest(tmp_path / "out/regions.csv")} == {"train", "test"}


def test_says_what_is_wrong(challenge: Path, tmp_path: Path, run_here: Prepare) -> None:
    error, _ = run_here(challenge, tmp_path / "out")
    assert "387 slides not found" in error
    assert "the folder nowhere does not exist" in run_here("nowhere", tmp_path / "out")[0]
    error, _ = run_here(challenge, tmp_path / "out", *ARGUMENTS, "--size_px", 4000)
    assert "no image is left for regions.csv." in error
    assert not list(tmp_path.rglob("*.csv"))
