"""What the server gives to a training passes the training's own check of keys; what no training would read is refused."""

import json
import re
from pathlib import Path

import pytest

from scripts.label_server.learning.recipe import read_recipe
from scripts.label_server.learning.served_model import BundleSource, ServedModel, config_files, inference_settings
from scripts.label_server.learning.training import training_overlay
from scripts.label_server.learning.training_keys import check_training_keys
from shared.front_door import Given, check_given

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
TRAINABLE = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/from_viewer.json"))
# Of several bundles each: no bundle has all of them.
OF_THE_SERVER = {"cmil::num_epochs": 1, "num_epochs": 2, "tracking::enabled": False, "num_workers": 0, "amp_dtype": None}


def sources(checkpoint):
    return {name: BundleSource(BUNDLES / name, checkpoint) for name in TRAINABLE}


@pytest.mark.parametrize("name", TRAINABLE)
@pytest.mark.parametrize("options", [{}, {"max_epochs": 3, "device": "cpu"}, {"pretrained": False}])
def test_a_training_of_the_server_passes_the_check_of_keys(tmp_path, name, options):
    (tmp_path / "config.json").write_text(json.dumps({"image_size_px": 64, "backbone": "resnet10", "amp_dtype": "$None"}))
    model = ServedModel(name, sources(tmp_path / "model.pt")[name], tmp_path / "work")
    overlay = training_overlay(model, read_recipe(BUNDLES / name), tmp_path / "work" / "training-0001", options, OF_THE_SERVER)
    path = tmp_path / "overlay.json"
    path.write_text(json.dumps(overlay))
    check_given(Given((*config_files(model.source, "train"), path)))
    keys = json.loads((BUNDLES / name / "configs" / "train.json").read_text())
    assert {key for key in OF_THE_SERVER if key in overlay} == {key for key in OF_THE_SERVER if key.split("::")[0] in keys}
    assert (overlay["tracking::enabled"], overlay["num_workers"]) == (False, 0)


def test_a_training_keeps_what_the_version_before_it_was_trained_with_in_groups_of_keys_too(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"norm": "group", "cmil": {"lr": 0.01, "num_epochs": 16}}))
    model = ServedModel("camel", sources(tmp_path / "model.pt")["camel"], tmp_path / "work")
    overlay = training_overlay(model, read_recipe(BUNDLES / "camel"), tmp_path / "work" / "training-0001", {}, {})
    changed = {key: overlay[key] for key in ("norm", "cmil::lr", "cmil::num_epochs") if key in overlay}
    assert changed == {"norm": "group", "cmil::lr": 0.01}


@pytest.mark.parametrize(
    "bundle", [path.parents[1] for path in sorted(BUNDLES.glob("*/configs/inference.json"))], ids=lambda path: path.name
)
def test_a_version_is_served_with_the_settings_that_its_network_was_made_with(bundle, tmp_path):
    """Under every overlay: keys that a network is made of are among those that inference compares with the training."""
    everything = {key: "other" for path in bundle.glob("configs/*.json") for key in json.loads(path.read_text())}
    (tmp_path / "config.json").write_text(json.dumps(everything))
    inference = json.loads((bundle / "configs" / "inference.json").read_text())
    for path in sorted(bundle.glob("configs/*.json")):
        config = json.loads(path.read_text())
        if "network_def" not in config or (path.stem != "inference" and "imports" in config):
            continue
        # Neither what is checked before nor the weights that a training begins with are part of it.
        made_of = {name: value for name, value in config["network_def"].items() if name not in ("_requires_", "pretrained")}
        names = set(re.findall(r"@(\w+)", json.dumps(made_of)))
        # An encoder is compared by the key that its weights carry.
        names -= {name for name in names if isinstance(inference.get(name), dict)}
        source = BundleSource(bundle, tmp_path / "model.pt", () if path.stem == "inference" else (path.stem,))
        assert names & inference.keys() <= inference_settings(source, tmp_path / "model.pt").keys(), path.stem


def test_keys_that_some_bundle_has_are_taken(tmp_path):
    check_training_keys(sources(tmp_path / "model.pt"), OF_THE_SERVER)


def test_a_key_that_no_bundle_has_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"--train_set num_epoch: .*alpha_beta_mil, attention_mil, camel or cdws_mil; .* Was num_epochs"
    ):
        check_training_keys(sources(tmp_path / "model.pt"), {"num_epoch": 1})
    with pytest.raises(ValueError, match="--train_set num_epochs: none of the served bundles can be trained"):
        check_training_keys({}, {"num_epochs": 1})
