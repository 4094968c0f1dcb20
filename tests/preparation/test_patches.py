"""`prepare.py patches` as a user starts it."""

import functools
from pathlib import Path

import pytest
from PIL import Image

from shared.data import RegionDataset, load_manifest

from ..data.bach_layout import BENIGN, IN_SITU, INVASIVE, NAMES, annotations, write_bach
from .conftest import Prepare

CLASSES = ("normal", "benign", "carcinoma in situ", "invasive carcinoma")


@pytest.fixture
def run_here(prepare: Prepare) -> Prepare:
    return functools.partial(prepare, "patches")


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides whose masks are ImageScope's annotations."""
    folder = tmp_path_factory.mktemp("slides")
    wsi = write_bach(folder) / "WSI"
    for name in ("A01", "A02"):
        (folder / f"{name}.xml").write_text(annotations(NAMES[0], as_attribute=True))
    rows = [f"{wsi / name}.svs,{name}.xml,{name},{split}\n" for name, split in (("A01", "train"), ("A02", "val"))]
    (folder / "slides.csv").write_text("image,mask,case_id,split\n" + "".join(rows))
    return folder / "slides.csv"


def middle(box: tuple[int, int, int, int]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def test_patches_of_four_classes(slides: Path, tmp_path: Path, run_here: Prepare) -> None:
    options = ("--size_px", 8, "--mpp", 7.472, "--classes", *CLASSES)
    error, printed = run_here(slides, tmp_path / "patches.csv", *options)
    assert error == ""
    assert "6 patches of 2 slides: 2 benign, 2 carcinoma in situ, 2 invasive carcinoma" in printed
    records = load_manifest(tmp_path / "patches.csv", num_classes=4)
    assert {(r["label"], r["x"] + 64, r["y"] + 64) for r in records} == {
        (label, *middle(box)) for label, box in enumerate((BENIGN, IN_SITU, INVASIVE), start=1)
    }
    assert [record["split"] for record in records] == ["train"] * 3 + ["val"] * 3
    items = RegionDataset(records, 8, 7.472, pixel_labels="mask", num_classes=4, class_names=CLASSES)
    assert all(int(item["mask"].max()) == item["label"] for item in items)
    assert sorted(path.suffix for path in (tmp_path / "tissue").iterdir()) == [".png", ".png"]


def test_pictures_of_what_is_done(slides: Path, tmp_path: Path, run_here: Prepare) -> None:
    """Lesions of 6 x 6 px are larger than patches of 4 px, and split."""
    options = ("--size_px", 4, "--mpp", 7.472, "--classes", *CLASSES, "--pictures", tmp_path / "pictures")
    error, _ = run_here(slides, tmp_path / "patches.csv", *options)
    assert error == ""
    names = {f"{slide}_{what}.png" for slide in ("A01", "A02") for what in ("foreground", "patches", "split")}
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == names
    with Image.open(tmp_path / "pictures/A01_split.png") as picture:
        assert picture.size == (800, 400)


def test_without_classes_there_are_two(slides: Path, tmp_path: Path, run_here: Prepare) -> None:
    options = ("--size_px", 8, "--mpp", 7.472, "--num_background", 1, "--tissue_folder", tmp_path / "kept")
    error, printed = run_here(slides, tmp_path / "patches.csv", *options, "--tumour_classes", *CLASSES[1:])
    assert error == ""
    assert "8 patches of 2 slides: 2 background, 6 annotated" in printed
    assert len(list((tmp_path / "kept").iterdir())) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", "normal", "tumour"], "has the class 'Benign', expected one of 'normal', 'tumour'"),
        ([], "the classes that are tumour"),
        (["--tumour_classes", "benign", "--classes", "normal", "tumour"], "give only one of them"),
        (["--min_tissue", "1.1", "--tumour_classes", *CLASSES[1:]], "no lesion with 110% tissue in the 128 px around it"),
    ],
)
def test_says_what_is_wrong(slides: Path, tmp_path: Path, run_here: Prepare, options: list[str], message: str) -> None:
    error, _ = run_here(slides, tmp_path / "patches.csv", *options)
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "patches.csv").exists()
