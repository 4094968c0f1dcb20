"""Every overlay of CAMEL, alone and in the combinations that it names, to its end on tiny data."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from .conftest import SMALL_UNET
from .runs import messages_of, metrics_of

UNCONSTRAINED = ("retrain_unconstrained",)
# What each leaves behind next to evaluation/, segmentation/ and model.pt.
TRAININGS = {
    UNCONSTRAINED: {"max_max", "max_min", "construct", "retrain", "relabel"},
    (*UNCONSTRAINED, "max_max"): {"max_max", "construct", "retrain", "relabel"},
    (*UNCONSTRAINED, "max_min"): {"max_max", "max_min", "construct", "retrain", "relabel"},
    (*UNCONSTRAINED, "instance_fsb"): {"construct", "retrain", "relabel"},
    ("image_fsb",): {"max_max"},  # for the warm start
    ("pixel_fsb", "unet"): set(),
    ("n8",): {"max_max", "max_min", "construct", "retrain", "relabel"},
    ("n8", "cascade"): {"max_max", "max_min", "construct", "retrain", "relabel"}
    | {f"{ring}_{stage}" for ring in ("outer", "inner") for stage in ("max_max", "max_min", "construct")},
}

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("overlays", TRAININGS, ids="+".join)
def test_an_overlay_trains_to_its_end(camel, tmp_path, capsys, overlays):
    more: dict[str, Any] = SMALL_UNET if "unet" in overlays else {}
    if "n8" in overlays:
        # In so small instances an epoch finds no tumour at all, which is an error.
        more = {"retrain::num_epochs": 4}
    camel.train_here(*overlays, output_dir=tmp_path, **more)
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert folders == TRAININGS[overlays] | {"segmentation", "evaluation"}
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".part" or path.name == "resume.pt"]
    metrics = metrics_of(tmp_path)
    method = json.loads((tmp_path / "config.json").read_text())["evaluation"].get("method", "CAMEL")
    assert method in metrics["pixels"]
    assert method in capsys.readouterr().out


def test_a_backbone_alone(camel, tmp_path):
    """The segmentation keeps its own, and starts from nothing."""
    tiny = {name: value for name, value in camel.tiny.items() if name != "segmentation_backbone"}
    alone = type(camel)(camel.name, camel.data, tiny)
    alone.train_here(output_dir=tmp_path, **{"cmil::num_epochs": 1, "max_min::num_epochs": 1})
    assert (tmp_path / "evaluation/metrics.json").is_file()


def test_criteria_of_the_picks(camel, tmp_path):
    """Max-Max alone picks an instance of an image at most, and by that criterion; FSB takes every instance."""
    stop = ["@run_max_max", "@run_construct"]
    camel.train_here(*UNCONSTRAINED, "max_max", output_dir=tmp_path / "max_max", run=stop)
    picks = pd.read_csv(tmp_path / "max_max/construct/picks.csv")
    assert set(picks["criterion"]) == {"max_max"}
    assert picks["image"].is_unique
    camel.train_here(*UNCONSTRAINED, "instance_fsb", output_dir=tmp_path / "fsb", run=stop[1:])
    everything = pd.read_csv(tmp_path / "fsb/construct/picks.csv")
    assert len(everything) == 16 * 4 * 4
    assert 0 < everything["label"].mean() < 0.5


def test_the_cascade_adds_its_picks(camel, tmp_path):
    """Equal places are merged: the instances of retrain are the union of both constructs."""
    workflow = camel.workflow("train", "n8", "cascade", output_dir=str(tmp_path))
    lists = [pd.read_csv(write_picks(camel, tmp_path / name, at)) for name, at in (("construct", 0), ("inner_construct", 8))]
    records = workflow.parser.get_parsed_content("retrain::dataset::data")
    assert len(records) == len(pd.concat(lists).drop_duplicates(["image", "x", "y"])) == 6


def test_picks_are_over_sampled_as_the_images_are(camel, tmp_path):
    """Of 16 images 8 have tumour: with four of these left out, each pick of the others comes twice."""
    table = camel.manifest()
    few = table.drop(table.index[(table["split"] == "train") & (table["label"] == 1)][4:])
    few.to_csv(tmp_path / "few.csv", index=False)
    write_picks(camel, tmp_path / "construct", 0)
    options = {"output_dir": str(tmp_path), "manifest": str(tmp_path / "few.csv")}
    parser = camel.workflow("train", "oversampled_picks", **options).parser
    labels = [record["label"] for record in parser.get_parsed_content("retrain::dataset::data")]
    picks = pd.read_csv(tmp_path / "construct/picks.csv")["label"]
    assert [labels.count(label) for label in (0, 1)] == [(picks == 0).sum(), 2 * (picks == 1).sum()]
    assert parser.get_parsed_content("retrain::instances").num_samples == len(labels)


def test_the_enriched_labels_are_scored_in_training_and_afterwards(camel, tmp_path):
    """The paper's Table 2: against the masks of the training images, which nothing learns from; here of half of the images."""
    camel.train_here(output_dir=tmp_path, training_truth="mask", training_share=0.5)
    scores = metrics_of(tmp_path)["instances"]["Enriched labels (train)"]
    labels = "".join(pd.read_csv(tmp_path / "relabel/instance_labels.csv", dtype={"instances": str})["instances"])
    truth = [record for record in camel.manifest().to_dict("records") if record["split"] == "train"]
    assert len(labels) == 16 * len(truth) // 2
    assert 0 < scores["accuracy"] <= 1
    names = ("image_size_px", "backbone", "segmentation_backbone")
    options = {name: camel.tiny[name] for name in names} | {"output_dir": tmp_path, "evaluation_dir": tmp_path / "again"}
    again = camel.evaluate_here(training_truth="mask", training_share=0.5, **options)
    assert again["instances"]["Enriched labels (train)"] == scores
    assert "Enriched labels (train)" not in camel.evaluate_here(**options)["instances"]


