"""What of the validation split each method chooses by: the real bundles, as they are and on features."""

import json
import re

import pytest

from scripts.comparison.planning.methods import find_methods
from scripts.comparison.planning.plan import plan
from scripts.comparison.planning.selection import chosen_by

from .conftest import BUNDLES, method


@pytest.mark.parametrize(
    ("name", "given", "own", "by_labels"),
    [
        ("joint_seg_cls", {}, {"labels": 1, "masks": 1}, {"labels": 0, "masks": 0}),
        ("joint_seg_cls", {"keep_best": None}, {"labels": 0, "masks": 0}, {"labels": 0, "masks": 0}),
        ("fully_supervised", {}, {"labels": 1, "masks": 1}, {"labels": 2, "masks": 0}),
        ("fully_supervised+instance_fsb", {}, {"labels": 1, "masks": 1}, {"labels": 2, "masks": 0}),
        ("fully_supervised+features", {}, {"labels": 0, "masks": 0}, {"labels": 0, "masks": 0}),
        ("camel", {}, {"labels": 2, "masks": 0}, {"labels": 2, "masks": 0}),
        ("camel", {"threshold": 0.5, "cmil::keep_best": None, "retrain::keep_best": None}, *[{"labels": 0, "masks": 0}] * 2),
        ("cdws_mil", {}, {"labels": 2, "masks": 0}, {"labels": 2, "masks": 0}),
        ("mil_boosting", {}, {"labels": 0, "masks": 0}, {"labels": 0, "masks": 0}),
        # Of CAMEL's stages that learn from masks or whole images Max-Max alone runs, and only if the weights begin with its own.
        ("camel+pixel_fsb", {}, *[{"labels": 2, "masks": 0}] * 2),
        ("camel+unet+pixel_fsb", {}, *[{"labels": 0, "masks": 0}] * 2),
        ("camel+pixel_fsb", {"initial_weights": None}, *[{"labels": 0, "masks": 0}] * 2),
        ("camel+unet+image_fsb", {}, *[{"labels": 2, "masks": 0}] * 2),
        ("camel+unet+image_fsb", {"threshold": 0.5}, *[{"labels": 0, "masks": 0}] * 2),
        # On features.
        ("joint_seg_cls+features", {}, {"labels": 1, "masks": 1}, {"labels": 0, "masks": 0}),
        ("joint_seg_cls+features+finetune", {}, {"labels": 1, "masks": 1}, {"labels": 0, "masks": 0}),
        ("fully_supervised+features+finetune", {}, *[{"labels": 0, "masks": 0}] * 2),
        ("fully_supervised+finetune", {}, {"labels": 1, "masks": 1}, {"labels": 2, "masks": 0}),
        ("camel+features", {}, {"labels": 2, "masks": 0}, {"labels": 2, "masks": 0}),
        *((f"{name}+features", {}, *[{"labels": 0, "masks": 0}] * 2) for name in ("cdws_mil", "wildcat", "mil_boosting")),
        ("wildcat+features", {"keep_best": "val_image_auc"}, *[{"labels": 2, "masks": 0}] * 2),
    ],
)
def test_what_is_used_to_select(data, tmp_path, name, given, own, by_labels):
    """Of the two validation images one has tumour; without tumour the label is the mask."""
    plans = [plan(method(name), data, tmp_path, given, by_labels_alone=alone) for alone in (False, True)]
    assert [planned.selection for planned in plans] == [own | {"areas": 0}, by_labels | {"areas": 0}]
    # Who does not choose by masks is trained in the same way.
    assert (plans[0].settings == plans[1].settings) == (own["masks"] == 0)


def test_methods_of_slides_choose_by_labels():
    for name in ("alpha_beta_mil", "alpha_beta_mil+features", "alpha_beta_mil+features+finetune", "attention_mil"):
        found = method(name)
        assert (
            chosen_by(found.training, found.parser({"keep_best": None})) == {"label"} == chosen_by(found.training, found.parser())
        )


@pytest.mark.parametrize(
    ("metric", "column"),
    [
        *(
            (f"val_{name}", "label")
            for name in ("image_auc", "image_balanced_accuracy", "slide_auc", "slide_accuracy", "proxy_auc")
        ),
        *((f"val_{name}", "mask") for name in ("pixel_iou", "instance_auc", "region_f", "region_f_ca", "tile_auc")),
    ],
)
def test_what_the_metric_that_chooses_is_made_of(metric, column):
    found = method("cdws_mil")
    assert chosen_by(found.training, found.parser({"keep_best": metric, "threshold": 0.5})) == {column}


def test_selecting_is_what_bundles_declare():
    for found in find_methods(BUNDLES):
        assert chosen_by(found.training, found.parser()) == set(found.supervision.chooses_by), found.key


def components(item):
    """Every component of a configuration, however deep."""
    parts = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return ([item] if isinstance(item, dict) and "_target_" in item else []) + [one for part in parts for one in components(part)]


@pytest.mark.parametrize("path", sorted(BUNDLES.glob("*/configs/*.json")), ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_what_chooses_an_epoch_is_a_key_that_is_counted(path):
    """A component that named its own metric would choose unseen."""
    named = [one["keep_best"] for one in components(json.loads(path.read_text())) if one.get("keep_best") is not None]
    assert all(re.fullmatch(r"@(\w+::)?keep_best", metric) for metric in named)
