"""CAMEL on the features of an encoder that stays as it is: all stages to their end, killed, evaluated, and in use."""

import pytest
import torch

from .runs import history_of, metrics_of, weights_of

pytestmark = pytest.mark.slow

# A second or two of each stage; squares of 32 px have one feature each at the encoder's own stride.
CAMEL = {
    "amp_dtype": "$None",
    "num_workers": 0,
    "num_epochs": 3,
    "feature_stride_px": 32,
    "instances_per_side": 2,
    "image_size_px": 64,
    "cmil::num_epochs": 3,
    "retrain::num_epochs": 2,
}


@pytest.fixture(scope="module")
def trained_camel(camel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("camel_features")
    options = CAMEL | {"features_dir": str(folder / "features")}
    command = camel.command("train", "features", output_dir=folder / "run", **options)
    return camel, options, folder / "run", camel.run_well(command)


def test_camel_runs_all_of_its_stages_on_features(trained_camel):
    _, _, folder, process = trained_camel
    assert process.stdout.count("images and copies with efficientnet_lite0") >= 1
    for stage in ("max_max", "max_min", "retrain", "segmentation"):
        state = weights_of(folder / stage / "model.pt")
        assert not [name for name in state if name.startswith("encoder.")]
        assert state["head.weight"].shape[1] == 1280
    # Tumour is easy here: painted in its own colour.
    pixels = metrics_of(folder)["pixels"]
    assert pixels["CAMEL"]["iou"] > pixels["Everything is tumour"]["iou"]
    assert history_of(folder, "segmentation").train_loss.iloc[-1] < history_of(folder, "segmentation").train_loss.iloc[0]


def test_camel_on_features_is_the_same_when_it_was_killed(trained_camel, tmp_path):
    camel, options, folder, _ = trained_camel
    command = camel.command("train", "features", output_dir=tmp_path / "run", **options)
    stage = tmp_path / "run/retrain"
    camel.kill_when(stage / "resume.pt", stage / "model.pt", command, tmp_path / "run.log")
    camel.run_well(command)
    for name in ("retrain/model.pt", "model.pt"):
        torch.testing.assert_close(weights_of(tmp_path / "run" / name), weights_of(folder / name), rtol=0, atol=0)
    assert metrics_of(tmp_path / "run") == metrics_of(folder)


def test_camel_is_evaluated_and_maps_slides_with_the_same_overlay(trained_camel, tmp_path):
    camel, options, folder, _ = trained_camel
    keys = {name: options[name] for name in ("image_size_px", "instances_per_side", "feature_stride_px")}
    metrics = camel.evaluate_here("features", output_dir=folder, evaluation_dir=tmp_path / "evaluation", **keys)
    assert metrics == metrics_of(folder)
    mapping = {name: options[name] for name in ("image_size_px", "feature_stride_px")}
    camel.map_slide("features", slide="slide_00", output_dir=tmp_path / "maps", checkpoint=folder / "model.pt", **mapping)


def test_a_checkpoint_of_another_stride_is_refused(trained_camel, tmp_path):
    camel, _, folder, _ = trained_camel
    command = camel.command(
        "inference", "features", checkpoint=folder / "model.pt", output_dir=tmp_path, image_size_px=64, feature_stride_px=16
    )
    process = camel.run(command)
    assert process.returncode != 0
    assert "they were trained on features of another encoder" in process.stdout + process.stderr


def test_the_segmentation_is_fine_tuned_from_the_head_of_features(trained_camel, tmp_path):
    camel, options, folder, _ = trained_camel
    tuned = options | {"num_epochs": 1, "batch_size": 8, "initial_weights": str(folder / "model.pt")}
    camel.run_well(camel.command("train", "features", "finetune", output_dir=tmp_path / "run", **tuned))
    state = weights_of(tmp_path / "run/model.pt")
    assert [name for name in state if name.startswith("encoder.")]
    # The stages before it are those of the frozen encoder.
    assert not [name for name in weights_of(tmp_path / "run/retrain/model.pt") if name.startswith("encoder.")]
    keys = {name: options[name] for name in ("image_size_px", "instances_per_side", "feature_stride_px")}
    again = camel.evaluate_here(
        "features", "finetune", output_dir=tmp_path / "run", evaluation_dir=tmp_path / "evaluation", **keys
    )
    assert again == metrics_of(tmp_path / "run")
    mapping = {name: options[name] for name in ("image_size_px", "feature_stride_px")}
    maps, weights = tmp_path / "maps", tmp_path / "run/model.pt"
    camel.map_slide("features", "finetune", slide="slide_00", output_dir=maps, checkpoint=weights, **mapping)