def test_a_training_image_without_the_mask_that_scores_it_is_missed_at_once(camel, tmp_path):
    table = camel.manifest()
    row = table.index[(table["split"] == "train") & (table["label"] == 1)][0]
    table.loc[row, "mask"] = None
    table.to_csv(tmp_path / "images.csv", index=False)
    options = {"manifest": str(tmp_path / "images.csv"), "training_truth": "mask", "output_dir": str(tmp_path / "run")}
    with pytest.raises(RuntimeError) as caught:
        camel.workflow("train", **options).run()
    assert f"row {row + 2}: the column 'mask' is empty" in messages_of(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_single_pass_over_all_instances_trains(camel, tmp_path):
    stages = ("max_max", "max_min", "construct", "retrain")
    options = {"single_pass": True, "isotropic_magnification": True, "run": [f"@run_{stage}" for stage in stages]}
    camel.train_here(output_dir=tmp_path, **options)
    assert (tmp_path / "retrain/model.pt").is_file()


def write_picks(camel, folder: Path, at_px: int) -> Path:
    """Four picks in two images: one at a place of its own, one at a place that both lists share."""
    folder.mkdir()
    images = pd.read_csv(camel.data / "images.csv").iloc[:2]
    rows = [
        {
            "image": camel.data / name,
            "x": x,
            "y": at_px if x else 32,
            "width_px": 8,
            "height_px": 8,
            "label": label,
            "split": "train",
        }
        for name, label in zip(images["image"], images["label"], strict=True)
        for x in (0, 16)
    ]
    pd.DataFrame(rows).to_csv(folder / "picks.csv", index=False)
    return folder / "picks.csv"


def test_adenoma_trains_on_image_labels_alone(camel, tmp_path):
    """The authors' own format: image_name,label, no masks, no split."""
    images = pd.read_csv(camel.data / "images.csv")
    table = pd.DataFrame({"image_name": images["image"], "label": images["label"]})
    manifest = camel.data / "adenoma_labels.csv"
    table.to_csv(manifest, index=False)
    camel.train_here("adenoma", output_dir=tmp_path, manifest=str(manifest))
    metrics = metrics_of(tmp_path)
    assert metrics.keys() == {"split", "num_images", "threshold", "images"}
    assert metrics["images"].keys() == {"Max-Max", "Max-Min", "Retrain", "CAMEL"}
    columns = pd.read_csv(tmp_path / "evaluation" / "images.csv").columns
    assert {"image", "label", "max_probability"} <= set(columns)


@pytest.mark.parametrize("overlays", [("camelyon16",), ("camelyon16", "n8", "cascade"), ("n8", "unet"), ("image_fsb", "unet")])
def test_every_stage_of_a_combination_can_be_built(camel, tmp_path, overlays):
    """Their own numbers, and the tiny images only in place of data that is not here."""
    data = {"manifest": str(camel.data / "images.csv"), "tracking::enabled": False}
    workflow = camel.workflow("train", *overlays, output_dir=str(tmp_path), **data)
    stages = ["max_max", "max_min"] if "image_fsb" not in overlays else []
    stages += ["outer_max_max", "outer_max_min"] if "cascade" in overlays else []
    assert workflow.parser.get_parsed_content("validate") is not None
    for stage in stages:
        assert workflow.parser.get_parsed_content(f"{stage}::trainer") is not None
