"""Every bundle of images on the features of an encoder, and together with it: trained, evaluated, in use, on tiny data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from shared.inference import SlideEmbedder
from shared.inference.tiles.stored_network import encoder_of

from .conftest import CLASS_NAMES, IMAGE_SIZE_PX, TINY_CDWS, TINY_JOINT
from .runs import Bundle, assert_same_results, files_of, mapped_row, metrics_of, train_once, weights_of

SIZES: dict[str, Any] = {"image_size_px": IMAGE_SIZE_PX, "mpp": 0.5}
TINY: dict[str, Any] = {
    **SIZES,
    "amp_dtype": "$None",
    "num_workers": 0,
    "num_epochs": 4,
    "batch_size": 8,
    "lr": 0.01,
}
TREES = {**SIZES, "num_workers": 0, "num_trees": 16, "rounds_per_epoch": 8, "max_features": "$None"}
JOINT = TINY_JOINT | {"mpp": 8.0, "num_epochs": 4, "lr": 0.01, "masked_share": 1.0, "feature_stride_px": 8}
BUNDLES: dict[str, dict[str, Any]] = {
    "cdws_mil": TINY,
    "wildcat": TINY,
    "fully_supervised": TINY,
    "mil_boosting": TREES,
    "joint_seg_cls": JOINT,
}

pytestmark = pytest.mark.slow


@pytest.fixture(params=BUNDLES)
def bundle(request, tmp_path) -> Bundle:
    data = request.getfixturevalue("easy_breast" if request.param == "joint_seg_cls" else "easy_data")
    return Bundle(request.param, data, BUNDLES[request.param] | {"features_dir": str(tmp_path / "features")})


def seen(bundle: Bundle) -> dict[str, Any]:
    """What evaluate.json and inference.json must be told: what the network is, and the pixels that it saw."""
    names = ("mpp", "image_size_px", "num_trees", "feature_stride_px")
    return {name: bundle.tiny[name] for name in names if name in bundle.tiny}


def map_here(bundle: Bundle, *overlays: str, output_dir: Path, **options: Any) -> np.ndarray:
    """inference.json within this process: the map of the first slide."""
    source = str(bundle.data / "slides/slide_00.tif")
    folders = {"source": source, "output_dir": str(output_dir)}
    bundle.workflow("inference", *overlays, workflow_type="infer", **folders, **options).run()
    mapped_row(output_dir, "slide_00")
    return tifffile.imread(output_dir / "slide_00.ome.tif")


def test_it_trains_on_features_is_evaluated_and_maps_a_slide(bundle, tmp_path):
    bundle.train_here("features", output_dir=tmp_path / "run")
    metrics = metrics_of(tmp_path / "run")
    if bundle.name != "joint_seg_cls":
        # Tumour is painted in its own colour.
        pixels = metrics["pixels"]
        (method,) = metrics["images"]
        assert pixels[method]["iou"] > pixels["Everything is tumour"]["iou"]
    # The head alone.
    assert not [name for name in weights_of(tmp_path / "run/model.pt") if name.startswith("encoder.")]
    assert (tmp_path / "run/model.pt").stat().st_size < 200_000
    again = bundle.evaluate_here("features", output_dir=tmp_path / "run", evaluation_dir=tmp_path / "again", **seen(bundle))
    assert again == metrics
    options = {**seen(bundle), "checkpoint": str(tmp_path / "run/model.pt"), "tile_size_px": 256}
    map_here(bundle, "features", output_dir=tmp_path / "maps", **options)
    settings = json.loads((tmp_path / "maps/settings.json").read_text())
    assert settings["margin_px"] == 64
    assert_the_map_is_that_of_stored_features(bundle, tmp_path, options)


def assert_the_map_is_that_of_stored_features(bundle: Bundle, folder: Path, options: dict[str, Any]) -> None:
    mapper = bundle.workflow("inference", "features", workflow_type="infer", **options).parser.get_parsed_content("slide_mapper")
    tiles = {"tile_size_px": mapper.tiles.tile_size_px, "margin_px": mapper.tiles.margin_px}
    embedder = SlideEmbedder(encoder_of(mapper.network), mapper.mpp, compute=mapper.compute, **tiles)
    embedder.run(bundle.data / "slides/slide_00.tif", folder / "stored")
    stored = map_here(bundle, "features", output_dir=folder / "from", stored_features=str(folder / "stored"), **options)
    assert json.loads((folder / "from/settings.json").read_text())["from_features"]
    pixels = tifffile.imread(folder / "maps/slide_00.ome.tif").astype(int)
    is_tissue = stored > 0
    assert is_tissue.mean() > 0.1
    # Beside the seams of the tiles, where a map from features sees more, they are one up to half precision.
    difference = np.abs(pixels - stored)[is_tissue]
    assert np.median(difference) <= 1
    assert (difference <= 3).mean() > 0.9


# Trees have no gradient to fine-tune an encoder by.
@pytest.mark.parametrize("bundle", [name for name in BUNDLES if name != "mil_boosting"], indirect=True)
def test_fine_tuning_begins_with_the_head_of_a_run_on_features(bundle, tmp_path):
    bundle.train_here("features", output_dir=tmp_path / "run", num_epochs=1)
    options = {"initial_weights": str(tmp_path / "run/model.pt"), "num_epochs": 1, "lr": 0.0, "encoder_lr": 1e-4}
    bundle.train_here("finetune", output_dir=tmp_path / "tuned", **options)
    before, after = weights_of(tmp_path / "run/model.pt"), weights_of(tmp_path / "tuned/model.pt")
    assert torch.equal(before["mean"], after["mean"])
    trained = [name for name in after if name.startswith("encoder.") and name.endswith("conv_stem.weight")]
    assert trained
    # The rate of the head was 0; its running statistics go on.
    for name, values in before.items():
        if not name.startswith("classifier."):
            torch.testing.assert_close(after[name], values, msg=name)
    again = {"output_dir": tmp_path / "tuned", "evaluation_dir": tmp_path / "again", **seen(bundle)}
    assert bundle.evaluate_here("finetune", **again) == metrics_of(tmp_path / "tuned")


@pytest.mark.parametrize(
    "overlays", [("image_fsb", "features"), ("image_fsb", "finetune"), ("instance_fsb", "instance_features")]
)
def test_the_baselines_compose(easy_data, tmp_path, overlays):
    supervised = Bundle("fully_supervised", easy_data, TINY | {"features_dir": str(tmp_path / "features"), "num_epochs": 1})
    more = {"instances_per_side": 2} if "instance_fsb" in overlays else {}
    workflow = supervised.train_here(*overlays, output_dir=tmp_path / "run", **more)
    network = type(workflow.parser.get_parsed_content("network_def")).__name__
    assert network == ("EncodedClassifier" if more else "EncodedSegmentation")
    metrics = metrics_of(tmp_path / "run")
    assert ("instances" in metrics) == bool(more)
    again = {"output_dir": tmp_path / "run", "evaluation_dir": tmp_path / "again", **SIZES, **more}
    assert supervised.evaluate_here(*overlays, **again)["pixels"] == metrics["pixels"]


@pytest.mark.parametrize("bundle_name", BUNDLES)
def test_every_overlay_is_read_behind_the_data(bundle_name, easy_data, easy_breast, tmp_path):
    """features.json and finetune.json after each other overlay of data or method: everything but the data can be made."""
    data = easy_breast if bundle_name == "joint_seg_cls" else easy_data
    bundle = Bundle(bundle_name, data, {})
    skipped = {
        "train",
        "evaluate",
        "inference",
        "metadata",
        "features",
        "finetune",
        "instance_features",
        "multi_gpu_train",
        "vgg_imagenet",
    }
    names = [path.stem for path in sorted((bundle.root / "configs").glob("*.json")) if path.stem not in skipped]
    options: dict[str, Any] = {"manifest": str(data / "images.csv"), "output_dir": str(tmp_path), "tracking::enabled": False}
    if bundle_name == "joint_seg_cls":
        options["class_names"] = CLASS_NAMES
    for name in names:
        for last in ("features", "finetune"):
            if (bundle.root / f"configs/{last}.json").is_file():
                parser = bundle.workflow("train", name, last, **options).parser
                network = parser.get_parsed_content("network_def")
                assert type(network).__name__.startswith("Encoded"), (name, last)
                # Of what is cut from images the features, too, must be whole.
                if bundle_name == "fully_supervised" and last == "finetune":
                    given, stride = parser.get_parsed_content("crop_size_px"), parser.get_parsed_content("encoder_def").stride_px
                    cut = parser.get_parsed_content("train::preprocessing::crop_size_px")
                    assert cut == (given and given // stride * stride), name


def test_killed_it_ends_with_the_same_numbers(easy_data, tmp_path):
    bundle = Bundle("cdws_mil", easy_data, TINY)
    options = TINY_CDWS | TINY | {"features_dir": tmp_path / "features", "num_epochs": 12}
    training = train_once(bundle, {**options, "config_file": str(bundle.config_files("train", "features"))}, tmp_path)
    command = bundle.command("train", "features", output_dir=tmp_path / "killed", **options)
    stage, log = tmp_path / "killed/segmentation", tmp_path / "killed.log"
    bundle.kill_when(stage / "resume.pt", stage / "model.pt", command, log, MLFLOW_TRACKING_URI=training.database)
    assert "resumes after epoch" in bundle.run_well(command, MLFLOW_TRACKING_URI=training.database).stdout
    assert_same_results(tmp_path / "killed", training.folder, files_of(training.folder))
