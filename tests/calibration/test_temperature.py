"""Temperatures of networks whose logits are known: pixels, coarse logits, classes, images, slides; files and their misuse."""

import json
import math

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from shared.calibration import load_threshold, with_temperature
from shared.calibration.logit_samples import ClassPixels, ImageLabels, TumourPixels, tumour_logit
from shared.calibration.temperature import (
    collect_logits,
    fit_temperature,
    temperature_of,
    write_reliability_report,
    write_temperature,
)
from shared.inference import SlideMapper
from shared.losses import generalized_mean_loss
from shared.networks import ScaledLogits
from tests.inference.flat_options import grouped

SIZE_PX = 40


class Redness(nn.Module):
    """A logit of (red - 128) / 16, every `stride` pixels; `scale` times too sure."""

    def __init__(self, scale=1.0, stride=1, channels=1):
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))
        self.stride, self.channels = stride, channels

    def forward(self, images):
        logits = F.avg_pool2d((images[:, :1].float() - 128) / 16, self.stride) * self.scale
        return logits if self.channels == 1 else torch.cat([-logits / 2, logits / 2], dim=1)


@pytest.fixture
def records(tmp_path):
    """Ten images; in five a pixel is tumour with the probability that its red says, of the others none is."""
    rng = np.random.default_rng(0)
    made = []
    for index in range(10):
        label = index % 2
        red = rng.integers(80 if label else 40, 176, (SIZE_PX, SIZE_PX))
        tumour = (rng.random(red.shape) < 1 / (1 + np.exp(-(red - 128) / 16))) & bool(label)
        pixels = np.stack([red, red * 0 + 90, red * 0 + 160], axis=2).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        Image.fromarray(tumour.astype(np.uint8) * 255).save(tmp_path / f"{index}_mask.png")
        mask = str(tmp_path / f"{index}_mask.png") if label else None
        made.append({"image": str(tmp_path / f"{index}.png"), "mask": mask, "label": label, "row": index + 2})
    return made


def mapper_of(network, **options):
    return SlideMapper(
        network, **grouped(**{"mpp": 1.0, "tile_size_px": 64, "margin_px": 0, "device": "cpu", "amp": False} | options)
    )


@pytest.mark.parametrize("channels", [1, 2])
def test_pixels_of_images_with_masks(records, channels):
    tumour_images = [record for record in records if record["label"]]
    temperatures = {
        scale: collect_logits(mapper_of(Redness(scale, channels=channels)), tumour_images).fit() for scale in (1.0, 3.0)
    }
    assert temperatures[1.0] == pytest.approx(1, abs=0.06)
    assert temperatures[3.0] == pytest.approx(3 * temperatures[1.0], rel=0.01)


def test_images_without_tumour_count_without_a_mask(records):
    samples = collect_logits(mapper_of(Redness()), [*records, {**records[1], "mask": None}])
    # Tumour images without a mask do not.
    assert samples.histograms.sum() == 10 * SIZE_PX**2
    red = np.array(Image.open(records[0]["image"]))[..., 0].astype(float)
    only_normal = collect_logits(mapper_of(Redness()), records[:1])
    curve = only_normal.reliability(1.0)
    assert curve.frequency.nan_to_num().max() == 0
    assert curve.ece == pytest.approx((1 / (1 + np.exp(-(red - 128) / 16))).mean(), abs=1e-3)


