"""What the benchmark of shares makes of finished runs; a real one is trained in the bundle's own tests."""

import argparse
import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from scripts.benchmarks import shares
from scripts.benchmarks.shares import SCORES
from scripts.benchmarks.slides_of_runs import SlidesOfRuns
from shared.sweeps.sweep import METRICS, Sweep

TRAINING = [str(Path(__file__).parents[2] / "bundles" / "joint_seg_cls" / "configs" / "train.json")]


def parsed(*words):
    """Arguments of the command."""
    parser = argparse.ArgumentParser()
    shares.add_arguments(parser)
    return parser.parse_args(["--config_file", *TRAINING, *words])


def options(tmp_path, *fixed):
    """Of the command, for a manifest of one slide."""
    given = [text for name, value in fixed for text in ("--set", name, value)]
    return parsed("--slides", str(tmp_path / "slides.csv"), "--output_dir", str(tmp_path / "out"), *given)


@pytest.mark.parametrize(
    ("split", "fixed", "problem"),
    [
        ("test", ("class_names", '["normal", "tumour"]'), "three classes or more; found 2 class_names"),
        ("test", ("tissue_only", "perhaps"), "expected True or False, found 'perhaps'"),
        ("train", ("lr", "0.1"), "slides.csv"),
    ],
    ids=["classes", "a value", "no test slide"],
)
def test_what_cannot_be_mapped_is_said_before_anything_is_trained(tmp_path, split, fixed, problem):
    Image.new("RGB", (8, 8)).save(tmp_path / "slide.png")
    (tmp_path / "slides.csv").write_text(f"image,label,split\nslide.png,1,{split}\n")
    with pytest.raises(ValueError, match=problem):
        shares.run(options(tmp_path, fixed))
    assert not (tmp_path / "out").exists()


def test_slides_are_mapped_with_the_keys_that_the_inference_has(tmp_path):
    """Those below its components too, but none of the groups that are there for the overlays of trainings."""
    keys = {"mpp": 4.0, "network_def::head": "paper", "lr": 0.1, "num_workers": 2}
    nested = {"train::trainer::max_epochs": 3, "loader::fill": True, "validate::evaluator::num_workers": 1}
    found = SlidesOfRuns(TRAINING, tmp_path / "slides.csv", keys | nested).keys
    assert found == {"mpp": 4.0, "network_def::head": "paper"}
    with pytest.raises(ValueError, match=r"configs/mine\.json does not exist"):
        SlidesOfRuns([*TRAINING, str(tmp_path / "mine.json")], tmp_path / "slides.csv", {})


def table_of(runs):
    """As of a sweep: a run's scores stand under its mode."""
    return pd.DataFrame(
        {"seed": seed, "masked_share": share, "mode": mode} | {f"class_pixels.{mode}.{score}": value for score in SCORES.values()}
        for seed, share, mode, value in runs
    )


def test_report(tmp_path):
    runs = [
        (0, 0.1, "S", 0.2),
        (1, 0.1, "S", 0.4),
        (0, 0.1, "S+C", 0.5),
        (1, 0.1, "S+C", 0.5),
        (0, 1.0, "S", 0.6),
        (1, 1.0, "S", 0.6),
    ]
    results = shares._report(table_of(runs), tmp_path, {})
    assert results.keys() == {"S, 0.1", "S+C, 0.1", "S, 1", "S+C, 1"}
    assert results["S, 0.1"]["BACH score mean"] == pytest.approx(0.3)
    assert results["S, 0.1"]["BACH score std"] == pytest.approx(0.02**0.5)
    # With all masks there are no labelled images left.
    assert results["S+C, 1"]["Macro F1 mean"] == results["S, 1"]["Macro F1 mean"] == pytest.approx(0.6)
    assert (tmp_path / "shares.png").is_file()


