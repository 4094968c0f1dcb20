import dataclasses
import json
import os

import numpy as np
import openslide
import pytest
from PIL import Image

from shared.synthetic import BreastPlan, BreastSlidePlan, breast_demo, demo, demo_manifest, synthesize_breast_patch, write_demo
from shared.synthetic.demo import PLANS

from .data_sets import contents, rows

SLIDES = (BreastSlidePlan("train", (1, 3), (330, 410)), BreastSlidePlan("test", (2,), (350, 390)))
PLAN = BreastPlan(masked={"train": 8, "val": 4, "test": 4}, labelled={"train": 8}, size_px=64, slides=SLIDES)
TINY = dataclasses.replace(PLAN, masked={"train": 4}, labelled={"train": 4}, slides=SLIDES[1:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_demo(tmp_path_factory.mktemp("work") / "data" / "demo_breast", PLAN)


def test_manifest_of_the_images_agrees_with_the_masks(folder):
    found = rows(folder / "images.csv")
    assert list(found[0]) == ["image", "label", "area", "mask", "case_id", "split", "mpp"]
    assert [(row["split"], bool(row["mask"])) for row in found] == [
        *[("train", True)] * 8,
        *[("val", True)] * 4,
        *[("test", True)] * 4,
        *[("train", False)] * 8,
    ]
    for row in found:
        assert (row["area"], row["mpp"]) == ("", "8.0")
        image = Image.open(folder / row["image"])
        assert (image.mode, image.size) == ("RGB", (64, 64))
        if row["mask"]:
            mask = Image.open(folder / row["mask"])
            assert (mask.mode, mask.size) == ("L", (64, 64))
            classes = set(np.unique(mask))
            assert classes <= {0, 1, 2, 3}
            assert classes - {0} if row["label"] != "0" else classes == {0}
            assert int(row["label"]) in classes
    assert len(list((folder / "masks").iterdir())) == 16


def test_every_part_has_as_many_of_each_class(folder):
    found = rows(folder / "images.csv")
    for split, has_mask in {(row["split"], bool(row["mask"])) for row in found}:
        labels = [row["label"] for row in found if (row["split"], bool(row["mask"])) == (split, has_mask)]
        assert len({labels.count(label) for label in "0123"}) == 1


def test_cases_are_disjoint_and_hold_every_class(folder):
    found = rows(folder / "images.csv")
    cases = {row["case_id"]: [] for row in found}
    for row in found:
        cases[row["case_id"]].append(row)
    assert len(cases) == 6
    for of_case in cases.values():
        assert len({row["split"] for row in of_case}) == len({bool(row["mask"]) for row in of_case}) == 1
        assert sorted(row["label"] for row in of_case) == ["0", "1", "2", "3"]


def test_images_are_those_of_the_generator(folder):
    """A case has one stain, and its images follow from seed, case and class."""
    for name, case, label, centred in (("case_0001_2", 1, 2, True), ("case_3000_1", 3000, 1, False)):
        stain = demo.sample_stain(np.random.default_rng(np.random.SeedSequence(0, spawn_key=(0, case))))
        seed = np.random.SeedSequence(0, spawn_key=(1, case, label))
        patch = synthesize_breast_patch(seed, label, centred, 64, stain)
        np.testing.assert_array_equal(np.asarray(Image.open(folder / "images" / f"{name}.png")), patch.image)


def test_manifest_of_the_slides(folder):
    found = rows(folder / "slides.csv")
    assert [(row["label"], row["split"], row["mpp"]) for row in found] == [("3", "train", "4.0"), ("2", "test", "4.0")]
    for row, plan in zip(found, SLIDES, strict=True):
        mask = np.asarray(Image.open(folder / row["mask"]))
        assert mask.shape == plan.size_px
        assert set(np.unique(mask)) == {0, *plan.lesions}
        assert 0 < float(row["area"]) < 1
        # The share of the tissue, which is not all of the slide.
        assert (mask > 0).mean() < float(row["area"])
        with openslide.OpenSlide(str(folder / row["image"])) as slide:
            assert slide.dimensions == plan.size_px[::-1]
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(4.0)


def test_threads_change_no_byte(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    # Once more with several, whatever the machine that wrote `folder` has.
    for num_threads in (4, 1):
        monkeypatch.setattr(breast_demo, "_MAX_THREADS", num_threads)
        assert contents(write_demo(tmp_path / f"demo_{num_threads}", PLAN)) == contents(folder)


def test_a_part_does_not_depend_on_the_size_of_the_others(folder, tmp_path):
    fewer = contents(write_demo(tmp_path / "demo", TINY))
    whole = contents(folder)
    pictures = [name for name in fewer if name.startswith(("images/", "masks/"))]
    assert len(pictures) == 4 + 4 + 4
    assert all(fewer[name] == whole[name] for name in pictures)


def test_interrupted_run_leaves_nothing_and_is_redone(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    for part in ("write_slide", "synthesize_breast_patch"):
        with monkeypatch.context() as patch:
            patch.setattr(breast_demo, part, fail)
            with pytest.raises(KeyboardInterrupt):
                write_demo(tmp_path / "demo", TINY)
        assert not list(tmp_path.iterdir())
    first = contents(write_demo(tmp_path / "demo", TINY))
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert contents(write_demo(tmp_path / "demo", TINY)) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


def test_versions_of_the_two_generators_are_independent(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(demo, "PLANS", {"demo_breast": TINY})
    write_demo(tmp_path / "data/demo_breast", TINY)
    monkeypatch.setattr(demo, "write_demo", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(demo, "GENERATOR_VERSION", demo.GENERATOR_VERSION + 1)
    demo_manifest(tmp_path / "data/demo_breast/images.csv")
    assert not calls
    monkeypatch.setattr(breast_demo, "BREAST_VERSION", breast_demo.BREAST_VERSION + 1)
    demo_manifest(tmp_path / "data/demo_breast/images.csv")
    assert calls == [(tmp_path / "data/demo_breast", TINY)]


def test_default_plan():
    plan = PLANS["demo_breast"]
    assert plan == BreastPlan()
    assert plan.masked == {"train": 120, "val": 80, "test": 160}
    assert plan.labelled == {"train": 480}
    assert plan.num_pictures == 840 + 4
    assert json.loads(json.dumps(plan.record())) == plan.record()
    assert {slide.split for slide in plan.slides} == {"train", "val", "test"}
    for slide in plan.slides:
        assert len(set(slide.lesions)) in (2, 3)


@pytest.mark.parametrize("name", ["masked", "labelled"])
def test_rejects_odd_numbers_of_images(name):
    with pytest.raises(ValueError, match=rf"multiples of 4 {name} images.*'train': 6"):
        BreastPlan(**{name: {"train": 6}})
    with pytest.raises(ValueError, match=r"at most 4000; got \{'train': 4004"):
        BreastPlan(**{name: {"train": 4004}})
    with pytest.raises(ValueError, match=f"train, val, test in {name}; got train, extra"):
        BreastPlan(**{name: {"train": 4, "extra": 4}})
