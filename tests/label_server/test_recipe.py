"""What a bundle has to declare to be trained from the labels of a viewer."""

import json
from pathlib import Path

import pytest

from scripts.label_server.learning.recipe import read_recipe
from scripts.label_server.refusal import Refusal

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
SUPERVISION = {"you_have": "labels", "unit": "images", "learns_from": ["label", "area"], "of_some": [], "chooses_by": []}
CONFIG = {"image_size_px": 128, "mpp": 1}


@pytest.fixture
def bundle(tmp_path):
    """A bundle with this overlay, and these entries of its supervision."""

    def write(overlay, **supervision):
        configs = tmp_path / "configs"
        configs.mkdir()
        (configs / "metadata.json").write_text(json.dumps({"supervision": SUPERVISION | supervision}))
        (configs / "from_viewer.json").write_text(json.dumps(overlay))
        return tmp_path

    return write


def test_the_manifest_follows_the_supervision(bundle):
    keys = {"max_epochs": "epochs", "initial_weights": "train::trainer::initial_weights"}
    recipe = read_recipe(bundle({"_desc_": "Why.", "_keys_": keys, "truth": None}))
    assert (recipe.region(CONFIG), recipe.needs_area) == ((128, 1.0), True)
    assert (recipe.max_epochs, recipe.initial_weights) == tuple(keys.values())
    # Notes are no keys of a training.
    assert recipe.overlay == {"truth": None}


def test_slides_are_listed_whole_and_keys_may_be_left_out(bundle):
    recipe = read_recipe(bundle({}, unit="slides", learns_from=["label"]))
    assert (recipe.region({}), recipe.needs_area, recipe.max_epochs, recipe.initial_weights) == (None, False, None, None)


def test_a_bundle_without_the_file_has_no_recipe(tmp_path):
    assert read_recipe(tmp_path) is None


@pytest.mark.parametrize(
    ("overlay", "supervision", "problem"),
    [
        (
            {"_keys_": {"epochs": "n"}},
            {},
            r"from_viewer\.json, '_keys_': expected entries of max_epochs, initial_weights; found epochs",
        ),
        (
            {},
            {"learns_from": ["label", "mask"]},
            r"from_viewer\.json: the bundle learns from mask, but viewers only provide area and label",
        ),
        ({}, {"unit": "tiles"}, r"metadata\.json, 'supervision': expected as unit one of images, slides, found 'tiles'"),
    ],
)
def test_what_is_declared_wrongly_is_named(bundle, overlay, supervision, problem):
    with pytest.raises(ValueError, match=problem):
        read_recipe(bundle(overlay, **supervision))


def test_regions_need_a_pixel_size(bundle):
    with pytest.raises(Refusal, match=r"trained on images as they are stored \(mpp null\).*--train_set mpp NUMBER"):
        read_recipe(bundle({})).region(CONFIG | {"mpp": None})
