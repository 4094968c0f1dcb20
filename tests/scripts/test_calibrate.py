"""`scripts/calibrate.py` on a bundle's own configuration and on generated images; its temperature in the bundle's inference."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image

from shared.data import load_manifest
from shared.inference.bundle_mapper import load_slide_mapper
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


def scores_of(run_script, model_dir, manifest, **more):
    """Temperature and test scores as trained."""
    error, _ = run_script("calibrate.py", *options_of(model_dir, manifest, **more))
    assert error == ""
    found = json.loads((model_dir / "temperature.json").read_text())
    report = json.loads((model_dir / "evaluation/reliability.json").read_text())
    return found["temperature"], report["before"]["ece"]


def test_images_are_read_as_the_bundles_keys_say(run_script, model_dir, manifest, tmp_path):
    """Without a pixel size in the manifest the bundle's tile_mpp counts, of an overlay too; so it does where maps are made."""
    (tmp_path / "finer.json").write_text('{"tile_mpp": 0.25}')
    rows = pd.read_csv(manifest)
    rows.assign(mpp=0.25).to_csv(manifest.with_name("known.csv"), index=False)
    manifest = manifest.with_name("unknown.csv")
    rows.drop(columns="mpp").to_csv(manifest, index=False)
    expected = scores_of(run_script, model_dir, manifest.with_name("known.csv"))
    assert scores_of(run_script, model_dir, manifest) != pytest.approx(expected)
    assert scores_of(run_script, model_dir, manifest, overlay=tmp_path / "finer.json") == pytest.approx(expected)
    assert scores_of(run_script, model_dir, manifest, tile_mpp=0.25) == pytest.approx(expected)
    image = next(manifest.parent.glob("images/*.png"))
    options = {"checkpoint": str(model_dir / "model.pt"), **NETWORK, "tissue_only": False}
    for overlays, mpp in ((), 0.5), ((str(tmp_path / "finer.json"),), 0.25):
        (row,) = load_slide_mapper(BUNDLE, overlays, options).run(image, tmp_path / f"maps{mpp}")
        assert row["mpp"] == mpp
    # Whoever forgets what the training had is told.
    (model_dir / "config.json").write_text(json.dumps({"tile_mpp": 0.25}))
    error, _ = run_script("calibrate.py", *options_of(model_dir, manifest))
    assert "was trained with other settings (tile_mpp: " in error


def test_the_folds_of_the_training_decide_the_splits(run_script, model_dir, manifest, tmp_path):
    # What the file keeps for the test would be in no fold.
    rows = pd.read_csv(manifest).drop(columns="split", errors="ignore")
    rows.assign(case_id=[f"case {index % 4}" for index in range(len(rows))]).to_csv(manifest.with_name("cases.csv"), index=False)
    manifest = manifest.with_name("cases.csv")
    _, said = run_script("calibrate.py", *options_of(model_dir, manifest))
    (model_dir / "config.json").write_text(json.dumps({"num_folds": 4, "fold": 1}))
    error, said_of_folds = run_script("calibrate.py", *options_of(model_dir, manifest))
    assert error == ""
    test = load_manifest(manifest, split="test", num_folds=4, fold=1)
    report = json.loads((model_dir / "evaluation/reliability.json").read_text())
    # Every pixel of each image is counted.
    assert sum(report["before"]["counts"]) == len(test) * 64**2 < 4 * 64**2
    assert said_of_folds != said


@pytest.mark.parametrize(
    ("value", "why"), [(6.0, "sharper: the network makes no mistake"), (-6.0, "flatter: the network's probabilities")]
)
def test_the_bound_of_the_search_is_no_temperature(run_script, model_dir, tmp_path, value, why):
    """Of a network that is always right, or always wrong."""
    rows = ["image,label,mask,split"]
    for split in ("val", "test"):
        for label, grey in ((0, 250), (1, 20)):
            Image.new("RGB", (64, 64), (grey,) * 3).save(tmp_path / f"{split}{label}.png")
            Image.new("L", (64, 64), 255 * label).save(tmp_path / f"{split}{label}_mask.png")
            rows.append(f"{split}{label}.png,{label},{split}{label}_mask.png,{split}")
    (tmp_path / "images.csv").write_text("\n".join(rows) + "\n")
    network = BoostedPatches(1, patch_size_px=16)
    mean_of_l = network.features.names.index("mean of L")
    network.set_trees(torch.tensor([[mean_of_l]]), torch.tensor([[0.6]]), torch.tensor([[value, -value]]))
    torch.save(network.state_dict(), model_dir / "model.pt")
    error, _ = run_script("calibrate.py", *options_of(model_dir, tmp_path / "images.csv"))
    assert error.startswith("error: no temperature fits: the search ended at ")
    assert why in error
    assert not (model_dir / "temperature.json").exists()


@pytest.mark.parametrize("split", ["val", "test"])
def test_no_split_is_both_fitted_and_reported(run_script, model_dir, manifest, split):
    error, _ = run_script("calibrate.py", *options_of(model_dir, manifest, fit_split=split, report_split=split))
    assert error == "2"
    assert not (model_dir / "temperature.json").exists()


def write_slide(file, is_glass):
    """Of 1024 x 512 px at 0.5 um: all glass, or tissue in its left half, of which the darker part is tumour by its mask."""
    grey = np.full((512, 1024), 250, np.uint8)
    if not is_glass:
        grey[:, :512] = np.random.default_rng(0).integers(60, 200, (512, 512))
    rgb = np.stack([grey, grey // 2 if not is_glass else grey, grey], axis=2)
    options = {"tile": (256, 256), "compression": "zlib", "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(file, rgb, photometric="rgb", metadata=None, **options)
    Image.fromarray((grey < 120).astype(np.uint8) * 255).save(file.with_suffix(".png"))


def test_an_error_leaves_the_temperature_that_is_there(run_script, model_dir, tmp_path, capsys):
    """Of a test split that is all glass, and of numbers of regions of which there is none."""
    for name in ("val", "glass"):
        write_slide(tmp_path / f"{name}.tif", name == "glass")
    manifest = tmp_path / "slides.csv"
    manifest.write_text("image,label,mask,split\nval.tif,1,val.png,val\nglass.tif,1,glass.png,test\n")
    kept = '{"temperature": 2.0}'
    (model_dir / "temperature.json").write_text(kept)
    error, _ = run_script("calibrate.py", *options_of(model_dir, manifest))
    assert error.startswith(f"error: {manifest}, split 'test': no region of tissue of ")
    for number in (-3, 0, "some"):
        error, _ = run_script("calibrate.py", *options_of(model_dir, manifest, regions_per_slide=number))
        assert error == "2"
    assert (model_dir / "temperature.json").read_text() == kept
    assert not (model_dir / "evaluation").exists()


def test_what_is_missing_is_said(run_script, model_dir, manifest, tmp_path):
    error, _ = run_script("calibrate.py", *options_of(model_dir, tmp_path / "none.csv"))
    assert error.startswith("error: ")
    assert "none.csv" in error
    error, _ = run_script("calibrate.py", *options_of(model_dir, manifest, fit_split="train"))
    assert error.startswith("error: ")
    error, _ = run_script("calibrate.py", *options_of(tmp_path / "empty", manifest))
    assert error == "2"
