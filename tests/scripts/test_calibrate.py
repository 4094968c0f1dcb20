"""`scripts/calibrate.py` on a bundle's own configuration and on generated images; its temperature in the bundle's inference."""

import json
from pathlib import Path

import pytest
import torch

from shared.engines.bundle_mapper import load_slide_mapper
from shared.networks import BoostedPatches, ScaledLogits
from shared.synthetic import DemoPlan, write_demo

BUNDLE = Path(__file__).resolve().parents[2] / "bundles/mil_boosting"
NETWORK = {"num_trees": 1, "patch_size_px": 16, "mpp": 0.5, "device": "cpu"}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrate") / "images"
    write_demo(folder, DemoPlan(images={"val": 4, "test": 4}, size_px=64, slides=()))
    return folder / "images.csv"


@pytest.fixture
def model_dir(tmp_path):
    """One tree, far too sure that what is dark is tumour."""
    network = BoostedPatches(1, patch_size_px=16)
    mean_of_l = network.features.names.index("mean of L")
    network.set_trees(torch.tensor([[mean_of_l]]), torch.tensor([[0.6]]), torch.tensor([[6.0, -6.0]]))
    torch.save(network.state_dict(), tmp_path / "model.pt")
    return tmp_path


def options_of(model_dir, manifest, **more):
    options = {"bundle": BUNDLE, "model_dir": model_dir, "manifest": manifest, **more, **NETWORK}
    return [text for name, value in options.items() for text in (f"--{name}", value)]


@pytest.mark.parametrize("labels", ["mask", "label"])
def test_a_temperature_is_fitted_and_applied(run_script, model_dir, manifest, labels):
    error, said = run_script("calibrate.py", *options_of(model_dir, manifest, labels=labels))
    assert error == ""
    found = json.loads((model_dir / "temperature.json").read_text())
    assert found["temperature"] > 1.5
    assert (found["split"], found["labels"]) == ("val", labels)
    assert found["after"]["nll"] < found["before"]["nll"]
    assert f"temperature {found['temperature']:.3f}" in said
    assert [line.split(",")[0] for line in said.splitlines()[1:5]] == ["val", "val", "test", "test"]
    report = json.loads((model_dir / "evaluation/reliability.json").read_text())
    assert report["split"] == "test"
    assert (model_dir / "evaluation/reliability.png").is_file()

    checkpoint = {"checkpoint": str(model_dir / "model.pt"), **NETWORK}
    scaled = load_slide_mapper(BUNDLE, overrides={**checkpoint, "temperature": str(model_dir / "temperature.json")})
    assert isinstance(scaled.network, ScaledLogits)
    assert float(scaled.network.temperature) == pytest.approx(found["temperature"])
    plain = load_slide_mapper(BUNDLE, overrides=checkpoint)
    assert isinstance(plain.network, BoostedPatches)
    # Another temperature is another result: one output folder cannot have both.
    assert scaled.settings()["weights_sha256"] != plain.settings()["weights_sha256"]


def test_what_is_missing_is_said(run_script, model_dir, manifest, tmp_path):
    error, _ = run_script("calibrate.py", *options_of(model_dir, tmp_path / "none.csv"))
    assert error.startswith("error: ")
    assert "none.csv" in error
    error, _ = run_script("calibrate.py", *options_of(model_dir, manifest, fit_split="train"))
    assert error.startswith("error: ")
    error, _ = run_script("calibrate.py", *options_of(tmp_path / "empty", manifest))
    assert error == "2"
