"""Alpha/beta MIL's configurations, to their end on tiny slides: whole, killed, shared by two processes, variants, in use."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient

from ..evaluation.test_patch_evaluation import write_patches
from .runs import files_of, messages_of, metrics_of, weights_of

TEST_SLIDES = ["slide_08", "slide_09", "slide_10"]
VALIDATION_SLIDES = ["slide_06", "slide_07"]
MAPS = {
    f"{part}/maps/{name}"
    for part, slides in (("evaluation", TEST_SLIDES), ("calibration", VALIDATION_SLIDES))
    for name in (
        *(f"{slide}{ending}" for slide in slides for ending in (".geojson", ".ome.tif", ".png")),
        "settings.json",
        "slides.csv",
        "slides_to_map.csv",
    )
}
RESULTS = {
    "calibration.json",
    "config.json",
    "evaluation/examples.png",
    "evaluation/metrics.json",
    "evaluation/slides.csv",
    "mlflow.json",
    "model.pt",
    "pixel_statistics.json",
    "tiles/history.csv",
    "tiles/model.pt",
} | MAPS
METHOD = "Alpha/beta MIL"


def results_of(folder: Path) -> set[str]:
    """Files of a training but for a row and a lock a slide, which belong to the maps."""
    return {name for name in files_of(folder) if "/maps/rows/" not in name}


pytestmark = pytest.mark.slow


def test_the_whole_training_leaves_its_files(trained_alpha_beta):
    assert results_of(trained_alpha_beta.folder) == RESULTS
    rows = list(csv.DictReader((trained_alpha_beta.folder / "tiles/history.csv").open()))
    assert [float(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {"train_loss", "val_slide_auc", "val_proxy_auc", "val_tile_auc"} <= set(rows[0])


def test_the_network_carries_the_statistics_of_the_training_slides(trained_alpha_beta):
    statistics = json.loads((trained_alpha_beta.folder / "pixel_statistics.json").read_text())
    weights = weights_of(trained_alpha_beta.folder / "model.pt")
    assert weights["normalization.mean"].flatten().tolist() == pytest.approx(statistics["mean"])
    assert weights["normalization.std"].flatten().tolist() == pytest.approx(statistics["std"])


def test_pixels_and_slides_are_scored_and_printed(trained_alpha_beta):
    metrics = metrics_of(trained_alpha_beta.folder)
    assert metrics["num_slides"] == 3
    assert metrics["threshold"] == json.loads((trained_alpha_beta.folder / "calibration.json").read_text())["threshold"]
    for part in ("pixels_tissue", "pixels_all"):
        # Tumour has a colour of its own in these slides.
        assert metrics[part][METHOD]["auc"] > 0.8
        assert metrics[part]["Everything is tumour"]["sensitivity"] == 1
    assert metrics["slides"][METHOD]["auc"] == 1
    lines = trained_alpha_beta.process.stdout.splitlines()
    assert sum(line.startswith("Pixels, tissue only (%)") for line in lines) == 1
    table = pd.read_csv(trained_alpha_beta.folder / "evaluation/slides.csv")
    assert table["slide"].tolist() == TEST_SLIDES
    assert table["label"].tolist() == [1, 0, 1]


def test_the_gap_between_the_modes_of_batch_normalisation_is_reported(trained_alpha_beta):
    result = json.loads((trained_alpha_beta.folder / "calibration.json").read_text())
    assert result["num_slides"] == 2
    assert result["eval"].keys() == result["train"].keys() == {"slide_auc", "proxy_auc", "tile_auc"}
    assert 0 < result["mode_gap"] < 1


def test_mlflow_has_every_stage(trained_alpha_beta):
    client, by_name = trained_alpha_beta.tracked_runs()
    assert by_name.keys() == {"run", "run/tiles", "run/calibration", "run/evaluation"}
    assert by_name["run"].data.params["alpha"] == "0.2"
    assert {"threshold", "mode_gap", "eval.slide_auc", "train.slide_auc"} <= by_name["run/calibration"].data.metrics.keys()
    evaluation = by_name["run/evaluation"]
    assert {"pixels_tissue.alpha_beta_mil.auc", "slides.alpha_beta_mil.auc"} <= evaluation.data.metrics.keys()
    logged = {file.path for file in client.list_artifacts(evaluation.info.run_id)}
    assert logged == {"metrics.json", "slides.csv", "examples.png"}


@pytest.mark.parametrize("moment", ["tiles/resume.pt", "evaluation/maps/slides.csv"])
def test_killed_it_ends_with_the_same_numbers(trained_alpha_beta, tmp_path, moment):
    folder = tmp_path / "killed"
    said = trained_alpha_beta.killed(folder, {moment: "evaluation/metrics.json"})
    expected = "tiles: resumes after epoch" if moment.startswith("tiles") else "tiles: already finished"
    assert expected in said
    # The maps' table says how long each took and where it lies.
    for run in (folder, trained_alpha_beta.folder):
        rows = pd.read_csv(run / "evaluation/maps/slides.csv")
        assert (rows["status"] == "ok").all()
    assert results_of(folder) == RESULTS
    assert metrics_of(folder) == metrics_of(trained_alpha_beta.folder)
    for name in ("tiles/history.csv", "evaluation/slides.csv", "calibration.json"):
        assert (folder / name).read_text() == (trained_alpha_beta.folder / name).read_text(), name
    torch.testing.assert_close(
        weights_of(folder / "model.pt"), weights_of(trained_alpha_beta.folder / "model.pt"), rtol=0, atol=0
    )


def test_two_processes_train_as_one(alpha_beta, trained_alpha_beta, tmp_path):
    # Not Adam, whose first steps follow the sign of gradients that may be all rounding.
    options = alpha_beta.tiny | {"optimizer::_target_": "torch.optim.SGD", "norm": "group"}
    del options["slides_per_step"]
    # Colours are drawn by each process for its own tiles.
    options |= {"train::preprocessing": "$None"}
    folder = tmp_path / "two"
    # The paper's one slide a step is one for each process.
    trained_alpha_beta.by_two_processes(folder, "Pixels, tissue only (%)", **options, slides_per_step=1)
    one = tmp_path / "one"
    alpha_beta.train_here(output_dir=one, **options | {"slides_per_step": 2})
    torch.testing.assert_close(weights_of(folder / "model.pt"), weights_of(one / "model.pt"), rtol=1e-4, atol=1e-5)
    assert metrics_of(folder)["num_slides"] == metrics_of(one)["num_slides"] == 3
    ours, theirs = (metrics_of(run)["pixels_tissue"][METHOD]["auc"] for run in (folder, one))
    assert ours == pytest.approx(theirs, abs=0.01)


VARIANTS = {
    "one slide a step": {"slides_per_step": 1},
    "group": {"norm": "group"},
    "frozen": {"norm": "frozen"},
    "dense": {"dense_stride": 16},
    "one logit a tile": {"map_dense_stride": None},
    "white pixels": {"tissue_method": "white", "min_tissue": 0.25},
    "stain": {"stain_jitter": 0.2, "beta": 0.0},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_a_variant_trains_to_its_end(alpha_beta, tmp_path, options):
    alpha_beta.train_here(output_dir=tmp_path / "run", **alpha_beta.tiny | {"num_epochs": 1} | options)
    assert metrics_of(tmp_path / "run")["pixels_tissue"][METHOD]["auc"] is not None
    gap = json.loads((tmp_path / "run/calibration.json").read_text())["mode_gap"]
    assert (gap == 0) == (options.get("norm") in ("group", "frozen"))


def test_the_settings_of_the_paper(alpha_beta, tmp_path):
    """tcga.json, but for the network and the number of epochs."""
    tiny = {
        "backbone": "resnet10",
        "pretrained": False,
        "tile_size_px": 64,
        "margin_px": 16,
        "num_epochs": 1,
        "num_workers": 0,
    }
    options = tiny | {"tiles_per_slide": 20, "amp_dtype": "$None", "output_dir": str(tmp_path), "tracking::enabled": False}
    alpha_beta.workflow("train", "tcga", **options).run()
    metrics = metrics_of(tmp_path)
    # Of those slides that have masks, which are all of these.
    assert metrics["pixels_tissue"][METHOD]["auc"] is not None
    assert metrics["slides"][METHOD]["auc"] is not None


def test_the_released_settings_and_ensemble(alpha_beta, tmp_path):
    """Of three models that answer together the threshold is 0.3, and no pixel of a normal slide is tumour."""
    for seed in range(3):
        options = alpha_beta.tiny | {"num_epochs": 1, "seed": seed, "calibration_slides": 2}
        workflow = alpha_beta.train_here("released", output_dir=tmp_path / f"runs/{seed}", **options)
    augmentation, bags = (workflow.parser.get_parsed_content(name) for name in ("train::preprocessing", "train::dataset"))
    assert (augmentation.colour_jitter, augmentation.hue_jitter) == (0.1, 0.01)
    assert (bags.tissue.method, bags.min_tissue) == ("white", 0.25)
    assert json.loads((tmp_path / "runs/0/calibration.json").read_text())["num_slides"] == 2
    options = {name: alpha_beta.tiny[name] for name in ("backbone", "tile_size_px", "margin_px", "tissue_mpp", "num_workers")}
    options |= {"runs": f"{tmp_path}/runs/*/model.pt", "output_dir": tmp_path, "evaluation_dir": tmp_path / "evaluation"}
    metrics = alpha_beta.evaluate_here("released", "ensemble", "released_ensemble", **options)
    assert metrics["threshold"] == 0.3
    table = pd.read_csv(tmp_path / "evaluation/slides.csv").set_index("label")
    assert table.loc[0, ["tp", "fp"]].tolist() == [0, 0]
    assert (table.loc[1, ["tp", "fp"]].sum(axis=1) > 0).all()


def test_the_threshold_comes_from_as_many_slides_as_asked_for(alpha_beta, tmp_path):
    manifest = alpha_beta.manifest("slides.csv")
    extra = manifest[manifest["split"] == "train"].index[:4]
    manifest.loc[extra, "split"] = "val"
    manifest.to_csv(tmp_path / "slides.csv", index=False)
    options = {**alpha_beta.tiny, "manifest": str(tmp_path / "slides.csv"), "output_dir": str(tmp_path / "run")}
    parser = alpha_beta.workflow("train", **options, calibration_slides=3).parser
    chosen, whole = (parser.get_parsed_content(name) for name in ("calibration_records", "val_records"))
    assert (len(chosen), len(whole)) == (3, 6)
    assert {record["label"] for record in chosen} == {0, 1}
    assert parser.get_parsed_content("calibration_bags").data == chosen
    given = [parser[f"calibration::{name}"] for name in ("maps::records", "dataset")]
    assert given == ["@calibration_records", "@calibration_bags"]


def test_without_masks_slides_are_scored(alpha_beta, tmp_path):
    table = alpha_beta.manifest("slides.csv")
    table.drop(columns=["mask", "area"]).to_csv(tmp_path / "slides.csv", index=False)
    options = alpha_beta.tiny | {"manifest": str(tmp_path / "slides.csv"), "num_epochs": 1}
    with pytest.raises(RuntimeError) as caught:
        alpha_beta.train_here(output_dir=tmp_path / "run", **options)
    assert "the column 'mask' is empty" in str(caught.value.__cause__)
    alpha_beta.train_here(output_dir=tmp_path / "run", truth=None, **options)
    assert metrics_of(tmp_path / "run").keys() >= {"slides", "num_slides"}


def test_training_and_inference_have_the_properties_that_monai_asks_for(alpha_beta, trained_alpha_beta):
    assert trained_alpha_beta.workflow().check_properties() == []
    options = {name: alpha_beta.tiny[name] for name in ("backbone", "tile_size_px", "margin_px")}
    checkpoints = [str(trained_alpha_beta.folder / "model.pt")]
    prediction = alpha_beta.infer_here(checkpoints=checkpoints, **options)
    assert prediction.shape == (24,)
    assert 0 <= prediction.min() <= prediction.max() <= 1


def test_evaluate_repeats_the_numbers_of_the_training(alpha_beta, trained_alpha_beta, tmp_path):
    options = {name: alpha_beta.tiny[name] for name in ("backbone", "tile_size_px", "margin_px", "tissue_mpp", "num_workers")}
    again = alpha_beta.evaluate_here(output_dir=trained_alpha_beta.folder, evaluation_dir=tmp_path, **options)
    assert again == metrics_of(trained_alpha_beta.folder)


def test_inference_maps_a_slide_alone_and_with_an_ensemble(alpha_beta, trained_alpha_beta, tmp_path):
    options = {name: alpha_beta.tiny[name] for name in ("backbone", "tile_size_px", "margin_px")}
    checkpoints = f"['{trained_alpha_beta.folder}/model.pt']"
    one = alpha_beta.map_slide(slide="slide_08", output_dir=tmp_path / "one", checkpoints=checkpoints, **options)
    # Twice the same network answers like one.
    runs = tmp_path / "runs"
    for name in ("a", "b"):
        (runs / name).mkdir(parents=True)
        for file in ("model.pt", "calibration.json"):
            (runs / name / file).symlink_to(trained_alpha_beta.folder / file)
    options |= {"runs": f"{runs}/*/model.pt", "output_dir": tmp_path / "two"}
    source = alpha_beta.data / "slides/slide_08.tif"
    refused = alpha_beta.run(alpha_beta.command("inference", "ensemble", source=source, **options))
    assert refused.returncode != 0
    assert "2 networks are averaged" in refused.stderr
    threshold = json.loads((trained_alpha_beta.folder / "calibration.json").read_text())["threshold"]
    two = alpha_beta.map_slide("ensemble", slide="slide_08", threshold=threshold, **options)
    assert float(one["tumour_share"]) == pytest.approx(float(two["tumour_share"]), abs=0.01)
    assert "ProbabilityEnsemble" in (tmp_path / "two/settings.json").read_text()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table: table[table["label"] == 1], "only one class"),
        (lambda table: table.assign(mpp=-1.0), "row 2: mpp must be a number"),
        (lambda table: table.assign(x=0, y=0, width_px=100, height_px=100), "bags are drawn from whole slides"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said_before_anything_is_written(alpha_beta, tmp_path, change, reason):
    table = alpha_beta.manifest("slides.csv")
    change(table).to_csv(tmp_path / "slides.csv", index=False)
    with pytest.raises(RuntimeError) as caught:
        alpha_beta.train_here(output_dir=tmp_path / "run", manifest=str(tmp_path / "slides.csv"))
    assert reason in messages_of(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_grid_of_the_paper(alpha_beta, tmp_path):
    """Two of its trainings by the script; a second start finds them and scores them on patches; MLflow shows both below one run.

    Test slides are of two groups and two locations.
    """
    manifest = alpha_beta.manifest("slides.csv").assign(group="in_distribution", location="kidney")
    manifest.loc[manifest.index[-1], ["group", "location"]] = ["out_of_location", "colon"]
    manifest.to_csv(tmp_path / "slides.csv", index=False)
    patches = tmp_path / "patches"
    patches.mkdir()
    write_patches(patches, [0, 1] * 6)
    tiny = alpha_beta.tiny | {"dataset_dir": str(alpha_beta.data), "num_epochs": 1, "manifest": str(tmp_path / "slides.csv")}
    fixed = [text for name, value in tiny.items() for text in ("--set", name, json.dumps(value))]
    command = ["scripts/benchmark.py", "--json", str(tmp_path / "result.json"), "alpha-beta"]
    command += ["--config_file", *alpha_beta.config_files("train"), "--alphas", "0.2", "--betas", "0", "0.8"]
    command += [*fixed, "--output_dir", str(tmp_path / "runs")]
    for more in ([], ["--patch_camelyon", str(patches)]):
        printed = alpha_beta.run_well([*command, *more]).stdout
    rows = json.loads((tmp_path / "result.json").read_text())["results"]
    assert rows.keys() == {"alpha 0.2, beta 0", "alpha 0.2, beta 0.8"}
    run, row = tmp_path / "runs/alpha=0.2,beta=0.8,seed=0", rows["alpha 0.2, beta 0.8"]
    pixels = metrics_of(run)["pixels_tissue"]
    for part in ("in_distribution", "out_of_location", "location kidney", "location colon"):
        assert row[f"AUC, tissue, {part} mean"] == pytest.approx(pixels[f"{METHOD}, {part}"]["auc"])
    assert row["PatchCamelyon AUC mean"] == metrics_of(run, "patch_camelyon")["images"][METHOD]["auc"]
    values = [rows[name]["AUC, tissue, in_distribution mean"] for name in rows]
    assert "over 2 pairs of alpha and beta:" in printed
    assert f"AUC, tissue, in_distribution: {np.mean(values):.3f} +- {np.std(values):.3f}" in printed
    for figure in ("grid.png", "locations.png", "maps.png"):
        assert (tmp_path / "runs" / figure).read_bytes().startswith(b"\x89PNG")
        assert str(tmp_path / "runs" / figure) in printed
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlruns.db")
    runs = client.search_runs([client.get_experiment_by_name("alpha_beta_mil").experiment_id])
    parents = {run.info.run_name: run.data.tags.get("mlflow.parentRunId") for run in runs}
    trainings = {name: parent for name, parent in parents.items() if name.startswith("alpha=") and "/" not in name}
    assert len(set(trainings.values())) == 1
    assert trainings.keys() == {"alpha=0.2,beta=0.0,seed=0", "alpha=0.2,beta=0.8,seed=0"}
    assert None not in trainings.values()
