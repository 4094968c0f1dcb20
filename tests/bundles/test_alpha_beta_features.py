"""Alpha/beta MIL on the features of an encoder that stays as it is: embedded once, trained, evaluated, and in use."""

import json

import pytest
import torch

from .runs import mapped_row, metrics_of, weights_of

pytestmark = pytest.mark.slow

SLIDES = {"amp_dtype": "$None", "num_workers": 1, "num_epochs": 4, "tiles_per_slide": 20, "tissue_mpp": 4.0}


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
    assert "11 of 11 images are already finished and skipped" in again.stdout
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
    of_pixels, of_features = (metrics["pixels_tissue"]["Alpha/beta MIL"]["auc"] for metrics in (encoded, stored))
    assert of_pixels == pytest.approx(of_features, abs=0.002)
    maps = tmp_path / "maps"
    checkpoint = folder / "run/model.pt"
    alpha_beta.map_slide("features", slide="slide_08", output_dir=maps, checkpoints=f"['{checkpoint}']", **keys)
    assert float(mapped_row(maps, "slide_08")["max_probability"]) > 0


def test_slides_are_fine_tuned_from_the_head_of_features(alpha_beta, trained_slides, tmp_path):
    options, folder, _ = trained_slides
    tuned = options | {"num_epochs": 1, "tiles_per_slide": 6, "bag_tile_px": 64, "initial_weights": str(folder / "run/model.pt")}
    alpha_beta.run_well(alpha_beta.command("train", "features", "finetune", output_dir=tmp_path / "run", **tuned))
    assert [name for name in weights_of(tmp_path / "run/model.pt") if name.startswith("encoder.")]
    assert "from_features" not in json.loads((tmp_path / "run/evaluation/maps/settings.json").read_text())
