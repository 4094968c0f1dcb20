"""`prepare.py patches` as a user starts it."""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scripts.preparation import patch_pictures
from shared.data import RegionDataset, centred_patches, load_manifest

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


def test_pictures_of_slides_of_one_name(slides: Path, tmp_path: Path, run_here: Prepare) -> None:
    table = pd.read_csv(slides)
    (tmp_path / "again").mkdir()
    (tmp_path / "again/A01.svs").symlink_to(table.loc[1, "image"])
    table.loc[1, "image"] = str(tmp_path / "again/A01.svs")
    table["mask"] = [str(slides.parent / mask) for mask in table["mask"]]
    table.to_csv(tmp_path / "slides.csv", index=False)
    options = ("--size_px", 4, "--mpp", 7.472, "--classes", *CLASSES, "--pictures", tmp_path / "pictures")
    error, _ = run_here(tmp_path / "slides.csv", tmp_path / "patches.csv", *options)
    assert "have one name: rename one of them" in error
    assert not (tmp_path / "pictures").exists()


def test_splits_that_are_drawn_are_said(slides: Path, tmp_path: Path, run_here: Prepare, prepare: Prepare) -> None:
    table = pd.read_csv(slides).drop(columns="split")
    table["mask"] = [str(slides.parent / mask) for mask in table["mask"]]
    table.to_csv(tmp_path / "slides.csv", index=False)
    options = ("--size_px", 8, "--mpp", 7.472, "--classes", *CLASSES)
    error, printed = run_here(tmp_path / "slides.csv", tmp_path / "patches.csv", *options)
    assert error == ""
    drawn = pd.read_csv(tmp_path / "patches.csv").groupby("split")["image"].nunique()
    shown = ", ".join(f"{drawn.get(split, 0)} {split}" for split in ("train", "val", "test"))
    assert f"slides.csv assigns no slide to a split: {shown} were drawn at random" in printed
    assert "assigns no slide" not in run_here(slides, tmp_path / "patches.csv", *options)[1]
    table.assign(label=1).to_csv(tmp_path / "slides.csv", index=False)
    options = ("--size_px", 8, "--mpp", 7.472, "--min_tissue", 0, "--tumour_classes", *CLASSES[1:])
    error, printed = prepare("regions", tmp_path / "slides.csv", tmp_path / "regions.csv", *options)
    assert error == ""
    assert f"slides.csv assigns no slide to a split: {shown} were drawn at random" in printed


def test_pictures_show_the_patches_that_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line in a box of 6 x 6 px is larger than a patch of 4 px by its box, not by its area."""
    mask = np.eye(8, dtype=np.uint8)
    mask[6:] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.new("RGB", (8, 8), (200, 120, 160)).save(tmp_path / "slide.png")
    drawn: list[int] = []
    monkeypatch.setattr(patch_pictures, "_boxes", lambda place, corners, side_px: drawn.append(len(corners)))
    record = {"image": str(tmp_path / "slide.png"), "mask": str(tmp_path / "mask.png"), "mpp": 1.0, "label": 1}
    for size_by in ("area", "box"):
        patch_pictures.write_patch_pictures(record, tmp_path / size_by, 4, 1.0, 2, None, size_by)
    assert drawn == [1, 4, len(centred_patches(mask, 4, "box")), 4]
    assert drawn[2] > 1


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
        (["--min_tissue", "1", "--tumour_classes", *CLASSES[1:]], "no lesion with 100% tissue in the 128 px around it"),
    ],
)
def test_says_what_is_wrong(slides: Path, tmp_path: Path, run_here: Prepare, options: list[str], message: str) -> None:
    error, _ = run_here(slides, tmp_path / "patches.csv", *options)
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "patches.csv").exists()
