"""The validation of a run in the epochs whose weights it kept."""

import json

import pandas as pd
import pytest
from monai.bundle import ConfigParser

from shared.sweeps.run_scores import kept_epoch, kept_validation

from .conftest import ROOT

NAN = float("nan")


@pytest.fixture
def write_history(tmp_path):
    def write(stage, **columns):
        folder = tmp_path / stage
        folder.mkdir(exist_ok=True)
        epochs = {"epoch": range(1, 1 + len(next(iter(columns.values()))))}
        pd.DataFrame(epochs | columns).to_csv(folder / "history.csv", index=False)

    return write


@pytest.mark.parametrize(
    ("scores", "epoch"),
    [([0.5, 0.9, 0.4], 2), ([0.5, 0.9, 0.9], 3), ([0.9, NAN, 0.4], 1), ([NAN, 0.1, NAN], 2), ([NAN, NAN, NAN], 3)],
)
def test_the_epoch_is_that_of_the_weights(scores, epoch):
    """As `StageTrainer` keeps them: no number is larger than NaN, and of equal epochs the last is kept."""
    best = None
    for number, score in enumerate(scores, start=1):
        if best is None or score >= best[0] or best[0] != best[0]:
            best = score, number
    history = pd.DataFrame({"epoch": [1, 2, 3], "val_iou": scores})
    assert kept_epoch(history, "val_iou")["epoch"] == best[1] == epoch
    assert kept_epoch(history, None)["epoch"] == 3


@pytest.mark.parametrize(
    ("bundle", "overlay", "stage", "kept_by"),
    [
        ("fully_supervised", {}, "segmentation", "val_pixel_iou"),
        ("fully_supervised", {"truth": None}, "segmentation", "val_image_auc"),
        ("fully_supervised", {"keep_best": "$None"}, "segmentation", None),
        ("joint_seg_cls", {}, "joint", "val_pixel_macro_f1"),
        ("joint_seg_cls", {"truth": None}, "joint", None),
        ("alpha_beta_mil", {}, "tiles", "val_slide_auc"),
        ("attention_mil", {}, "attention", "val_slide_auc"),
        ("cdws_mil", {}, "segmentation", "val_image_auc"),
        ("wildcat", {}, "segmentation", "val_image_auc"),
        ("camel", {}, "max_max", "val_image_auc"),
        ("camel", {}, "segmentation", None),
    ],
)
def test_validation_is_of_the_epoch_that_was_kept(tmp_path, write_history, bundle, overlay, stage, kept_by):
    """What keeps it may be an expression, which other settings decide."""
    config = ConfigParser.load_config_files([str(ROOT / "bundles" / bundle / "configs/train.json")]) | overlay
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_history(stage, **{kept_by or "val_image_auc": [0.5, 0.9, 0.4], "val_other": [1, 2, 3], "train_loss": [3, 2, 1]})
    metrics = kept_validation(tmp_path)
    assert metrics[f"{stage}.val_other"] == (2 if kept_by else 3)
    assert f"{stage}.train_loss" not in metrics


def test_a_stage_that_keeps_its_last_epoch(tmp_path, write_history):
    """Also where another stage of the run does not, and where there is no configuration at all."""
    write_history("first", val_f=[0.9, 0.1])
    write_history("second", val_f=[0.9, 0.1])
    assert kept_validation(tmp_path) == {"first.val_f": 0.1, "second.val_f": 0.1}
    stage = {"name": "second", "weights": {"_target_": "shared.engines.Weights", "keep_best": "val_f"}}
    (tmp_path / "config.json").write_text(json.dumps({"train": {"trainer": stage}}))
    assert kept_validation(tmp_path) == {"first.val_f": 0.1, "second.val_f": 0.9}
