import dataclasses
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.synthetic import DemoPlan, SlidePlan, demo, demo_manifest, rough_area, write_demo
from shared.synthetic.demo import PLANS, slide_cohort

from .data_sets import contents, rows

PLAN = DemoPlan(
    images={"train": 8, "val": 4, "test": 4},
    size_px=64,
    slides=(SlidePlan("train", 0.3, (310, 430)), SlidePlan("test", 0.0, (330, 390))),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_demo(tmp_path_factory.mktemp("work") / "data" / "demo", PLAN)


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


def test_a_folder_that_holds_tissue_alone_is_filled(folder, tmp_path):
    """As it is where own slides were trained on first."""
    (tmp_path / "demo/tissue").mkdir(parents=True)
    (tmp_path / "demo/tissue/own.png").write_bytes(b"kept")
    write_demo(tmp_path / "demo", PLAN)
    assert (tmp_path / "demo/tissue/own.png").read_bytes() == b"kept"
    shutil.rmtree(tmp_path / "demo/tissue")
    assert contents(tmp_path / "demo") == contents(folder)


def test_tissue_outlives_the_data(tmp_path, monkeypatch):
    folder = write_demo(tmp_path / "demo", PLAN)
    (folder / "tissue").mkdir()
    (folder / "tissue/own.png").write_bytes(b"kept")
    monkeypatch.setattr(demo, "GENERATOR_VERSION", demo.GENERATOR_VERSION + 1)
    write_demo(folder, PLAN)
    assert (folder / "tissue/own.png").read_bytes() == b"kept"
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_manifest_is_generated_only_as_the_embedded_default(folder, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(demo, "write_demo", lambda *arguments: calls.append(arguments))
    assert demo_manifest(folder / "images.csv") == str(folder / "images.csv")
    assert demo_manifest(tmp_path / "demo" / "images.csv") == str(tmp_path / "demo" / "images.csv")
    monkeypatch.chdir(tmp_path)
    assert demo_manifest("data/other/images.csv") == "data/other/images.csv"
    assert demo_manifest("data/demo/deeper/images.csv") == "data/demo/deeper/images.csv"
    assert calls == []
    for name, plan in PLANS.items():
        assert demo_manifest(f"data/{name}/slides.csv") == f"data/{name}/slides.csv"
        assert calls.pop() == (Path(tmp_path) / "data" / name, plan)


def test_a_named_data_set_is_generated_by_its_plan(tmp_path, monkeypatch):
    plan = DemoPlan(seed=3, images={}, slides=(SlidePlan("val", 0.2, (310, 390)),))
    monkeypatch.setattr(demo, "PLANS", {"demo": PLAN, "demo_slides": plan})
    monkeypatch.chdir(tmp_path)
    demo_manifest("data/demo_slides/slides.csv")
    assert [path.name for path in Path("data").iterdir()] == ["demo_slides"]
    assert [row["split"] for row in rows(Path("data/demo_slides/slides.csv"))] == ["val"]
    assert rows(Path("data/demo_slides/images.csv")) == []
    before = contents(Path("data/demo_slides"))
    assert before == contents(write_demo("again", plan))
    demo_manifest("data/demo_slides/slides.csv")
    assert contents(Path("data/demo_slides")) == before


def test_a_named_data_set_of_an_older_generator_is_generated_again(tmp_path, monkeypatch):
    slides = (SlidePlan("val", 0.0, (310, 390)),)
    monkeypatch.setattr(demo, "PLANS", {"demo": DemoPlan(images={}, slides=slides)})
    monkeypatch.chdir(tmp_path)
    # Another plan of the same version is somebody's choice.
    write_demo("data/demo", DemoPlan(seed=1, images={}, slides=slides))
    before = contents(Path("data/demo"))
    demo_manifest("data/demo/slides.csv")
    assert contents(Path("data/demo")) == before
    monkeypatch.setattr(demo, "GENERATOR_VERSION", demo.GENERATOR_VERSION + 1)
    demo_manifest("data/demo/slides.csv")
    assert json.loads(Path("data/demo/generated.json").read_text())["seed"] == 0


def test_manifests_of_others_are_left(tmp_path, monkeypatch):
    folder = tmp_path / "data/demo_slides"
    folder.mkdir(parents=True)
    for marker in (None, "no JSON", "{}"):
        (folder / "slides.csv").write_text("image\nmine.tif\n")
        if marker is not None:
            (folder / "generated.json").write_text(marker)
        demo_manifest(folder / "slides.csv")
        assert (folder / "slides.csv").read_text() == "image\nmine.tif\n"


@pytest.mark.parametrize("shares", [(0.1, 0.6), (0.02, 0.1), (0.3, 0.3)])
def test_a_cohort_is_half_normal_and_half_within_the_shares(shares):
    cohort = slide_cohort({"train": 100, "val": 7, "test": 1}, shares)
    assert [plan.split for plan in cohort] == ["train"] * 100 + ["val"] * 7 + ["test"]
    for split, num_tumour, num_slides in (("train", 50, 100), ("val", 4, 7), ("test", 1, 1)):
        drawn = [plan.tumour_share for plan in cohort if plan.split == split]
        assert (sum(share > 0 for share in drawn), len(drawn)) == (num_tumour, num_slides)
    drawn = np.array([plan.tumour_share for plan in cohort if plan.tumour_share > 0])
    assert drawn.min() >= shares[0] * (1 - 1e-9)
    assert drawn.max() <= shares[1] * (1 + 1e-9)
    # As many below the middle of the logarithms as above it.
    if shares[0] < shares[1]:
        assert np.median(drawn) == pytest.approx(np.sqrt(shares[0] * shares[1]), rel=0.25)


def test_sizes_and_seeds_of_a_cohort():
    cohort = slide_cohort({"train": 60}, (0.1, 0.6))
    heights, widths = np.array([plan.size_px for plan in cohort]).T
    assert len({plan.size_px for plan in cohort}) == 60
    assert 1000 < heights.min() < heights.max() <= widths.min() < widths.max()
    assert slide_cohort({"train": 60}, (0.1, 0.6)) == cohort
    assert slide_cohort({"train": 60}, (0.1, 0.6), seed=1) != cohort
    # More slides of a split leave the first as they were.
    assert slide_cohort({"train": 61}, (0.1, 0.6))[:60] == cohort


def test_named_plans():
    assert set(PLANS) == {"demo", "demo_slides", "demo_small_lesions", "demo_breast"}
    assert PLANS["demo"] == DemoPlan()
    assert PLANS["demo_slides"].slides != PLANS["demo_small_lesions"].slides
    for name, largest in (("demo_slides", 0.6), ("demo_small_lesions", 0.1)):
        plan = PLANS[name]
        assert not plan.images
        for split in ("train", "val", "test"):
            shares = [slide.tumour_share for slide in plan.slides if slide.split == split]
            assert sum(share > 0 for share in shares) * 2 == len(shares) >= 8
            assert max(shares) <= largest
    assert len({json.dumps(plan.record(), sort_keys=True) for plan in PLANS.values()}) == 4


def test_threads_change_no_byte(tmp_path, monkeypatch):
    slides = tuple(SlidePlan("train", share, size) for share, size in ((0.3, (310, 430)), (0.0, (330, 390)), (0.1, (350, 410))))
    plan = DemoPlan(images={}, slides=slides * 2)
    written = []
    for num_threads in (4, 1):
        monkeypatch.setattr(demo, "_MAX_THREADS", num_threads)
        monkeypatch.setattr(os, "cpu_count", lambda: 4)
        written.append(contents(write_demo(tmp_path / f"demo_{num_threads}", plan)))
    assert written[0] == written[1]
    # A slide follows from its number and its plan, whatever else the plan has.
    alone = contents(write_demo(tmp_path / "demo", DemoPlan(images={}, slides=slides[:1])))
    for name in ("slides/slide_00.tif", "slide_masks/slide_00.png"):
        assert alone[name] == written[0][name]
    assert [row["image"] for row in rows(tmp_path / "demo_4/slides.csv")] == [
        f"slides/slide_{index:02d}.tif" for index in range(6)
    ]


def test_rejects_odd_numbers_of_images():
    with pytest.raises(ValueError, match=r"multiples of 4 images.*'train': 6"):
        DemoPlan(images={"train": 6, "val": 4})


@pytest.mark.parametrize(("share", "area"), [(0.0, 0.0), (1e-4, 0.1), (0.7, 0.7), (0.7001, 0.8), (1.0, 1.0)])
def test_rough_area(share, area):
    assert rough_area(share) == area
