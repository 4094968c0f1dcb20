"""`prepare.py consensus` on small images with the masks of three people."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from shared.data import load_manifest

from .conftest import Prepare


def write_manifest_of(folder: Path, name: str, boxes: dict[str, tuple[int, int] | None]) -> Path:
    """A manifest of 40 x 30 px images, each with tumour in the rows between two numbers; None for no row in the manifest."""
    rows = []
    for image, rows_of_tumour in boxes.items():
        if rows_of_tumour is None:
            continue
        if not (folder / f"{image}.png").exists():
            Image.fromarray(np.full((30, 40, 3), 200, np.uint8)).save(folder / f"{image}.png")
        mask = np.zeros((30, 40), np.uint8)
        mask[slice(*rows_of_tumour)] = 255
        Image.fromarray(mask).save(folder / f"{name}_{image}.png")
        is_tumour = rows_of_tumour != (0, 0)
        rows.append((f"{image}.png", int(is_tumour), f"{name}_{image}.png" if is_tumour else None))
    path = folder / f"{name}.csv"
    pd.DataFrame(rows, columns=["image", "label", "mask"]).to_csv(path, index=False)
    return path


def test_two_agree_and_a_third_decides(tmp_path: Path, prepare: Prepare) -> None:
    first = write_manifest_of(tmp_path, "first", {"a": (0, 10), "b": (0, 10), "c": (0, 0)})
    second = write_manifest_of(tmp_path, "second", {"a": (0, 9), "b": (0, 5), "c": (0, 0)})
    error, printed = prepare("consensus", first, second, tmp_path / "two")
    assert not error
    assert "2 images with masks, 1 undecided" in printed
    assert "regions: 1 agreed on, 0 decided by the third mask, 1 open" in printed
    assert pd.read_csv(tmp_path / "two/undecided.csv")["open_regions"].tolist() == [1]
    records = load_manifest(tmp_path / "two/images.csv", require=("label", "mask"))
    assert [Path(record["image"]).stem for record in records] == ["a", "c"]
    agreed = np.array(Image.open(records[0]["mask"]))
    assert agreed[:9].all()
    assert not agreed[9:].any()

    third = write_manifest_of(tmp_path, "third", {"a": None, "b": (2, 10), "c": None})
    error, printed = prepare("consensus", first, second, tmp_path / "three", "--third", third)
    assert not error
    assert "3 images with masks, 0 undecided" in printed
    decided = np.array(Image.open(load_manifest(tmp_path / "three/images.csv")[1]["mask"]))
    assert decided[:10].all()
    assert not decided[10:].any()


def test_labels_are_those_of_the_agreed_masks(tmp_path: Path, prepare: Prepare) -> None:
    """One pathologist has seen tumour where two others have not: a training would refuse the label of the first."""
    first = write_manifest_of(tmp_path, "first", {"a": (0, 10), "b": (0, 10)})
    second = write_manifest_of(tmp_path, "second", {"a": (20, 20), "b": (0, 10)})
    third = write_manifest_of(tmp_path, "third", {"a": (20, 20), "b": (0, 10)})
    error, printed = prepare("consensus", first, second, tmp_path / "out", "--third", third)
    assert not error
    assert "row 2" in printed
    assert "no tumour is left, and its label 1 becomes 0" in printed
    assert [record["label"] for record in load_manifest(tmp_path / "out/images.csv")] == [0, 1]


def test_a_table_of_agreed_images_is_not_left_when_none_is_agreed_on(tmp_path: Path, prepare: Prepare) -> None:
    first = write_manifest_of(tmp_path, "first", {"a": (0, 10)})
    for name, rows in (("same", (0, 10)), ("other", (0, 5))):
        second = write_manifest_of(tmp_path, name, {"a": rows})
        error, printed = prepare("consensus", first, second, tmp_path / "agreed")
        assert not error
        assert (tmp_path / "agreed/images.csv").exists() == ("1 images with masks" in printed) == (name == "same")


def test_splits_are_those_of_the_first_manifest_or_none(tmp_path: Path, prepare: Prepare) -> None:
    boxes = dict.fromkeys("abcdefgh", (0, 10))
    first = write_manifest_of(tmp_path, "first", boxes)
    second = write_manifest_of(tmp_path, "second", boxes)
    assert not prepare("consensus", first, second, tmp_path / "none")[0]
    assert "split" not in pd.read_csv(tmp_path / "none/images.csv")
    # Folds are made of all images: none of them was drawn for the test.
    assert len(load_manifest(tmp_path / "none/images.csv", num_folds=4, fold=0)) == 8
    table = pd.read_csv(first).assign(split=["train", "val", "test", *["train"] * 5])
    table.to_csv(first, index=False)
    assert not prepare("consensus", first, second, tmp_path / "some")[0]
    assert pd.read_csv(tmp_path / "some/images.csv")["split"].tolist() == table["split"].tolist()


def test_an_image_of_one_manifest_alone_is_an_error(tmp_path: Path, prepare: Prepare) -> None:
    first = write_manifest_of(tmp_path, "first", {"a": (0, 10), "b": (0, 10)})
    second = write_manifest_of(tmp_path, "second", {"a": (0, 9)})
    error, _ = prepare("consensus", first, second, tmp_path / "out")
    assert "row 3" in error
    assert "b.png: the image is not in" in error
