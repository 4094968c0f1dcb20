"""Joint segmentation and classification, to its end on tiny data: whole, killed, by two processes, every mode, in use."""

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from mlflow import MlflowClient
from PIL import Image

from .conftest import assert_same_results, files_of, weights_of

RESULTS = {
    "class_counts.json",
    "config.json",
    "evaluation/examples.png",
    "evaluation/images.csv",
    "evaluation/metrics.json",
    "joint/history.csv",
    "joint/model.pt",
    "mlflow.json",
    "model.pt",
}
NAMES = ["normal", "benign", "in situ", "invasive"]
COLUMNS = [name.replace(" ", "_") for name in NAMES]

pytestmark = pytest.mark.slow


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "evaluation/metrics.json").read_text())


def counts_of(folder: Path) -> dict:
    return json.loads((folder / "class_counts.json").read_text())


def history_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "joint/history.csv")


def messages_of(error: BaseException | None) -> str:
    """Of an error and of those that caused it: MONAI wraps them."""
    said = []
    while error is not None:
        said.append(str(error))
        error = error.__cause__
    return "\n".join(said)


def absolute_manifest(joint) -> pd.DataFrame:
    """The images' manifest, whose paths hold from any folder."""
    table = pd.read_csv(joint.data / "images.csv", dtype={"mask": object})
    for name in ("image", "mask"):
        table[name] = [str(joint.data / path) if isinstance(path, str) else None for path in table[name]]
    return table


def test_the_whole_training_leaves_its_files(trained_joint):
    assert files_of(trained_joint.folder) == RESULTS
    assert weights_of(trained_joint.folder / "model.pt").keys() == weights_of(trained_joint.folder / "joint/model.pt").keys()
    history = history_of(trained_joint.folder)
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert {"train_loss", "val_pixel_bach_score", "val_pixel_macro_f1", "val_pixel_mean_iou", "val_pixel_iou_3"} <= set(history)
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]


def test_classes_are_counted_once(joint, trained_joint):
    table = absolute_manifest(joint)
    train = table[table["split"] == "train"]
    masks = [np.asarray(Image.open(mask)).ravel() for mask in train["mask"].dropna()]
    expected = np.bincount(np.concatenate(masks), minlength=4).tolist()
    assert counts_of(trained_joint.folder) == {"num_masked": 8, "num_labelled": 8, "pixels": expected, "images": [2, 2, 2, 2]}
    assert trained_joint.process.stdout.count("training with 8 masked images") == 1


def test_the_closing_table_is_printed_once(trained_joint):
    metrics = metrics_of(trained_joint.folder)
    assert list(metrics["class_pixels"]) == ["S+C*", "Everything is normal"]
    assert list(metrics["classes"]) == metrics["class_names"] == NAMES
    assert list(metrics["image_classes"]) == ["S+C*"]
    assert np.sum(metrics["confusion"]) == 4 * 64 * 64
    lines = trained_joint.process.stdout.splitlines()
    for title in ("Pixels (%)", "Classes of pixels (%)", "Image labels (%)"):
        assert sum(line.startswith(f"{title}  ") for line in lines) == 1
    assert sum(line.startswith("S+C* ") for line in lines) == 2


def test_mlflow_has_the_training_and_its_evaluation(trained_joint):
    client = MlflowClient(trained_joint.database)
    runs = client.search_runs([client.get_experiment_by_name("joint_seg_cls").experiment_id])
    by_name = {run.info.run_name: run for run in runs}
    assert by_name.keys() == {"run", "run/joint", "run/evaluation"}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert by_name["run"].data.params["learning_rate"] == "0.003"
    training, evaluation = by_name["run/joint"].info.run_id, by_name["run/evaluation"]
    assert [point.step for point in client.get_metric_history(training, "val_pixel_bach_score")] == [1, 2, 3, 4, 5, 6]
    logged = {"class_pixels.s_c.bach_score", "classes.in_situ.iou", "image_classes.s_c.accuracy"}
    assert logged <= evaluation.data.metrics.keys()
    files = {file.path for file in client.list_artifacts(evaluation.info.run_id)}
    assert files == {"metrics.json", "images.csv", "examples.png"}


