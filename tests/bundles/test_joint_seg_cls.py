"""Joint segmentation and classification, to its end on tiny data: whole, killed, by two processes, evaluated, in use."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from scripts.benchmarks.class_maps import write_class_maps, write_slide_maps
from scripts.benchmarks.shares import with_slide_scores
from scripts.benchmarks.slides_of_runs import SlidesOfRuns
from shared.sweeps.sweep import Sweep

from .conftest import CLASS_NAMES
from .runs import counts_of, files_of, files_of_training, history_of, mapped_row, messages_of, metrics_of, weights_of

RESULTS = files_of_training("joint") | {"class_counts.json"}
COLUMNS = [name.replace(" ", "_") for name in CLASS_NAMES]

pytestmark = pytest.mark.slow


def test_the_whole_training_leaves_its_files(trained_joint):
    assert files_of(trained_joint.folder) == RESULTS
    assert weights_of(trained_joint.folder / "model.pt").keys() == weights_of(trained_joint.folder / "joint/model.pt").keys()
    history = history_of(trained_joint.folder, "joint")
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert {"train_loss", "val_pixel_bach_score", "val_pixel_macro_f1", "val_pixel_mean_iou", "val_pixel_iou_3"} <= set(history)
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]


def test_a_sweep_of_it_is_scored_on_slides_and_drawn(joint, trained_joint, tmp_path):
    """The training stands for the finished run of a sweep: maps of the test slide, their scores, a picture of its class maps."""
    keys = {"dataset_dir": str(joint.data), "mpp": 8.0, "image_size_px": 64, "num_workers": 0, "device": "$torch.device('cpu')"}
    config_file = str(joint.root / "configs/train.json")
    sweep = Sweep([config_file], {"seed": [0], "masked_share": [0.1], "mode": ["S+C*"]}, tmp_path / "sweep", keys)
    (values,) = sweep.combinations
    shutil.copytree(trained_joint.folder, sweep.folder(values))
    write_class_maps(sweep, 2, tmp_path / "maps.png")
    with Image.open(tmp_path / "maps.png") as picture:
        # Two rows; image, truth and map.
        assert picture.width > picture.height
    slides = SlidesOfRuns([config_file], joint.data / "slides.csv", keys | {"tile_size_px": 64, "margin_px": 8})
    scores = with_slide_scores(sweep.table(), sweep, slides)
    accuracy = scores["class_pixels.S+C*.accuracy"][0]
    assert 0.3 < accuracy <= 1
    assert {f"classes.{name}.f1" for name in CLASS_NAMES} <= set(scores)
    write_slide_maps(sweep, 1, tmp_path / "slide.png")
    with Image.open(tmp_path / "slide.png") as picture:
        assert picture.width > 2 * picture.height
    written = (sweep.folder(values) / "slide_scores/metrics.json").stat().st_mtime_ns
    with_slide_scores(sweep.table(), sweep, slides)
    assert (sweep.folder(values) / "slide_scores/metrics.json").stat().st_mtime_ns == written
    # Of other slides they are other scores, though the folder has some.
    others = joint.manifest("slides.csv")
    others["split"] = others["split"].map({"train": "test", "test": "train"})
    others.to_csv(tmp_path / "others.csv", index=False)
    slides = SlidesOfRuns([config_file], tmp_path / "others.csv", keys | {"tile_size_px": 64, "margin_px": 8})
    assert with_slide_scores(sweep.table(), sweep, slides)["class_pixels.S+C*.accuracy"][0] != accuracy


def test_classes_are_counted_once(joint, trained_joint):
    table = joint.manifest()
    train = table[table["split"] == "train"]
    masks = [np.asarray(Image.open(mask)).ravel() for mask in train["mask"].dropna()]
    expected = np.bincount(np.concatenate(masks), minlength=4).tolist()
    assert counts_of(trained_joint.folder) == {"num_masked": 8, "num_labelled": 8, "pixels": expected, "images": [2, 2, 2, 2]}
    assert trained_joint.process.stdout.count("training with 8 masked images") == 1


def test_the_closing_table_is_printed_once(trained_joint):
    metrics = metrics_of(trained_joint.folder)
    assert list(metrics["class_pixels"]) == ["S+C*", "Everything is normal"]
    assert list(metrics["classes"]) == metrics["class_names"] == CLASS_NAMES
    assert list(metrics["image_classes"]) == ["S+C*"]
    assert np.sum(metrics["confusion"]) == 4 * 64 * 64
    lines = trained_joint.process.stdout.splitlines()
    for title in ("Pixels (%)", "Classes of pixels (%)", "Image labels (%)"):
        assert sum(line.startswith(f"{title}  ") for line in lines) == 1
    assert sum(line.startswith("S+C* ") for line in lines) == 2


def test_mlflow_has_the_training_and_its_evaluation(trained_joint):
    client, by_name = trained_joint.tracked_runs()
    assert by_name.keys() == {"run", "run/joint", "run/evaluation"}
    assert by_name["run"].data.params["lr"] == "0.003"
    training, evaluation = by_name["run/joint"].info.run_id, by_name["run/evaluation"]
    assert [point.step for point in client.get_metric_history(training, "val_pixel_bach_score")] == [1, 2, 3, 4, 5, 6]
    logged = {"class_pixels.s_c.bach_score", "classes.in_situ.iou", "image_classes.s_c.accuracy"}
    assert logged <= evaluation.data.metrics.keys()
    files = {file.path for file in client.list_artifacts(evaluation.info.run_id)}
    assert files == {"metrics.json", "images.csv", "examples.png"}


def test_killed_it_ends_with_the_same_numbers(trained_joint, tmp_path):
    folder = tmp_path / "killed"
    trained_joint.assert_same_when_killed(folder, ["joint"], RESULTS)
    assert counts_of(folder) == counts_of(trained_joint.folder)


@pytest.mark.parametrize(("mode", "num_labelled"), [("S+C*", 8), ("S", 0)])
def test_two_processes_train_as_one(joint, trained_joint, tmp_path, mode, num_labelled):
    """Close, not equal: batch normalisation sees half a batch."""
    # Not Adam, whose first steps follow the sign of gradients that may be all rounding.
    options = joint.tiny | {"mode": mode, "masked_share": 1.0, "optimizer::_target_": "torch.optim.SGD"}
    folder, one = tmp_path / "two", tmp_path / "one"
    trained_joint.by_two_processes(folder, "Pixels (%)", **options)
    assert files_of(folder) == RESULTS
    joint.train_here(output_dir=one, **options)
    assert counts_of(folder) == counts_of(one)
    assert counts_of(one)["num_labelled"] == num_labelled
    histories = [history_of(run, "joint") for run in (folder, one)]
    assert np.isfinite(histories[0]["train_loss"]).all()
    assert histories[0]["train_loss"].tolist() == pytest.approx(histories[1]["train_loss"].tolist(), rel=0.3)
    assert metrics_of(folder).keys() == metrics_of(one).keys()
    assert metrics_of(folder)["num_images"] == 4


def test_evaluate_repeats_the_numbers_of_the_training(joint, trained_joint, tmp_path):
    joint.evaluate_here(output_dir=trained_joint.folder, evaluation_dir=tmp_path, image_size_px=64)
    for name in ("metrics.json", "images.csv"):
        assert (tmp_path / name).read_text() == (trained_joint.folder / "evaluation" / name).read_text()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"head": "released"}, "head: 'paper' before, 'released' now"),
        ({"stain_reference": "monai"}, "stain_reference: None before, 'monai' now"),
        ({"mpp": 4.0}, "mpp: 8.0 before, 4.0 now"),
    ],
    ids=["head", "stain_reference", "mpp"],
)
@pytest.mark.parametrize("config", ["evaluate", "inference"])
def test_other_settings_than_in_training_are_refused(joint, trained_joint, tmp_path, config, options, named):
    if config == "evaluate":
        given = {"output_dir": str(trained_joint.folder), "evaluation_dir": str(tmp_path / "out"), "image_size_px": 64}
    else:
        given = {"checkpoint": str(trained_joint.folder / "model.pt"), "output_dir": str(tmp_path / "out")}
    with pytest.raises(RuntimeError) as caught:
        joint.workflow(config, workflow_type="infer", **given, **options).run()
    assert named in messages_of(caught.value)
    assert not (tmp_path / "out").exists()


def assert_maps_agree(folder: Path, row: dict[str, str]) -> None:
    """Map at 8 um of the slide of 480 x 560 px at 4 um, its areas, and its row in the table."""
    name = row["slide"]
    with tifffile.TiffFile(folder / f"{name}.ome.tif") as tiff:
        series = tiff.series[0]
        assert (series.axes, series.shape, series.dtype) == ("CYX", (4, 240, 280), np.uint8)
        assert all(f'Name="{one}"' in tiff.ome_metadata for one in CLASS_NAMES)
        assert 'PhysicalSizeX="8.0"' in tiff.ome_metadata
        shares = series.asarray()
    features = json.loads((folder / f"{name}.geojson").read_text())["features"]
    found = {feature["properties"]["classification"]["name"] for feature in features}
    assert found <= set(CLASS_NAMES[1:])
    likeliest = shares.argmax(axis=0)
    for index, (class_name, column) in enumerate(zip(CLASS_NAMES, COLUMNS, strict=True)):
        if index == 0:
            assert f"area_mm2_{column}" not in row
            continue
        area = float(row[f"area_mm2_{column}"])
        assert (area > 0) == (class_name in found)
        # Small areas have no polygons, and of two bytes that are equal the first is taken.
        assert area <= (likeliest == index).sum() * 64e-6 + 0.01


def test_inference_maps_a_slide(joint, trained_joint, tmp_path):
    options = {"checkpoint": trained_joint.folder / "model.pt", "image_size_px": 64, "tile_size_px": 128}
    row = joint.map_slide(slide="slide_01", output_dir=tmp_path, **options)
    assert_maps_agree(tmp_path, row)
    assert sum(float(row[f"area_mm2_{column}"]) for column in COLUMNS[1:]) > 0, "nothing was found, which proves nothing"
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert (settings["class_names"], settings["mpp"], settings["network"]) == (CLASS_NAMES, 8.0, "SegClsResNet18")


def test_stains_are_normalized_in_training_evaluation_and_inference(joint, tmp_path):
    run = tmp_path / "run"
    joint.train_here(output_dir=run, stain_reference="monai", masked_share=1.0)
    again = {"image_size_px": 64, "output_dir": run, "evaluation_dir": tmp_path / "again", "stain_reference": "monai"}
    assert joint.evaluate_here(**again) == metrics_of(run)
    maps = {"checkpoint": str(run / "model.pt"), "output_dir": str(tmp_path / "maps"), "num_workers": 1}
    maps |= {"image_size_px": 64, "tile_size_px": 128}
    source = str(joint.data / "slides/slide_01.tif")
    joint.workflow("inference", workflow_type="infer", source=source, stain_reference="monai", **maps).run()
    assert_maps_agree(tmp_path / "maps", mapped_row(tmp_path / "maps", "slide_01"))
    settings = json.loads((tmp_path / "maps/settings.json").read_text())
    assert settings["network"] == "Sequential"


def test_training_and_inference_have_the_properties_that_monai_asks_for(joint, trained_joint):
    assert trained_joint.workflow().check_properties() == []
    prediction = joint.infer_here(checkpoint=str(trained_joint.folder / "model.pt"), image_size_px=64, margin_px=8)
    assert prediction.shape == (4, 64, 64)
    assert prediction.sum(0).allclose(prediction.new_ones(()))
