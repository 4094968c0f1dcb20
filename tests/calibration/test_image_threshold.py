import json
import logging
import re

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image
from sklearn.metrics import roc_curve
from torch import nn

from shared.calibration import ImageCalibration, load_threshold
from shared.calibration.image_threshold import image_threshold
from shared.data import RegionDataset
from shared.handlers import Tracking
from tests.engines.conftest import in_processes


class Redness(nn.Module):
    """The red of a pixel as the probability of tumour, as logits."""

    def forward(self, images):
        return (images[:, :1].float() / 255).clamp(1e-4, 1 - 1e-4).logit()


@pytest.fixture
def make_calibration(tmp_path):
    """Images of 16 x 16 px, with red `tumour`, `beside` it in the same image, and `normal` in normal images; give or take 10."""

    def make(num_images=12, normal=60, tumour=80, beside=None, name="calibration.json", **options):
        rng, records = np.random.default_rng(0), []
        for index in range(num_images):
            red = np.full((16, 16, 1), normal)
            if index % 2:
                red[:] = normal if beside is None else beside
                red[: 4 + index % 3 * 4] = tumour
            pixels = rng.normal(red, 10, (16, 16, 3))
            path = tmp_path / f"{name}_{index}.png"
            Image.fromarray(np.uint8(pixels.clip(0, 255).round())).save(path)
            records.append({"image": str(path), "label": index % 2, "row": index + 2})
        return ImageCalibration(tmp_path / name, RegionDataset(records), Redness(), "cpu", **options)

    return make


def test_the_threshold_is_the_one_that_masks_would_choose(make_calibration):
    """Both classes of pixels are as far from 70: a network whose probabilities are all below one half finds nothing at 0.5."""
    calibration = make_calibration()
    result = calibration.run()
    assert json.loads(calibration.file.read_text()) == result
    assert result["threshold"] == pytest.approx(70 / 255, abs=5 / 255)
    assert result["balanced_accuracy_at_half"] < result["balanced_accuracy"] < 1
    # Every image has 256 pixels: the best point of the curve of pixels against their images' labels.
    reds = np.concatenate([np.asarray(Image.open(record["image"]))[..., 0].ravel() for record in calibration.dataset.data])
    false, true, _ = roc_curve(np.repeat([record["label"] for record in calibration.dataset.data], 256), reds)
    assert result["balanced_accuracy"] == pytest.approx((1 + (true - false).max()) / 2, abs=1e-6)
    assert load_threshold([calibration.file.with_name("model.pt")]) == result["threshold"]
    assert (result["num_normal_images"], result["num_tumour_images"]) == (6, 6)


@pytest.mark.parametrize("num_images", [1, 4, 9])
def test_few_images_do_not_decide(make_calibration, num_images):
    result = make_calibration(num_images).run()
    assert result["threshold"] == 0.5
    assert "a threshold is only chosen with at least 5 of each" in result["reason"]


@pytest.mark.parametrize("num_images", [12, 40])
def test_a_network_that_has_learnt_nothing_keeps_one_half(num_images):
    """But for the one in twenty or so that two standard errors let through; without them nearly all would have another."""
    found = []
    for seed in range(40):
        levels = torch.from_numpy(np.random.default_rng(seed).normal(90, 30, (num_images, 256)).clip(0, 255).round()).long()
        histograms = [torch.bincount(image, minlength=256) for image in levels]
        found.append(image_threshold(histograms, [index % 2 for index in range(num_images)])["threshold"])
    assert sum(threshold != 0.5 for threshold in found) <= 4


def test_a_threshold_that_is_no_better_is_not_taken(make_calibration):
    """Pixels of both classes are far from 0.5."""
    result = make_calibration(normal=60, tumour=200).run()
    assert result["threshold"] == 0.5
    assert result["reason"].startswith("0.5, because it is as good")
    assert result["balanced_accuracy"] == result["balanced_accuracy_at_half"]


def test_the_tissue_beside_tumour_does_not_lower_the_threshold(make_calibration):
    """At 70 all pixels of tumour images are told from all those of normal ones; tumour itself begins at 130, near one half."""
    result = make_calibration(normal=40, beside=100, tumour=160).run()
    assert result["threshold"] == 0.5
    assert result["balanced_accuracy"] == result["balanced_accuracy_at_half"] < 0.9
    found = re.fullmatch(
        r"0\.5, because labels do not show whether a lower one adds tumour .*; not (0\.\d+), which .*", result["reason"]
    )
    assert float(found[1]) == pytest.approx(70 / 255, abs=5 / 255)


def test_a_threshold_is_raised_where_normal_images_are_above_one_half(make_calibration):
    result = make_calibration(normal=160, tumour=200).run()
    assert result["threshold"] == pytest.approx(180 / 255, abs=5 / 255)
    assert result["balanced_accuracy"] > result["balanced_accuracy_at_half"] == pytest.approx(0.5, abs=0.01)


def test_large_images_count_as_small_ones():
    """A normal image of many pixels would otherwise be the only one that is heard."""

    def histogram(size, level):
        values = torch.zeros(256, dtype=torch.int64)
        values[level] = size
        return values

    normal = [histogram(10, 40 + index) for index in range(8)]
    tumour = [histogram(10, 90 + index) for index in range(8)]
    labels = [0] * 8 + [1] * 8
    expected = image_threshold([*normal, *tumour], labels)["threshold"]
    assert 47 / 255 < expected <= 90 / 255
    assert image_threshold([10**6 * normal[0], *normal[1:], *tumour], labels)["threshold"] == expected


def test_a_given_threshold_is_kept(make_calibration):
    calibration = make_calibration(threshold=0.3)
    assert calibration.run() == {"threshold": 0.3, "reason": "given"}
    assert load_threshold([calibration.file.with_name("model.pt")]) == 0.3
    for wrong in (0, 1.2):
        with pytest.raises(ValueError, match=r"threshold must be in \(0, 1\], or null"):
            make_calibration(threshold=wrong)


def test_the_file_is_written_once(make_calibration):
    result = make_calibration().run()
    assert make_calibration(normal=200).run() == result


def test_a_run_that_was_killed_before_it_was_logged_is_logged(make_calibration, tracked_folder):
    """The file is there, and MLflow knows nothing of it."""
    result = make_calibration().run()
    tracking = Tracking(tracked_folder, "test")
    assert make_calibration(tracking=tracking).run() == result
    stage = MlflowClient(tracking.uri).get_run(tracking.stage_run("calibration"))
    assert stage.info.status == "FINISHED"
    names = ("threshold", "balanced_accuracy", "balanced_accuracy_at_half")
    assert stage.data.metrics == pytest.approx({name: result[name] for name in names})


def test_two_processes_choose_what_one_does(make_calibration):
    alone = make_calibration(name="one.json").run()
    two = make_calibration(name="two.json")
    in_processes(lambda _: two.run())
    assert json.loads(two.file.read_text()) == alone


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.4), (2.0, 0.449489742783178)])
def test_weights_of_a_training_that_chose_none(tmp_path, caplog, temperature, expected):
    """The log says what is taken in its place; 0.4 is the logit of -0.405, and half of it 0.4495."""
    caplog.set_level(logging.WARNING)
    assert load_threshold([tmp_path / "model.pt"], temperature, default=0.4) == pytest.approx(expected)
    (said,) = caplog.messages
    assert said.endswith("calibration.json does not exist: this training chose no threshold, so 0.4 is used (--threshold)")