def test_killed_it_ends_with_the_same_numbers(joint, trained_joint, tmp_path):
    folder = tmp_path / "killed"
    database = {"MLFLOW_TRACKING_URI": trained_joint.database}
    command = joint.command("train", output_dir=folder, **trained_joint.options)
    joint.kill_when(folder / "joint/resume.pt", command, tmp_path / "log.txt", **database)
    assert not (folder / "joint/model.pt").exists(), "killed too late to prove anything"
    process = joint.run(command, **database)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "joint: goes on after epoch" in process.stdout
    assert_same_results(folder, trained_joint.folder, RESULTS)
    assert counts_of(folder) == counts_of(trained_joint.folder)


@pytest.mark.parametrize(("mode", "num_labelled"), [("S+C*", 8), ("S", 0)])
def test_two_processes_train_as_one(joint, trained_joint, tmp_path, mode, num_labelled):
    """Close, not equal: batch normalisation sees half a batch, and each process's loss weighs the classes of its own half."""
    # Not Adam, whose first steps follow the sign of gradients that may be all rounding.
    options = joint.tiny | {"mode": mode, "masked_share": 1.0, "train::trainer::optimizer::_target_": "torch.optim.SGD"}
    folder, one = tmp_path / "two", tmp_path / "one"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = joint.command("train", "multi_gpu_train", output_dir=folder, **options)
    process = joint.run([*torchrun, *command], MLFLOW_TRACKING_URI=trained_joint.database)
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stdout.count("Pixels (%)") == 1
    assert files_of(folder) == RESULTS
    joint.train_here(output_dir=one, **options)
    assert counts_of(folder) == counts_of(one)
    assert counts_of(one)["num_labelled"] == num_labelled
    histories = [history_of(run) for run in (folder, one)]
    assert np.isfinite(histories[0]["train_loss"]).all()
    assert histories[0]["train_loss"].tolist() == pytest.approx(histories[1]["train_loss"].tolist(), rel=0.3)
    assert metrics_of(folder).keys() == metrics_of(one).keys()
    assert metrics_of(folder)["num_images"] == 4


# Mode and masked share: how many masks and labels of 8 and 8 are used.
MODES = {
    ("S", 1.0): (8, 0),
    ("S", 0.1): (4, 0),
    ("S+C", 0.5): (4, 4),
    ("S+C", 0.0): (0, 8),
    ("S+C*", 0.1): (4, 8),
    ("S+C*", 0.0): (0, 8),
}


@pytest.mark.parametrize("head", ["paper", "released"])
@pytest.mark.parametrize(("mode", "share"), MODES)
def test_a_mode_trains_to_its_end(joint, tmp_path, mode, share, head, capsys):
    joint.train_here(output_dir=tmp_path, mode=mode, masked_share=share, head=head, num_epochs=1, steps_per_epoch=2)
    metrics, counts = metrics_of(tmp_path), counts_of(tmp_path)
    num_masked, num_labelled = MODES[mode, share]
    assert (counts["num_masked"], counts["num_labelled"]) == (num_masked, num_labelled)
    assert (counts["pixels"] is None) == (num_masked == 0)
    assert (counts["images"] is None) == (num_labelled == 0)
    assert ("image_classes" in metrics) == (num_labelled > 0)
    assert mode in metrics["class_pixels"]
    assert f"{mode}: examples" not in capsys.readouterr().err
    assert np.isfinite(history_of(tmp_path)["train_loss"]).all()
    has_classifier = any(name.startswith("classifier") for name in weights_of(tmp_path / "model.pt"))
    assert has_classifier == (head == "paper")


def test_the_paper_s_epoch_is_a_pass_over_the_larger_kind(joint, tmp_path):
    """8 labelled and 4 masked images in halves of 4: two steps and one, so two."""
    workflow = joint.workflow("train", **joint.tiny | {"steps_per_epoch": "$None", "output_dir": str(tmp_path)})
    assert len(workflow.parser.get_parsed_content("train::trainer::train_data_loader")) == 2


