"""Every bundle's maps take their tissue by key, and one that trains on tissue compares it with the training's."""

import json
from pathlib import Path

import pytest

BUNDLES = Path(__file__).parents[2] / "bundles"
INFERENCES = sorted(BUNDLES.glob("*/configs/inference.json"))


@pytest.mark.parametrize("path", INFERENCES, ids=lambda path: path.parents[1].name)
def test_tissue_is_taken_by_key(path):
    inference, training = (json.loads(path.with_name(name).read_text()) for name in ("inference.json", "train.json"))
    mapper = inference["slide_mapper"]
    assert inference["tissue_method"] == training.get("tissue_method", "otsu")
    if "tissue_method" not in training:
        assert mapper["tissue"]["method"] == "@tissue_method"
        return
    evaluation = json.loads(path.with_name("evaluate.json").read_text())
    mappers = (mapper, evaluation["evaluator"]["mapper"], training["mapper"])
    assert [one["tissue"]["cache"] for one in mappers] == ["@tissue"] * 3
    maps = training["calibration"]["maps"]
    # Of stored features the data set has the tissue.
    calibrated = training["bags"] if maps["_target_"].endswith("FeatureMaps") else maps
    scored = (inference["dataset"], evaluation["evaluator"], training["evaluation"], calibrated)
    assert [one["tissue"] for one in scored] == ["@tissue"] * 4
    for config in (inference, evaluation):
        assert "tissue_method" in config["checked_keys"]
        assert {**config["tissue"], "keep": None} == {**training["tissue"], "keep": None}
        assert all(config[key] == training[key] for key in ("tissue_method", "tissue_mpp", "tissue_dir"))
