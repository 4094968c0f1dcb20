import csv
import dataclasses
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.synthetic import DemoPlan, SlidePlan, demo, demo_manifest, rough_area, write_demo

PLAN = DemoPlan(
    images={"train": 8, "val": 4, "test": 4},
    size_px=64,
    slides=(SlidePlan("train", 0.3, (310, 430)), SlidePlan("test", 0.0, (330, 390))),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_demo(tmp_path_factory.mktemp("work") / "data" / "demo", PLAN)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_manifest_of_the_images_agrees_with_the_masks(folder):
    found = rows(folder / "images.csv")
    assert list(found[0]) == ["image", "label", "area", "mask", "case_id", "split", "mpp"]
    assert [row["split"] for row in found] == ["train"] * 8 + ["val"] * 4 + ["test"] * 4
    for row in found:
        image, mask = (np.asarray(Image.open(folder / row[column])) for column in ("image", "mask"))
        assert image.shape == (64, 64, 3)
        assert set(np.unique(mask)) <= {0, 255}
        assert int(row["label"]) == (mask > 0).any()
        assert 0 <= float(row["area"]) - (mask > 0).mean() < 0.1 + 1e-6
        assert float(row["area"]) * 10 == pytest.approx(round(float(row["area"]) * 10))
        assert row["mpp"] == "0.5"


def test_cases_are_disjoint_and_both_labels_are_in_every_split(folder):
    found = rows(folder / "images.csv")
    splits = {case: {row["split"] for row in found if row["case_id"] == case} for case in {r["case_id"] for r in found}}
    assert all(len(split) == 1 for split in splits.values())
    assert len(splits) == 4
    for split in ("train", "val", "test"):
        labels = [row["label"] for row in found if row["split"] == split]
        assert labels.count("0") == labels.count("1") > 0


def test_manifest_of_the_slides(folder):
    tumour, normal = rows(folder / "slides.csv")
    assert (tumour["label"], tumour["split"], normal["label"], normal["area"]) == ("1", "train", "0", "0.0")
    assert float(tumour["area"]) == pytest.approx(0.3, abs=1e-3)
    assert np.asarray(Image.open(folder / tumour["mask"])).shape == (310, 430)
    assert (folder / tumour["image"]).exists()


def test_default_plan_has_both_labels_in_every_split():
    plan = DemoPlan()
    for split in ("train", "val", "test"):
        assert plan.images[split] >= 40
        assert {slide.tumour_share > 0 for slide in plan.slides if slide.split == split} == {True, False}
    for slide in plan.slides:
        assert slide.size_px[0] != slide.size_px[1]
        assert all(side % 16 for side in slide.size_px)


def test_found_again_without_touching_a_file(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_demo(folder, PLAN) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_same_bytes_in_another_folder(folder, tmp_path):
    assert contents(write_demo(tmp_path / "again", PLAN)) == contents(folder)


def test_another_seed_replaces_the_data(tmp_path):
    first = contents(write_demo(tmp_path / "demo", PLAN))
    second = contents(write_demo(tmp_path / "demo", dataclasses.replace(PLAN, seed=1)))
    assert first.keys() == second.keys()
    assert not set(first.values()) & {second[name] for name in second if name.startswith("images/")}
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_another_version_of_the_generator_replaces_the_data(tmp_path, monkeypatch):
    folder = write_demo(tmp_path / "demo", PLAN)
    before = (folder / "images.csv").stat().st_ino
    monkeypatch.setattr(demo, "GENERATOR_VERSION", demo.GENERATOR_VERSION + 1)
    write_demo(folder, PLAN)
    assert (folder / "images.csv").stat().st_ino != before


def test_interrupted_run_leaves_nothing_and_is_redone(folder, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(demo, "write_slide", fail)
        with pytest.raises(KeyboardInterrupt):
            write_demo(tmp_path / "demo", PLAN)
    assert not list(tmp_path.iterdir())
    assert contents(write_demo(tmp_path / "demo", PLAN)) == contents(folder)


def test_what_a_killed_run_left_is_swept_once_it_is_old(tmp_path):
    old, young = (tmp_path / name for name in (".demo-old.part", ".demo-young.part"))
    for path in (old, young):
        path.mkdir()
    os.utime(old, (0, 0))
    write_demo(tmp_path / "demo", PLAN)
    assert not old.exists()
    assert young.exists()


def test_two_at_once_give_one_data_set(folder, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: write_demo(tmp_path / "demo", PLAN), range(2)))
    assert contents(tmp_path / "demo") == contents(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_foreign_data_are_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match=r"no generated\.json"):
        write_demo(tmp_path, PLAN)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_manifest_is_generated_only_as_the_embedded_default(folder, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(demo, "write_demo", calls.append)
    assert demo_manifest(folder / "images.csv") == str(folder / "images.csv")
    assert demo_manifest(tmp_path / "demo" / "images.csv") == str(tmp_path / "demo" / "images.csv")
    assert calls == []
    monkeypatch.chdir(tmp_path)
    assert demo_manifest("data/demo/images.csv") == "data/demo/images.csv"
    assert calls == [Path(tmp_path) / "data" / "demo"]


def test_rejects_odd_numbers_of_images():
    with pytest.raises(ValueError, match=r"multiples of 4 images.*'train': 6"):
        DemoPlan(images={"train": 6, "val": 4})


@pytest.mark.parametrize(("share", "area"), [(0.0, 0.0), (1e-4, 0.1), (0.7, 0.7), (0.7001, 0.8), (1.0, 1.0)])
def test_rough_area(share, area):
    assert rough_area(share) == area