def test_the_best_epoch_is_kept(joint, tmp_path):
    """The learning rate grows until nothing is left of what was learnt, and no lesion is found any more."""
    wild = {"masked_share": 1.0, "num_epochs": 4, "learning_rate": 0.003, "final_rate_share": 1000.0}
    scores = {}
    for keep_best in ("val_pixel_foreground_accuracy", "$None"):
        folder = tmp_path / keep_best.strip("$")
        joint.train_here(output_dir=folder, keep_best=keep_best, **wild)
        again = {"image_size_px": 64, "output_dir": str(folder), "split": "val", "num_workers": 0}
        joint.workflow("evaluate", workflow_type="infer", **again).run()
        metrics = json.loads((folder / "evaluation_val/metrics.json").read_text())
        assert metrics["split"] == "val"
        scores[keep_best] = metrics["class_pixels"]["S+C*"]["foreground_accuracy"]
        history = history_of(folder)["val_pixel_foreground_accuracy"].tolist()
    assert scores["val_pixel_foreground_accuracy"] == pytest.approx(max(history), abs=1e-9)
    assert scores["$None"] == pytest.approx(history[-1], abs=1e-9)
    assert max(history) > history[-1], "the last epoch is the best, which proves nothing"


def test_without_masks_to_score_the_last_epoch_is_kept(joint, tmp_path):
    """Labelled images alone, also to validate and to test."""
    table = absolute_manifest(joint)
    table = table[(table["split"] != "train") | table["mask"].isna()].drop(columns="mask")
    table.to_csv(tmp_path / "images.csv", index=False)
    options = {"manifest": str(tmp_path / "images.csv"), "truth": "$None", "num_epochs": 1, "steps_per_epoch": 2}
    options |= {"masked_share": 0.0}
    workflow = joint.train_here(output_dir=tmp_path / "run", **options)
    assert workflow.parser.get_parsed_content("keep_best") is None
    metrics = metrics_of(tmp_path / "run")
    assert "class_pixels" not in metrics
    assert metrics["image_classes"].keys() == {"S+C*"}
    assert list(history_of(tmp_path / "run")) == ["epoch", "train_loss"]


def test_two_classes_of_tiles_at_half_their_size(joint, tmp_path):
    """EBHI-Seg's overlay: every tile has a label, those with a mask too; the BACH score is the IoU of tumour."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for index, split in enumerate(["train"] * 8 + ["val"] * 4 + ["test"] * 4):
        pixels = rng.integers(150, 220, (128, 128, 3), dtype=np.uint8)
        mask = np.zeros((128, 128), np.uint8)
        if index % 2:
            mask[20:90, 30 : 60 + 4 * index] = 255
        pixels[mask > 0] = (70, 30, 120)
        Image.fromarray(pixels).save(tmp_path / f"images/{index}.png")
        Image.fromarray(mask).save(tmp_path / f"masks/{index}.png")
        rows.append((f"images/{index}.png", index % 2, f"masks/{index}.png", f"case_{index}", split))
    pd.DataFrame(rows, columns=["image", "label", "mask", "case_id", "split"]).to_csv(tmp_path / "manifest.csv", index=False)
    ebhi = type(joint)(joint.name, tmp_path, joint.tiny)
    run = tmp_path / "run"
    ebhi.train_here("ebhi_seg", output_dir=run, masked_share=0.5, num_epochs=1)
    metrics, counts = metrics_of(run), counts_of(run)
    assert (counts["num_masked"], counts["num_labelled"], counts["images"]) == (4, 8, [4, 4])
    assert sum(counts["pixels"]) == 4 * 64 * 64
    assert metrics["class_names"] == ["normal", "tumour"]
    assert metrics["class_pixels"]["S+C*"]["bach_score"] == pytest.approx(metrics["classes"]["tumour"]["iou"])
    again = {"output_dir": str(run), "evaluation_dir": str(tmp_path / "again"), "image_size_px": 64}
    ebhi.workflow("evaluate", "ebhi_seg", workflow_type="infer", **again).run()
    assert json.loads((tmp_path / "again/metrics.json").read_text()) == metrics
    # One class beside the background: a map of tumour with a threshold.
    maps = {"checkpoint": str(run / "model.pt"), "output_dir": str(tmp_path / "maps"), "num_workers": 1}
    workflow = ebhi.workflow("inference", "ebhi_seg", workflow_type="infer", **maps)
    mapper = workflow.parser.get_parsed_content("slide_mapper")
    (row,) = mapper.run(tmp_path / "images/15.png", tmp_path / "maps")
    assert "tumour_area_mm2" in row
    assert mapper.mpp == 0.5


def test_the_numbers_of_bach(joint, tmp_path):
    """The paper's settings; photos may have another size than patches."""
    table = absolute_manifest(joint)
    smaller = table["mask"].isna()
    for index, image in table[smaller]["image"].items():
        path = tmp_path / Path(image).name
        Image.open(image).resize((96, 80)).save(path)
        table.loc[index, "image"] = str(path)
    # Patches are cut at about 8 um, and read as they are.
    table.drop(columns="mpp").to_csv(tmp_path / "patches.csv", index=False)
    bach = type(joint)(joint.name, tmp_path, {})
    options = {"pretrained": False, "image_size_px": 64, "output_dir": str(tmp_path / "run")}
    parsed = bach.workflow("train", "bach", **options).parser.get_parsed_content
    assert (parsed("learning_rate"), parsed("final_rate_share"), parsed("num_epochs")) == (1e-4, 1.0, 100)
    assert (parsed("batch_size"), parsed("masked_share"), parsed("mode")) == (20, 1.0, "S+C*")
    assert parsed("class_names") == NAMES
    assert parsed("mpp") == pytest.approx(7.472)
    assert [len(records) for records in parsed("supervision")] == [8, 8]
    masked, labelled = (parsed(f"train::{kind}_images") for kind in ("masked", "labelled"))
    assert masked[0]["image"].shape == (3, 64, 64)
    # Turned by a quarter or not.
    assert {labelled[index]["image"].shape for index in range(8)} <= {(3, 80, 96), (3, 96, 80)}
    assert parsed("preprocessing").keywords["stain_reference"] == "monai"