def test_panels_are_absolute_and_relative(tmp_path):
    summary = pd.DataFrame(
        [
            {"mode": "S", "masked_share": s, **{f"{n} {p}": v for n in SCORES for p, v in (("mean", m), ("std", 0.1))}}
            for s, m in ((1.0, 0.5), (0.1, 0.25))
        ]
    )
    panels = shares._panels(summary, shares.published_shares(TRAINING))
    assert panels["Macro F1"]["S"].mean == [0.25, 0.5]
    assert panels["Macro F1, of S with all masks"]["S"].mean == [0.5, 1.0]
    assert panels["Macro F1, of S with all masks"]["S"].deviation == [0.2, 0.2]
    published = {f"{mode}{trained} (published, bach)" for mode in ("S", "S+C") for trained in ("", ", trained with A08")}
    assert panels["BACH score"].keys() == {"S"} | published
    assert shares.published_shares([*TRAINING, "configs/bach.json"]) == shares.published_shares(TRAINING)
    # Of data of another kind.
    assert shares.published_shares([*TRAINING, "configs/glas.json"]) == {}
    without = shares._panels(summary[summary["masked_share"] < 1], {})
    assert without.keys() == SCORES.keys()


def test_s_plus_c_with_all_masks_is_trained_as_s_once():
    varied = {"mode": ["S", "S+C"]}
    assert not shares._is_new({"mode": "S+C", "masked_share": 1.0}, varied)
    assert shares._is_new({"mode": "S+C", "masked_share": 0.5}, varied)
    assert shares._is_new({"mode": "S+C", "masked_share": 1.0}, {"mode": ["S+C"]})


def test_the_validation_slide_rotates_by_one_command(tmp_path, monkeypatch):
    """Finished runs stand for trainings: every mode and share has each seed once, with the slide that belongs to it."""
    trained = []

    def finished(sweep):
        for values in sweep.combinations:
            trained.append(values)
            # A score that says which slide chose the epoch.
            scores = dict.fromkeys(SCORES.values(), {"A04": 0.2, "A05": 0.6}[values["validation_case"]])
            file = sweep.folder(values) / METRICS
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps({"class_pixels": {values["mode"]: scores}}))

    monkeypatch.setattr(Sweep, "run", finished)
    command = ["--shares", "0.1", "1", "--modes", "S", "S+C", "--seeds", "0", "1", "--validation_cases", "A04", "A05"]
    results = shares.run(parsed("--output_dir", str(tmp_path / "out"), *command))
    runs = sorted((run["validation_case"], run["seed"], run["masked_share"], run["mode"]) for run in trained)
    # With all masks S+C is S.
    kinds = [(0.1, "S"), (0.1, "S+C"), (1.0, "S")]
    assert runs == [(case, seed, *kind) for case, seed in (("A04", 0), ("A05", 1)) for kind in kinds]
    # Over both slides at once, a mean and a deviation of two runs.
    assert results.keys() == {"S, 0.1", "S+C, 0.1", "S, 1", "S+C, 1"}
    for row in results.values():
        assert (row["BACH score mean"], row["BACH score std"]) == pytest.approx((0.4, 0.08**0.5))
    with pytest.raises(ValueError, match=r"one of --validation_cases per seed \(3\), found 2"):
        shares.run(parsed("--output_dir", str(tmp_path / "out"), *command, "--seeds", "0", "1", "2"))


def test_each_seed_has_its_validation_slide():
    assert shares.case_of_seed([3, 4], ["A04", "A05"]) == {3: "A04", 4: "A05"}
    assert shares.case_of_seed([3, 4], None) == {3: None, 4: None}
    with pytest.raises(ValueError, match=r"expected one of --validation_cases per seed \(2\), found 1"):
        shares.case_of_seed([3, 4], ["A04"])


@pytest.mark.parametrize(
    ("modes", "trained"), [(["S", "S+C", "S+C*"], ["S+C"]), (["S", "S+C*"], ["S+C*"]), (["S", "S+C"], ["S+C"])]
)
def test_without_masks_labels_alone_are_trained_with_once(modes, trained):
    assert [mode for mode in modes if shares._is_new({"mode": mode, "masked_share": 0.0}, {"mode": modes})] == trained


def test_labels_alone_and_the_classes(tmp_path):
    """Without masks S+C* is S+C; class 0 is background."""
    table = table_of([(0, 0.0, "S+C", 0.3), (0, 0.5, "S+C*", 0.4)])
    table["classes.normal.f1"], table["classes.benign.f1"] = [0.9, 0.8], [0.1, 0.2]
    results = shares._report(table, tmp_path, {})
    assert results["S+C*, 0"]["Macro F1 mean"] == pytest.approx(0.3)
    assert [results[name]["F1, benign mean"] for name in ("S+C, 0", "S+C*, 0.5")] == pytest.approx([0.1, 0.2])
    assert not any("normal" in name for name in results["S+C, 0"])
