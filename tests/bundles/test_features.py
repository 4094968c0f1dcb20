"""Trainings on the features of an encoder that stays as it is: to their end, killed, evaluated, and in use."""

import json

import pytest
import torch

from .runs import Bundle, history_of, mapped_row, metrics_of, weights_of

CONFIGS = sorted(path.parent for path in Bundle("camel", None, {}).root.parent.glob("*/configs/features.json"))
pytestmark = pytest.mark.slow

# A second or two of each; squares of 32 px have one feature each at the encoder's own stride.
FEATURES = {"amp_dtype": "$None", "num_workers": 0, "num_epochs": 3, "feature_stride_px": 32}
CAMEL = FEATURES | {"instances_per_side": 2, "image_size_px": 64, "cmil::num_epochs": 3, "retrain::num_epochs": 2}
SLIDES = {"amp_dtype": "$None", "num_workers": 1, "num_epochs": 4, "tiles_per_slide": 20, "tissue_mpp": 4.0}


@pytest.fixture(scope="module")
def trained_camel(camel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("camel_features")
    options = CAMEL | {"features_dir": str(folder / "features")}
    command = camel.command("train", "features", output_dir=folder / "run", **options)
    return camel, options, folder / "run", camel.run_well(command)


def test_camel_runs_all_of_its_stages_on_features(trained_camel):
    _, _, folder, process = trained_camel
    assert process.stdout.count("images and copies are embedded by efficientnet_lite0") >= 1
    for stage in ("max_max", "max_min", "retrain", "segmentation"):
        state = weights_of(folder / stage / "model.pt")
        assert not [name for name in state if name.startswith("encoder.")]
        assert state["head.weight"].shape[1] == 1280
    # Tumour is easy here: painted in a colour of its own.
    assert metrics_of(folder)["pixels"]["CAMEL"]["iou"] > 0.3
    assert history_of(folder, "segmentation").train_loss.iloc[-1] < history_of(folder, "segmentation").train_loss.iloc[0]


def test_camel_on_features_is_the_same_when_it_was_killed(trained_camel, tmp_path):
    camel, options, folder, _ = trained_camel
    command = camel.command("train", "features", output_dir=tmp_path / "run", **options)
    camel.kill_when(tmp_path / "run/retrain/resume.pt", command, tmp_path / "run.log")
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


@pytest.fixture(scope="module")
def trained_slides(alpha_beta, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides_features")
    options = SLIDES | {"features_dir": str(folder / "features"), "tissue_dir": str(folder / "tissue")}
    return options, folder, alpha_beta.run_well(alpha_beta.command("train", "features", output_dir=folder / "run", **options))


def test_slides_are_embedded_once_and_mapped_from_their_features(alpha_beta, trained_slides, tmp_path):
    options, folder, _ = trained_slides
    (features,) = (folder / "features").iterdir()
    assert len(list(features.glob("*.h5"))) == 11
    assert json.loads((folder / "run/evaluation/maps/settings.json").read_text())["from_features"] is True
    # Not a map was made for the threshold.
    assert not (folder / "run/calibration/maps").exists()
    written = {path: path.stat().st_mtime_ns for path in features.glob("*.h5")}
    again = alpha_beta.run_well(alpha_beta.command("train", "features", output_dir=tmp_path / "run", **options))
    assert "11 of 11 images are finished: skipped" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in features.glob("*.h5")} == written
    torch.testing.assert_close(weights_of(tmp_path / "run/model.pt"), weights_of(folder / "run/model.pt"), rtol=0, atol=0)
    assert metrics_of(tmp_path / "run") == metrics_of(folder / "run")


def test_slides_on_features_are_evaluated_and_mapped_without_their_features_too(alpha_beta, trained_slides, tmp_path):
    options, folder, _ = trained_slides
    keys = {name: options[name] for name in ("tissue_dir", "tissue_mpp")}
    stored = alpha_beta.evaluate_here(
        "features", output_dir=folder / "run", evaluation_dir=tmp_path / "stored", features_dir=options["features_dir"], **keys
    )
    assert stored == metrics_of(folder / "run")
    encoded = alpha_beta.evaluate_here(
        "features", output_dir=folder / "run", evaluation_dir=tmp_path / "encoded", features_dir=str(tmp_path / "none"), **keys
    )
    of_pixels, of_features = (metrics["tissue"]["Alpha/beta MIL"]["auc"] for metrics in (encoded, stored))
    assert of_pixels == pytest.approx(of_features, abs=0.002)
    maps = tmp_path / "maps"
    checkpoint = folder / "run/model.pt"
    alpha_beta.map_slide("features", slide="slide_08", output_dir=maps, checkpoints=f"['{checkpoint}']", **keys)
    assert float(mapped_row(maps, "slide_08")["max_probability"]) > 0