def test_labelled_images_of_another_size_train(joint, tmp_path):
    """The network pools each image's map, whatever its size."""
    table = absolute_manifest(joint)
    for index, image in table[table["mask"].isna()]["image"].items():
        path = tmp_path / Path(image).name
        Image.open(image).resize((96, 96)).save(path)
        table.loc[index, "image"] = str(path)
    table.to_csv(tmp_path / "patches.csv", index=False)
    bach = type(joint)(joint.name, tmp_path, joint.tiny)
    tiny = {"pretrained": False, "labelled_size_px": "$None", "num_epochs": 1, "steps_per_epoch": 2, "mpp": 8.0}
    bach.train_here("bach", output_dir=tmp_path / "run", **tiny)
    assert counts_of(tmp_path / "run")["num_labelled"] == 8
    assert json.loads((tmp_path / "run/config.json").read_text())["stain_reference"] == "monai"


def test_evaluate_repeats_the_numbers_of_the_training(joint, trained_joint, tmp_path):
    options = {"image_size_px": 64, "output_dir": str(trained_joint.folder), "evaluation_dir": str(tmp_path)}
    joint.workflow("evaluate", workflow_type="infer", **options).run()
    for name in ("metrics.json", "images.csv"):
        assert (tmp_path / name).read_text() == (trained_joint.folder / "evaluation" / name).read_text()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"head": "released"}, "head: 'paper' then, 'released' now"),
        ({"stain_reference": "monai"}, "stain_reference: None then, 'monai' now"),
        ({"mpp": 4.0}, "mpp: 8.0 then, 4.0 now"),
    ],
    ids=["head", "stain_reference", "mpp"],
)
@pytest.mark.parametrize("config", ["evaluate", "inference"])
def test_other_settings_than_in_training_are_refused(joint, trained_joint, tmp_path, config, options, named):
    if config == "evaluate":
        given = {"output_dir": str(trained_joint.folder), "evaluation_dir": str(tmp_path / "out"), "image_size_px": 64}
    else:
        given = {"checkpoint": str(trained_joint.folder / "model.pt"), "output_dir": str(tmp_path / "out")}
    workflow = joint.workflow(config, workflow_type="infer", **given, **options)
    with pytest.raises(RuntimeError) as caught:
        workflow.run()
    assert named in messages_of(caught.value)
    assert not (tmp_path / "out").exists()


