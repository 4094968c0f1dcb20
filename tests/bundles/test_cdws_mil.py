"""CDWS-MIL's configurations, to their end on tiny data: whole, killed, shared by two processes, every variant, in use."""

import csv
import itertools
import json
import re
from argparse import Namespace
from pathlib import Path

import pandas as pd
import pytest
import torch
from mlflow import MlflowClient

from scripts.benchmarks import fusion_weights
from shared.networks import SideOutputResNet, SideOutputVGG
from shared.sweeps.sweep import Sweep

from .runs import files_of, files_of_training, history_of, metrics_of, weights_of

RESULTS = files_of_training("segmentation")
SIDE_OUTPUTS = ["Side output 1", "Side output 2", "Side output 3"]

pytestmark = pytest.mark.slow


def test_the_whole_training_leaves_its_files(trained_cdws):
    assert files_of(trained_cdws.folder) == RESULTS
    assert weights_of(trained_cdws.folder / "model.pt").keys() == weights_of(trained_cdws.folder / "segmentation/model.pt").keys()
    rows = list(csv.DictReader((trained_cdws.folder / "segmentation/history.csv").open()))
    assert [float(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert {"train_loss", "val_region_f", "val_region_f_ca", "val_region_f_nc", "val_pixel_iou"} <= set(rows[0])


def test_every_map_is_scored_and_printed(trained_cdws):
    metrics = metrics_of(trained_cdws.folder)
    maps = [*SIDE_OUTPUTS, "CDWS-MIL"]
    assert list(metrics["regions"]) == list(metrics["boundaries"]) == maps
    assert list(metrics["pixels"]) == [*maps, "Everything is tumour"]
    for scores in metrics["regions"].values():
        # As many images with tumour as without.
        assert scores["f_all"] == pytest.approx((scores["f_ca"] + scores["f_nc"]) / 2)
    lines = trained_cdws.process.stdout.splitlines()
    assert sum(line.startswith("Regions (%)") for line in lines) == 1
    assert sum(line.startswith("CDWS-MIL ") for line in lines) == 4


def test_fusion_weights_are_chosen_on_validation_images_and_given_to_the_network(cdws, trained_cdws, tmp_path):
    settings = [("image_size_px", "64"), ("mpp", "0.5"), ("num_workers", "0"), ("dataset_dir", str(cdws.data))]
    options = {"config_file": [str(cdws.root / "configs/evaluate.json")], "runs": [trained_cdws.folder], "step": 0.25}
    found = fusion_weights.run(Namespace(**options, set=[*settings, ("device", "cpu")], output_dir=tmp_path))
    table = pd.read_csv(tmp_path / "fusion_weights.csv")
    assert len(table) == 15
    assert found["networks"] == [[0.2, 0.35, 0.45]]
    best = [found["best"][f"weight_{index}"] for index in (1, 2, 3)]
    again = {"output_dir": trained_cdws.folder, "image_size_px": 64, "mpp": 0.5, "num_workers": 0, "split": "val"}
    scored = cdws.evaluate_here(evaluation_dir=tmp_path / "best", fusion_weights=best, **again)
    assert scored["regions"]["CDWS-MIL"]["f_all"] == pytest.approx(table["region_f_mean"].max(), abs=1e-3)


def test_another_mean_than_in_training_is_refused(cdws, trained_cdws, tmp_path):
    again = {"output_dir": trained_cdws.folder, "image_size_px": 64, "mpp": 0.5, "generalized_mean_r": 8.0}
    with pytest.raises(RuntimeError) as caught:
        cdws.evaluate_here(evaluation_dir=tmp_path, **again)
    assert re.search(r"generalized_mean_r: 4(\.0)? before, 8(\.0)? now", str(caught.value.__cause__))


def test_mlflow_has_the_training_and_its_evaluation(trained_cdws):
    client, by_name = trained_cdws.tracked_runs()
    assert by_name.keys() == {"run", "run/segmentation", "run/evaluation"}
    assert by_name["run"].data.params["lr"] == "0.001"
    training, evaluation = by_name["run/segmentation"].info.run_id, by_name["run/evaluation"]
    assert [point.step for point in client.get_metric_history(training, "val_region_f")] == [1, 2, 3, 4]
    assert {"regions.cdws_mil.f_all", "boundaries.cdws_mil.ods", "pixels.cdws_mil.iou"} <= evaluation.data.metrics.keys()
    logged = {file.path for file in client.list_artifacts(evaluation.info.run_id)}
    assert logged == {"metrics.json", "images.csv", "examples.png"}


def test_killed_it_ends_with_the_same_numbers(trained_cdws, tmp_path):
    trained_cdws.assert_same_when_killed(tmp_path / "killed", ["segmentation"], RESULTS)


@pytest.mark.parametrize("batch", ["mini", "full"])
def test_two_processes_train_as_one(cdws, trained_cdws, tmp_path, batch):
    # Not Adam, whose first steps follow the sign of gradients that may be all rounding.
    options = cdws.tiny | {"optimizer::_target_": "torch.optim.SGD", "batch": batch, "norm": "group"}
    folder = tmp_path / "two"
    trained_cdws.by_two_processes(folder, "Regions (%)", **options)
    assert files_of(folder) == RESULTS
    cdws.train_here(output_dir=tmp_path / "one", **options)
    one = tmp_path / "one"
    torch.testing.assert_close(weights_of(folder / "model.pt"), weights_of(one / "model.pt"), rtol=1e-4, atol=1e-5)
    histories = [history_of(run, "segmentation") for run in (folder, one)]
    # Scores count pixels, of which one at the threshold may fall on either side.
    for name, tolerance in {"train_loss": 1e-4, "val_region_f": 0.01, "val_pixel_accuracy": 0.01}.items():
        assert histories[0][name].tolist() == pytest.approx(histories[1][name].tolist(), abs=tolerance), name
    assert metrics_of(folder)["num_images"] == metrics_of(one)["num_images"] == 8


VARIANTS = {
    ("baseline",): "Baseline",
    ("baseline_ac",): "Baseline w/ AC",
    ("dws",): "DWS-MIL",
    ("superpixels",): "CDWS-MIL",
    ("baseline", "superpixels"): "Baseline",
    ("features", "superpixels"): "CDWS-MIL",
    ("vgg5",): "CDWS-MIL",
    ("five_fold",): "CDWS-MIL",
    ("dataset_a",): "CDWS-MIL",
    ("dws", "resnet50"): "DWS-MIL",
    ("dataset_b",): "CDWS-MIL",
}


@pytest.mark.parametrize("overlays", VARIANTS, ids="+".join)
def test_a_variant_trains_to_its_end(cdws, tmp_path, overlays, capsys):
    """Dataset A's settings with the tiny images: full batches, constant rate, no clipping, checkpointing."""
    weights_of_imagenet = {"pretrained": False} if {"dataset_a", "dataset_b"} & {*overlays} else {}
    small = {"backbone": "resnet10"} if "resnet50" in overlays else {}
    superpixels = {"num_superpixels": 30, "superpixel_dir": str(tmp_path / "superpixels")} if "superpixels" in overlays else {}
    cdws.train_here(*overlays, output_dir=tmp_path / "run", num_epochs=1, **weights_of_imagenet, **superpixels, **small)
    metrics = metrics_of(tmp_path / "run")
    method = VARIANTS[overlays]
    sides = 0 if "baseline" in overlays[0] else 5 if "vgg5" in overlays else 3
    assert list(metrics["regions"]) == [*(f"Side output {stage + 1}" for stage in range(sides)), method]
    assert f"{method}: examples" not in capsys.readouterr().err
    if superpixels:
        assert len(list((tmp_path / "superpixels").glob("*.npz"))) == 16 + 8 + 8
    if {"five_fold", "dataset_b"} & {*overlays}:
        # 32 images in 5 folds, by case.
        assert metrics["num_images"] in (4, 8)


@pytest.mark.parametrize(
    ("overlays", "etas", "side_outputs", "method"),
    [
        ((), [2.5, 5, 10], [1, 2, 3], "CDWS-MIL"),
        (("vgg5",), [2.5, 5, 10, 10, 10], [1, 2, 3, 4, 5], "CDWS-MIL"),
        (("dws", "vgg5"), [0] * 5, [1, 2, 3, 4, 5], "DWS-MIL"),
        (("vgg5", "dws"), [0] * 5, [1, 2, 3, 4, 5], "DWS-MIL"),
        (("baseline", "vgg5"), [0], [5], "Baseline"),
        (("vgg5", "baseline_ac"), [10], [5], "Baseline w/ AC"),
        (("dws", "baseline_ac"), [10], [3], "Baseline w/ AC"),
        (("dws", "resnet50"), [0, 0, 0], [1, 2, 3], "DWS-MIL"),
        (("resnet50", "vgg5"), [2.5, 5, 10, 10, 10], [1, 2, 3, 4, 5], "CDWS-MIL"),
    ],
)
def test_overlays_go_together_in_any_order(cdws, tmp_path, overlays, etas, side_outputs, method):
    workflow = cdws.workflow("train", *overlays, output_dir=str(tmp_path))
    loss, network = (workflow.parser.get_parsed_content(name) for name in ("loss_function", "network_def"))
    assert [*loss.etas] == etas
    assert network.side_outputs == side_outputs
    assert workflow.parser.get_parsed_content("method") == method
    assert loss.needs_areas == (method not in ("DWS-MIL", "Baseline"))
    # After the other files the same overlays give a network that the weights fit.
    for name in ("evaluate", "inference"):
        other = cdws.configuration(name, *overlays).get_parsed_content("network_def")
        assert {key: values.shape for key, values in other.state_dict().items()} == {
            key: values.shape for key, values in network.state_dict().items()
        }


@pytest.mark.parametrize(
    ("overlays", "options", "problem"),
    [
        (("baseline", "dws"), {}, r"the network has 1 side outputs, but there are 3 etas, \[0, 0, 0\]"),
        (("vgg5",), {"etas": [1, 2, 3]}, r"the network has 5 side outputs, but there are 3 etas, \[1, 2, 3\]"),
        ((), {"eta_fuse": -1}, "etas must be >= 0; .* eta_fuse=-1"),
        ((), {"side_outputs": [2, 1, 3]}, "side_outputs must ascend"),
        ((), {"train::preprocessing::max_scale": 1.2}, r"\(RandAffined\).*areas would silently be wrong"),
        ((), {"train::preprocessing::crop_size_px": 32}, r"\(RandSpatialCropd\).*areas would silently be wrong"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(cdws, tmp_path, overlays, options, problem):
    with pytest.raises(RuntimeError) as caught:
        cdws.train_here(*overlays, output_dir=tmp_path / "run", **options)
    with pytest.raises(ValueError, match=problem):
        raise caught.value.__cause__
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("norm", "share"), [("$None", 0.01), ("batch", 1.0), ("group", 1.0)])
def test_side_layers_learn_at_the_papers_share_without_normalisation_alone(cdws, tmp_path, norm, share):
    workflow = cdws.workflow("train", norm=norm, output_dir=str(tmp_path))
    rates = [group["lr"] for group in workflow.parser.get_parsed_content("optimizer").param_groups]
    assert sorted(rates) == pytest.approx(sorted([0.001, 0.001 * share]))


def test_each_weight_of_the_constraint_has_a_key(cdws, tmp_path):
    workflow = cdws.workflow("train", "vgg5", eta_2=1.5, eta_5=20, output_dir=str(tmp_path))
    assert workflow.parser.get_parsed_content("loss_function").etas == (2.5, 1.5, 10, 10, 20)


def test_a_tenth_of_the_constraint_on_real_tiles(cdws, tmp_path):
    workflow = cdws.workflow("train", "ebhi_seg", output_dir=str(tmp_path))
    assert workflow.parser["eta_scale"] == 0.1
    assert workflow.parser.get_parsed_content("loss_function").etas == pytest.approx((0.25, 0.5, 1.0))


def test_a_single_side_output_needs_no_areas_for_a_fusion_it_does_not_have(cdws, tmp_path):
    workflow = cdws.workflow("train", "baseline", eta_fuse=10, output_dir=str(tmp_path))
    assert not workflow.parser.get_parsed_content("loss_function").needs_areas


def test_without_the_constraint_images_may_be_scaled_and_cropped(cdws, tmp_path):
    options = {"train::preprocessing::max_scale": 1.2, "train::preprocessing::crop_size_px": 32}
    cdws.train_here("dws", output_dir=tmp_path / "run", num_epochs=1, **options)
    assert (tmp_path / "run/model.pt").is_file()


@pytest.mark.parametrize(
    ("overlays", "number"), [((), 92), (("ebhi_seg",), 11), (("dataset_a",), 900)], ids=["demo", "ebhi_seg", "dataset_a"]
)
def test_superpixels_have_the_size_of_the_papers(cdws, overlays, number):
    for name in ("train", "evaluate"):
        parser = cdws.workflow(name, *overlays, "superpixels").parser
        assert parser.get_parsed_content("superpixels").num_superpixels == number


@pytest.mark.parametrize(
    ("backbone", "num_stages"),
    [
        *((None, number) for number in range(1, 6)),
        *(("resnet50", number) for number in (1, 2, 3)),
        ("resnet34", 2),
        ("resnet34", 3),
    ],
)
def test_the_margin_of_inference_leaves_no_seams(cdws, backbone, num_stages):
    """The middle of a tile is what the network says of a larger image there."""
    overlay, key = (("resnet50",), {"backbone": backbone}) if backbone else ((), {})
    margin = cdws.configuration("inference", *overlay, num_stages=num_stages, **key).get_parsed_content("margin_px")
    torch.manual_seed(0)
    network = (SideOutputResNet(backbone, num_stages) if backbone else SideOutputVGG(num_stages)).double().eval()
    stride = 2**num_stages if backbone else 2 ** (num_stages - 1)
    assert margin % stride == 0
    core, offset = 2 * stride, stride
    tile_px = core + 2 * margin
    image = torch.rand(1, 3, tile_px + 2 * offset, tile_px + 2 * offset, dtype=torch.float64) * 255
    ends = offset + tile_px
    with torch.inference_mode():
        whole, tile = network(image), network(image[:, :, offset:ends, offset:ends])
    inner = slice(margin, margin + core)
    expected = whole[:, :, offset + margin : offset + margin + core, offset + margin : offset + margin + core]
    assert expected.std() > 0
    torch.testing.assert_close(tile[:, :, inner, inner], expected, rtol=0, atol=1e-6)


def test_folds_share_out_the_images(cdws, tmp_path):
    manifest = pd.read_csv(cdws.data / "images.csv")
    tested = []
    for fold in range(5):
        workflow = cdws.workflow("train", "five_fold", fold=fold, output_dir=str(tmp_path))
        splits = {name: workflow.parser.get_parsed_content(f"{name}_records") for name in ("train", "val", "test")}
        cases = {name: {record["case_id"] for record in records} for name, records in splits.items()}
        assert not cases["train"] & cases["test"] | cases["train"] & cases["val"] | cases["val"] & cases["test"]
        tested += [Path(record["image"]).name for record in splits["test"]]
    # What the manifest keeps for the test is in no fold.
    others = manifest[manifest["split"] != "test"]
    assert sorted(tested) == sorted(Path(image).name for image in others["image"])


def test_areas_come_from_masks_and_are_missed_where_there_is_none(cdws, tmp_path):
    table = cdws.manifest()
    manifest = tmp_path / "images.csv"
    table.drop(columns="area").to_csv(manifest, index=False)
    options = {"manifest": str(manifest), "output_dir": str(tmp_path / "run")}
    records = cdws.workflow("train", **options).parser.get_parsed_content("train_records")
    given = table[table["split"] == "train"]["area"]
    assert [record["area"] for record in records] == pytest.approx(list(given))

    first = table.index[(table["split"] == "train") & (table["label"] == 1)][0]
    table.loc[first, ["mask", "area"]] = None
    table.to_csv(manifest, index=False)
    with pytest.raises(RuntimeError) as caught:
        cdws.workflow("train", **options).parser.get_parsed_content("train_records")
    assert f"row {first + 2}, " in str(caught.value.__cause__)
    assert "neither an area nor a mask" in str(caught.value.__cause__)
    assert len(cdws.workflow("train", "dws", **options).parser.get_parsed_content("train_records")) == 16


def test_a_share_of_the_training_data(cdws, tmp_path):
    workflow = cdws.workflow("train", training_share=0.5, area_offset=0.1, output_dir=str(tmp_path))
    records = workflow.parser.get_parsed_content("train_records")
    assert sorted(record["label"] for record in records) == [0] * 4 + [1] * 4
    whole = {
        r["image"]: r["area"] for r in cdws.workflow("train", output_dir=str(tmp_path)).parser.get_parsed_content("train_records")
    }
    for record in records:
        expected = min(1.0, whole[record["image"]] + 0.1) if record["label"] else 0.0
        assert record["area"] == pytest.approx(expected)


def test_training_and_inference_have_the_properties_that_monai_asks_for(cdws, trained_cdws):
    assert trained_cdws.workflow().check_properties() == []
    prediction = cdws.infer_here(checkpoint=str(trained_cdws.folder / "model.pt"), mpp=0.5)
    assert prediction.shape == (1, 64, 64)
    assert 0 <= prediction.min() <= prediction.max() <= 1


def test_evaluate_repeats_the_numbers_of_the_training(cdws, trained_cdws, tmp_path):
    options = {"image_size_px": 64, "mpp": 0.5, "output_dir": trained_cdws.folder, "evaluation_dir": tmp_path}
    assert cdws.evaluate_here(**options) == metrics_of(trained_cdws.folder)


def test_inference_maps_a_slide(cdws, trained_cdws, tmp_path):
    cdws.map_slide(slide="slide_00", output_dir=tmp_path, checkpoint=trained_cdws.folder / "model.pt", mpp=0.5)


def test_robustness_to_the_annotator(cdws, tmp_path):
    """Two trainings by the script; a second start finds them, and the shared database has them both."""
    tiny = cdws.tiny | {"dataset_dir": str(cdws.data), "num_epochs": 1}
    fixed = [
        text for name, value in tiny.items() for text in ("--set", name, value if name == "amp_dtype" else json.dumps(value))
    ]
    command = ["scripts/benchmark.py", "--json", str(tmp_path / "result.json"), "area-noise", "--offsets", "-0.1", "0.1", *fixed]
    command += ["--config_file", *cdws.config_files("train")]
    for _ in range(2):
        cdws.run_well([*command, "--output_dir", str(tmp_path / "runs")])
    assert "NaN" not in (tmp_path / "result.json").read_text()
    rows = json.loads((tmp_path / "result.json").read_text())["results"]
    assert rows.keys() == {"-0.1", "0.1"}
    single = metrics_of(tmp_path / "runs/area_offset=0.1,seed=0")["regions"]["CDWS-MIL"]["f_all"]
    assert rows["0.1"]["regions.CDWS-MIL.f_all mean"] == pytest.approx(single)
    # Of one seed.
    assert rows["0.1"]["regions.CDWS-MIL.f_all std"] is None
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlruns.db")
    runs = client.search_runs([client.get_experiment_by_name("cdws_mil").experiment_id])
    names = {run.info.run_id: run.info.run_name for run in runs}
    trainings = ("area_offset=-0.1,seed=0", "area_offset=0.1,seed=0")
    stages = {f"{name}/{stage}": name for name, stage in itertools.product(trainings, ("segmentation", "evaluation"))}
    parents = {run.info.run_name: names.get(run.data.tags.get("mlflow.parentRunId")) for run in runs}
    assert parents == {"runs": None} | dict.fromkeys(trainings, "runs") | stages
    table = pd.read_csv(tmp_path / "runs/sweep.csv")
    history = history_of(tmp_path / "runs" / trainings[1], "segmentation")
    assert table["segmentation.val_region_f"].iloc[1] == pytest.approx(history["val_region_f"].iloc[-1])


def test_robustness_needs_masks(cdws, tmp_path):
    config_file = str(cdws.root / "configs/train.json")
    sweep = Sweep([config_file], {"area_offset": [0.1], "seed": [0]}, tmp_path / "runs", {"tracking::enabled": False})
    (folder,) = map(sweep.folder, sweep.combinations)
    (folder / "evaluation").mkdir(parents=True)
    (folder / "evaluation/metrics.json").write_text(json.dumps({"images": {"CDWS-MIL": {"accuracy": 1.0}}}))
    (folder / "sweep.json").write_text(json.dumps(sweep.settings(*sweep.combinations)))
    options = ["--config_file", config_file, "--offsets", "0.1", "--set", "tracking::enabled", "false"]
    process = cdws.run(
        [
            "scripts/benchmark.py",
            "area-noise",
            *options,
            "--config_file",
            *cdws.config_files("train"),
            "--output_dir",
            str(tmp_path / "runs"),
        ]
    )
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1].startswith("the runs have no region F: area-noise needs masks")