def test_coarse_logits_count_by_shares(records):
    fine, coarse = (collect_logits(mapper_of(Redness(stride=stride)), records) for stride in (1, 4))
    assert coarse.histograms.sum() == 10 * (SIZE_PX // 4) ** 2
    shares = [samples.histograms[1].sum() / samples.histograms.sum() for samples in (fine, coarse)]
    assert shares[1] == pytest.approx(shares[0].item())


def test_images_by_their_generalised_mean(records):
    samples = collect_logits(mapper_of(Redness()), records, labels="label")
    assert isinstance(samples, ImageLabels)
    assert samples.reliability(1.0).counts.sum() == 10
    images = torch.stack([torch.from_numpy(np.array(Image.open(record["image"]))).permute(2, 0, 1) for record in records])
    labels = torch.tensor([record["label"] for record in records])
    for temperature in (1.0, 2.5):
        expected = generalized_mean_loss(Redness()(images) / temperature, labels, r=4.0)
        assert samples.reliability(temperature).nll == pytest.approx(expected.item(), abs=0.005)
    fitted = samples.fit()
    best = samples.reliability(fitted).nll
    assert best <= min(samples.reliability(fitted * factor).nll for factor in (0.8, 1.25)) + 0.002


@pytest.mark.parametrize("temperature", [1.0, 30.0])
def test_images_of_a_very_sure_network(temperature):
    """Most logits are beyond 24, where probabilities of float32 are 0 or 1, and a temperature brings them back."""
    generator, samples = torch.Generator().manual_seed(0), ImageLabels()
    labels = torch.tensor([0, 1] * 5)
    logits = 60 * torch.randn(10, 1, 16, 16, generator=generator, dtype=torch.float64) - 150 * (1 - labels[:, None, None, None])
    for image, label in zip(logits, labels.tolist(), strict=True):
        samples.add(image, label)
    expected = generalized_mean_loss(logits / temperature, labels, r=4.0)
    assert samples.reliability(temperature).nll == pytest.approx(expected.item(), rel=0.01, abs=1e-4)


def test_classes_at_drawn_pixels():
    samples = ClassPixels(pixels_per_image=50)
    logits = torch.randn(3, 8, 12, generator=torch.Generator().manual_seed(0))
    mask = torch.randint(0, 3, (8, 12), generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        samples.add(logits, mask)
    assert samples.reliability(1.0).counts.sum() == 100
    whole = ClassPixels(pixels_per_image=1000)
    whole.add(logits, mask)
    curve = whole.reliability(1.0)
    assert curve.counts.sum() == 96
    assert curve.nll == pytest.approx(F.cross_entropy(logits[None], mask[None]).item(), rel=1e-5)
    with pytest.raises(ValueError, match="no image with pixel labels"):
        ClassPixels(5).fit()


def test_a_slide_is_seen_in_regions_without_their_margins(tmp_path):
    rng = np.random.default_rng(0)
    pixels = np.full((300, 2304, 3), 250, np.uint8)
    pixels[:, :1024] = (200, 60, 150)
    pixels[..., 0] -= rng.integers(0, 40, pixels.shape[:2]).astype(np.uint8)
    options = {"tile": (256, 256), "compression": "zlib", "resolution": (1e4, 1e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "slide.tif", pixels, photometric="rgb", metadata=None, **options)
    record = {"image": str(tmp_path / "slide.tif"), "label": 0, "mask": None, "row": 2}
    mapper = mapper_of(Redness(stride=4), tile_size_px=128, margin_px=24)
    samples = collect_logits(mapper, [record], regions_per_slide=5)
    # Of 32 logits a side those 6 at either end lie in the margin.
    assert samples.histograms.sum() == 5 * 20**2
    with pytest.raises(ValueError, match="is a slide of 2304 x 300 px"):
        collect_logits(mapper, [record], labels="label")


def test_the_file_is_written_and_applied(records, tmp_path):
    network = Redness(3.0)
    found = fit_temperature(network, collect_logits(mapper_of(network), records), {"split": "val"})
    write_temperature(tmp_path, found)
    assert json.loads((tmp_path / "temperature.json").read_text()) == found
    assert found["after"]["nll"] < found["before"]["nll"]
    scaled = with_temperature(network, tmp_path / "temperature.json")
    images = torch.full((1, 3, 8, 8), 140.0)
    torch.testing.assert_close(scaled(images), network(images) / found["temperature"])
    assert with_temperature(network, 1.0) is network
    assert isinstance(with_temperature(network, 2), ScaledLogits)
    assert temperature_of(str(tmp_path / "temperature.json")) == found["temperature"]
    with pytest.raises(ValueError, match="was fitted for other weights"):
        with_temperature(Redness(2.0), tmp_path / "temperature.json")


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"temperature.json does not exist: scripts/calibrate.py writes it"):
        with_temperature(Redness(), tmp_path / "temperature.json")
    (tmp_path / "temperature.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no temperature"):
        with_temperature(Redness(), tmp_path / "temperature.json")


def test_the_threshold_moves_with_the_probabilities(tmp_path):
    (tmp_path / "calibration.json").write_text(json.dumps({"threshold": 0.8}))
    checkpoints = [tmp_path / "model.pt"]
    assert load_threshold(checkpoints) == load_threshold(checkpoints, 1.0) == 0.8
    expected = 1 / (1 + math.exp(-math.log(4) / 2))
    assert load_threshold(checkpoints, 2.0) == pytest.approx(expected)
    (tmp_path / "temperature.json").write_text(json.dumps({"temperature": 2.0, "weights_sha256": "0"}))
    assert load_threshold(checkpoints, str(tmp_path / "temperature.json")) == pytest.approx(expected)


def test_the_report_has_both_curves(records, tmp_path):
    samples = collect_logits(mapper_of(Redness(3.0)), records)
    report = write_reliability_report(tmp_path, samples, 3.0, "Test", {"split": "test"})
    saved = json.loads((tmp_path / "reliability.json").read_text())
    assert saved == report
    assert saved["before"]["ece"] == samples.reliability(1.0).ece
    assert len(saved["after"]["counts"]) == len(saved["after"]["frequency"]) == 15
    assert (tmp_path / "reliability.png").stat().st_size > 5000


def test_says_what_cannot_be_fitted(records):
    mapper = mapper_of(Redness())
    with pytest.raises(ValueError, match="no image has a mask or label 0"):
        collect_logits(mapper, [{**records[1], "mask": None}])
    with pytest.raises(ValueError, match=r"^images\.csv, split 'val': no image has a mask or label 0"):
        collect_logits(mapper, [{**records[1], "mask": None, "manifest": "images.csv", "split": "val"}])
    with pytest.raises(ValueError, match="regions_per_slide must be at least 1, got -3"):
        collect_logits(mapper, records, regions_per_slide=-3)
    with pytest.raises(ValueError, match="labels must be one of mask, label; got 'area'"):
        collect_logits(mapper, records, labels="area")
    with pytest.raises(ValueError, match="positives and negatives; got 0 and 1600"):
        collect_logits(mapper, records[:1]).fit()
    with pytest.raises(ValueError, match="all of one label"):
        collect_logits(mapper, records[::2], labels="label").fit()
    with pytest.raises(ValueError, match="one or two channels, got 3"):
        tumour_logit(torch.zeros(3, 2, 2))
    with pytest.raises(ValueError, match="the histograms are empty"):
        TumourPixels().reliability(1.0)