def check_maps(folder: Path, name: str = "slide_01") -> pd.Series:
    """Files of a slide of 480 x 560 px at 4 um, its map at 8 um; the row of its table."""
    assert {f"{name}{ending}" for ending in (".ome.tif", ".geojson", ".png")} <= files_of(folder)
    (row,) = csv.DictReader((folder / "slides.csv").open())
    assert row["status"] == "ok"
    with tifffile.TiffFile(folder / f"{name}.ome.tif") as tiff:
        series = tiff.series[0]
        assert (series.axes, series.shape, series.dtype) == ("CYX", (4, 240, 280), np.uint8)
        assert all(f'Name="{one}"' in tiff.ome_metadata for one in NAMES)
        assert 'PhysicalSizeX="8.0"' in tiff.ome_metadata
        shares = series.asarray()
    features = json.loads((folder / f"{name}.geojson").read_text())["features"]
    found = {feature["properties"]["classification"]["name"] for feature in features}
    assert found <= set(NAMES[1:])
    likeliest = shares.argmax(axis=0)
    for index, (class_name, column) in enumerate(zip(NAMES, COLUMNS, strict=True)):
        if index == 0:
            assert f"area_mm2_{column}" not in row
            continue
        area = float(row[f"area_mm2_{column}"])
        assert (area > 0) == (class_name in found)
        # Small areas have no polygons, and of two bytes that are equal the first is taken.
        assert area <= (likeliest == index).sum() * 64e-6 + 0.01
    return pd.Series(row)


def test_inference_maps_a_slide(joint, trained_joint, tmp_path):
    source = joint.data / "slides/slide_01.tif"
    options = {"checkpoint": trained_joint.folder / "model.pt", "output_dir": tmp_path, "source": source}
    options |= {"image_size_px": 64, "tile_size_px": 128}
    process = joint.run(joint.command("inference", **options))
    assert process.returncode == 0, process.stdout + process.stderr
    row = check_maps(tmp_path)
    assert sum(float(row[f"area_mm2_{column}"]) for column in COLUMNS[1:]) > 0, "nothing was found, which proves nothing"
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert (settings["class_names"], settings["mpp"], settings["network"]) == (NAMES, 8.0, "SegClsResNet18")


def test_stains_are_normalized_in_training_evaluation_and_inference(joint, tmp_path):
    run = tmp_path / "run"
    joint.train_here(output_dir=run, stain_reference="monai", masked_share=1.0)
    again = {"image_size_px": 64, "output_dir": str(run), "evaluation_dir": str(tmp_path / "again"), "stain_reference": "monai"}
    joint.workflow("evaluate", workflow_type="infer", **again).run()
    assert json.loads((tmp_path / "again/metrics.json").read_text()) == metrics_of(run)
    maps = {"checkpoint": str(run / "model.pt"), "output_dir": str(tmp_path / "maps"), "num_workers": 1}
    maps |= {"image_size_px": 64, "tile_size_px": 128}
    source = str(joint.data / "slides/slide_01.tif")
    joint.workflow("inference", workflow_type="infer", source=source, stain_reference="monai", **maps).run()
    check_maps(tmp_path / "maps")
    settings = json.loads((tmp_path / "maps/settings.json").read_text())
    assert settings["network"] == "Sequential"


def test_training_and_inference_have_the_properties_that_monai_asks_for(joint, trained_joint):
    options = {**trained_joint.options, "output_dir": str(trained_joint.folder), "tracking::enabled": False}
    assert joint.workflow("train", **options).check_properties() == []
    checkpoint = str(trained_joint.folder / "model.pt")
    workflow = joint.workflow("inference", workflow_type="infer", checkpoint=checkpoint)
    assert workflow.check_properties() == []
    workflow.evaluator.run()
    (output,) = workflow.evaluator.state.output
    assert output["pred"].shape == (4, 64, 64)
    assert output["pred"].sum(0).allclose(output["pred"].new_ones(()))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"mode": "Z"}, "mode must be one of S, S+C, S+C*; got 'Z'"),
        ({"masked_share": 2}, "masked_share must be in [0, 1]; got 2"),
        ({"mode": "S", "masked_share": 0}, "mode S with masked_share 0 has no masked images to train with"),
        ({"labelled": "masked"}, "labelled must be one of unmasked, all; got 'masked'"),
        ({"head": "other"}, "head must be one of paper, released; got 'other'"),
        ({"class_names": ["normal", "tumour"]}, "row 4: label must be one of 0..1, got 2"),
        ({"image_size_px": 96}, "the image is 64 x 64 px at 8 um per pixel, wanted 96 x 96"),
        ({"labelled_size_px": 32}, "the image is 64 x 64 px at 8 um per pixel, wanted 32 x 32"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_said_before_anything_is_written(joint, tmp_path, options, problem):
    with pytest.raises(RuntimeError) as caught:
        joint.train_here(output_dir=tmp_path / "run", **options)
    assert problem in messages_of(caught.value)
    assert not (tmp_path / "run").exists()


def with_label(table: pd.DataFrame, row: int, label: int | None) -> None:
    table["label"] = table["label"].astype("Int64")
    table.loc[row, "label"] = pd.NA if label is None else label


def with_mask_of_9(table: pd.DataFrame, row: int, folder: Path) -> None:
    mask = np.array(Image.open(table.loc[row, "mask"]))
    mask[3, 5] = 9
    table.loc[row, "mask"] = str(folder / "nine.png")
    Image.fromarray(mask).save(folder / "nine.png")


# Row of the table, as the manifest counts them from 2 on, and split.
BROKEN = {
    "a label of 7": (lambda table, row, folder: with_label(table, row, 7), "label must be one of 0..3, got 7"),
    "no label": (lambda table, row, folder: with_label(table, row, None), "the column 'label' is empty"),
    "a mask of 9": (with_mask_of_9, "has a pixel of value 9: with 4 classes a pixel is its class index, 0..3"),
}


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_row_is_named_before_anything_is_written(joint, tmp_path, what, split):
    table = absolute_manifest(joint)
    row = table.index[(table["split"] == split) & table["mask"].notna()][2]
    damage, problem = BROKEN[what]
    damage(table, row, tmp_path)
    manifest = tmp_path / "broken.csv"
    table.to_csv(manifest, index=False)
    with pytest.raises(RuntimeError) as caught:
        joint.train_here(output_dir=tmp_path / "run", manifest=str(manifest), masked_share=1.0)
    said = messages_of(caught.value)
    assert problem in said
    assert f"{manifest}, row {row + 2}" in said
    assert not (tmp_path / "run").exists()


def test_more_classes_by_their_names(joint, tmp_path):
    """Necrosis, as a fifth class of some masks and of one label."""
    table = absolute_manifest(joint)
    rows = [
        table.index[(table["split"] == split) & (table["label"] == 3) & table["mask"].notna()][0] for split in ("train", "test")
    ]
    for row in rows:
        mask = np.array(Image.open(table.loc[row, "mask"]))
        mask[40:, 40:] = 4
        table.loc[row, "mask"] = str(tmp_path / f"mask_{row}.png")
        Image.fromarray(mask).save(table.loc[row, "mask"])
    table.loc[rows[0], "label"] = 4
    table.to_csv(tmp_path / "images.csv", index=False)
    names = [*NAMES, "necrosis"]
    options = {"manifest": str(tmp_path / "images.csv"), "class_names": names, "num_epochs": 1, "masked_share": 1.0}
    joint.train_here(output_dir=tmp_path / "run", **options)
    metrics, counts = metrics_of(tmp_path / "run"), counts_of(tmp_path / "run")
    assert metrics["class_names"] == list(metrics["classes"]) == names
    assert np.shape(metrics["confusion"]) == (5, 5)
    assert counts["pixels"][4] == 24 * 24
    assert metrics["classes"]["necrosis"]["true_share"] == pytest.approx(24 * 24 / (4 * 64 * 64))
    maps = {"checkpoint": str(tmp_path / "run/model.pt"), "output_dir": str(tmp_path / "maps"), "num_workers": 1}
    workflow = joint.workflow("inference", workflow_type="infer", class_names=names, **maps)
    source = joint.data / "slides/slide_00.tif"
    (row,) = workflow.parser.get_parsed_content("slide_mapper").run(source, tmp_path / "maps")
    assert {"area_mm2_in_situ", "area_mm2_necrosis"} <= row.keys()


def test_every_mode_begins_with_the_same_network_and_masks(joint, tmp_path):
    chosen = []
    for mode, head in itertools.product(("S", "S+C", "S+C*"), ("paper", "released")):
        workflow = joint.workflow("train", **joint.tiny | {"mode": mode, "head": head, "output_dir": str(tmp_path)})
        network, supervision = (workflow.parser.get_parsed_content(name) for name in ("network_def", "supervision"))
        weights = next(network.decoder.parameters()).detach()
        chosen.append(([record["image"] for record in supervision[0]], weights))
    for images, weights in chosen[1:]:
        assert images == chosen[0][0]
        assert weights.equal(chosen[0][1])
