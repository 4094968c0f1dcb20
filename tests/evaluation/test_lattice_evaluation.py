import csv
import functools
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, precision_score, recall_score
from torch import nn

from shared.data import RegionDataset
from shared.encoders import load_encoder
from shared.evaluation import InstanceMap, LatticeEvaluation
from shared.evaluation.lattice_evaluation import enriched_label_counts
from shared.evaluation.report import everything_is_tumour, example_indices, pixel_scores, slug
from shared.evaluation.table import score_table
from shared.features import EmbeddedImages
from shared.networks import EncodedClassifier, EncodedSegmentation

N, SIZE_PX = 2, 8


class RedPixel(nn.Module):
    """Tumour where red is at least 128; two channels of logits a pixel."""

    def forward(self, images):
        logit = (images[:, :1].float() - 127.5) / 10
        return torch.cat([torch.zeros_like(logit), logit], dim=1)


class BrightInstance(nn.Module):
    """Tumour where the mean of an instance's green is at least 128."""

    def forward(self, images):
        return images[:, 1].float().mean(dim=(1, 2))[:, None] - 128


@pytest.fixture
def records_of_side(tmp_path):
    return functools.partial(write_records, tmp_path)


@pytest.fixture
def dataset(records_of_side):
    return RegionDataset(records_of_side(SIZE_PX), size_px=SIZE_PX, pixel_labels="mask")


def write_records(tmp_path, size_px):
    """Seven images of noise, four of them with tumour of noise."""
    rng = np.random.default_rng(3)
    records = []
    for index in range(7):
        pixels = rng.integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
        # Whole images may be pale, so that some are all below the threshold.
        pixels[..., 0] //= 1 + index % 3
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        mask = None
        if index % 2 == 0:
            mask = str(tmp_path / f"{index}_mask.png")
            shape = rng.random((size_px, size_px)) < 0.3
            shape[:4, :4] = index == 0
            Image.fromarray(np.uint8(shape) * 255).save(mask)
        records.append({"image": str(tmp_path / f"{index}.png"), "label": int(mask is not None), "mask": mask, "row": index + 2})
    return records


def evaluation(folder, dataset, **options):
    classifiers = {"Bright": BrightInstance(), "Absent": None}
    defaults = {"segmenter": RedPixel(), "classifiers": classifiers, "instances_per_side": N, "device": "cpu", "batch_size": 3}
    return LatticeEvaluation(folder=folder, dataset=dataset, **(defaults | options))


def truth_and_prediction(dataset):
    """Flat pixels, instances and images: truth and decisions, by numpy alone."""
    images = np.stack([np.asarray(Image.open(record["image"])) for record in dataset.data])
    masks = np.stack(
        [np.asarray(Image.open(r["mask"])) > 0 if r["mask"] else np.zeros((SIZE_PX,) * 2, bool) for r in dataset.data]
    )
    red = images[..., 0] >= 128

    def instances(values):
        return values.reshape(-1, N, SIZE_PX // N, N, SIZE_PX // N)

    truth = instances(masks).any(axis=(2, 4)).reshape(len(images), -1)
    bright = (instances(images[..., 1]).mean(axis=(2, 4)) >= 128).reshape(len(images), -1)
    labels = np.array([record["label"] for record in dataset.data])
    return masks, red, truth, bright, labels


def by_sklearn(truth, prediction):
    truth, prediction = truth.ravel(), prediction.ravel()
    return {
        "sensitivity": recall_score(truth, prediction),
        "specificity": recall_score(~truth.astype(bool), ~prediction.astype(bool)),
        "accuracy": accuracy_score(truth, prediction),
        "precision": precision_score(truth, prediction),
        "f1": f1_score(truth, prediction),
        "iou": jaccard_score(truth, prediction),
    }


def test_metrics_equal_those_of_sklearn(tmp_path, dataset):
    metrics = evaluation(tmp_path / "out", dataset, method="Red").run()
    assert metrics == json.loads((tmp_path / "out/metrics.json").read_text())
    masks, red, truth, bright, labels = truth_and_prediction(dataset)
    assert metrics["num_images"] == 7
    assert metrics["instances"] == {"Bright": pytest.approx(by_sklearn(truth, bright))}
    assert metrics["images"]["Red"] == pytest.approx(by_sklearn(labels, red.any(axis=(1, 2))), nan_ok=True)
    assert metrics["images"]["Bright"] == pytest.approx(by_sklearn(labels, bright.any(axis=1)))

    dice = [f1_score(mask.ravel(), pixels.ravel()) for mask, pixels in zip(masks, red, strict=True) if mask.any()]
    false = [pixels.mean() for mask, pixels in zip(masks, red, strict=True) if not mask.any()]
    pooled = by_sklearn(masks, red) | {"dice_positive": np.mean(dice), "false_positive_share": np.mean(false)}
    assert metrics["pixels"]["Red"] == pytest.approx(pooled)
    share = masks.mean()
    everything = metrics["pixels"]["Everything is tumour"]
    assert everything["iou"] == everything["precision"] == everything["accuracy"] == pytest.approx(share)
    assert (everything["sensitivity"], everything["specificity"], everything["false_positive_share"]) == (1, 0, 1)


def test_the_segmentation_has_a_threshold_of_its_own(tmp_path, dataset):
    """Red from 118 on; the classifier's answers stay."""
    threshold = torch.tensor((118 - 127.5) / 10).sigmoid().item() - 1e-6
    metrics = evaluation(tmp_path / "out", dataset, method="Red", threshold=threshold).run()
    masks, _, truth, bright, labels = truth_and_prediction(dataset)
    red = np.stack([np.asarray(Image.open(record["image"]))[..., 0] >= 118 for record in dataset.data])
    assert metrics["threshold"] == threshold
    pixels = metrics["pixels"]["Red"]
    assert {name: pixels[name] for name in by_sklearn(masks, red)} == pytest.approx(by_sklearn(masks, red))
    assert metrics["images"]["Red"] == pytest.approx(by_sklearn(labels, red.any(axis=(1, 2))), nan_ok=True)
    assert metrics["instances"] == {"Bright": pytest.approx(by_sklearn(truth, bright))}


def test_a_row_an_image(tmp_path, dataset):
    dataset.data[1].update(x=0, y=0, width_px=SIZE_PX, height_px=SIZE_PX)
    evaluation(tmp_path / "out", dataset).run()
    masks, red, *_ = truth_and_prediction(dataset)
    with (tmp_path / "out/images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [record["image"] for record in dataset.data]
    assert [row["width_px"] for row in rows] == ["", "8", "", "", "", "", ""]
    for row, mask, pixels, record in zip(rows, masks, red, dataset.data, strict=True):
        expected = [(mask & pixels).sum(), (~mask & pixels).sum(), (mask & ~pixels).sum(), (~mask & ~pixels).sum()]
        assert [int(row[name]) for name in ("tp", "fp", "fn", "tn")] == expected
        assert int(row["label"]) == record["label"]
        assert float(row["true_share"]) == pytest.approx(mask.mean(), abs=1e-6)
        assert float(row["predicted_share"]) == pytest.approx(pixels.mean(), abs=1e-6)
        largest = np.asarray(Image.open(record["image"]))[..., 0].max()
        assert float(row["max_probability"]) == pytest.approx(1 / (1 + np.exp(-(largest - 127.5) / 10)), abs=1e-6)
        if mask.any() or pixels.any():
            assert float(row["dice"]) == pytest.approx(f1_score(mask.ravel(), pixels.ravel()), abs=1e-6)
        else:
            assert row["dice"] == ""


def test_the_table_is_printed_and_the_figure_opens(tmp_path, dataset, capsys):
    evaluation(tmp_path / "out", dataset, num_examples=3, enriched_by="Bright").run()
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("Instance labels (%)", "Pixels (%)", "Everything is tumour", "Bright", "7 images"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["examples.png", "images.csv", "metrics.json"]
    with Image.open(tmp_path / "out/examples.png") as figure:
        assert figure.format == "PNG"
        # Four columns of 2.6 inch, three rows.
        assert figure.size == pytest.approx((4 * 2.6 * 110, (3 * 2.6 + 0.5) * 110), abs=2)


def test_labels_painted_on_all_pixels_are_named_as_the_truth(tmp_path, dataset, capsys):
    painted = RegionDataset(dataset.data, size_px=SIZE_PX, pixel_labels="label")
    metrics = evaluation(tmp_path / "out", painted, method="Red").run()
    printed = capsys.readouterr().out
    assert "Pixels, truth: image labels (%)" in printed
    assert "Instance labels, truth: image labels (%)" in printed
    assert "Image labels (%)" in printed
    assert not {"Pixels (%)", "Instance labels (%)"} & set(re.findall(r"^[A-Z][\w ]+\(%\)", printed, re.MULTILINE))
    assert metrics["pixel_truth"] == "label"
    # Three of seven images are normal throughout.
    assert metrics["pixels"]["Everything is tumour"]["precision"] == pytest.approx(4 / 7)
    assert "pixel_truth" not in evaluation(tmp_path / "masks", dataset).run()


def test_without_masks_the_images_alone_are_scored(tmp_path, dataset, capsys):
    plain = RegionDataset(dataset.data, size_px=SIZE_PX)
    metrics = evaluation(tmp_path / "out", plain).run()
    assert "Pixels (%)" not in capsys.readouterr().out
    assert sorted(metrics) == ["images", "num_images", "split", "threshold"]
    assert metrics["images"] == evaluation(tmp_path / "masks", dataset).run()["images"]
    assert (tmp_path / "out/images.csv").read_text().splitlines()[0] == "image,x,y,width_px,height_px,label,max_probability"
    with Image.open(tmp_path / "out/examples.png"):
        pass


def test_scores_that_do_not_exist_are_null(tmp_path, dataset):
    only_normal = RegionDataset([r for r in dataset.data if not r["label"]], pixel_labels="mask")
    metrics = evaluation(tmp_path, only_normal, num_examples=0).run()
    assert metrics["pixels"]["Segmentation"]["sensitivity"] is None
    assert metrics["pixels"]["Segmentation"]["dice_positive"] is None
    assert "NaN" not in (tmp_path / "metrics.json").read_text()
    assert not (tmp_path / "examples.png").exists()


def test_enriched_labels_against_the_masks(tmp_path, dataset):
    truth = truth_and_prediction(dataset)[2]
    guesses = np.random.default_rng(0).random(truth.shape) < 0.5
    records = [
        {**record, "instances": "".join(str(int(value)) for value in guess)}
        for record, guess in zip(dataset.data, guesses, strict=True)
    ]
    training = RegionDataset(records, pixel_labels="mask")
    expected = [(truth & guesses).sum(), (~truth & guesses).sum(), (truth & ~guesses).sum(), (~truth & ~guesses).sum()]
    assert enriched_label_counts(training, N).tolist() == expected
    metrics = evaluation(tmp_path, dataset, training_labels=training).run()
    assert metrics["instances"]["Enriched labels (train)"] == pytest.approx(by_sklearn(truth, guesses))


def test_everything_is_tumour():
    counts = torch.tensor([[3, 5, 7, 11], [0, 1, 0, 4]])
    assert everything_is_tumour(counts).tolist() == [[10, 16, 0, 0], [0, 5, 0, 0]]


def test_pixel_scores_by_hand():
    # An image with tumour: Dice 2 * 6 / (12 + 2 + 2) = 3/4. Images without: 1 of 10 and 0 of 10 pixels are wrong.
    scores = pixel_scores(torch.tensor([[6, 2, 2, 0], [0, 1, 0, 9], [0, 0, 0, 10]]))
    assert scores["dice_positive"] == 0.75
    assert scores["false_positive_share"] == pytest.approx(0.05)
    assert scores["iou"] == pytest.approx(6 / (6 + 3 + 2))
    none = pixel_scores(torch.tensor([[6, 2, 2, 0]]))
    assert none["false_positive_share"] is None


@pytest.mark.parametrize(
    ("num_positive", "num_negative", "num_examples", "expected"),
    [
        (20, 20, 6, (4, 2)),
        (3, 20, 6, (3, 3)),
        (20, 1, 6, (5, 1)),
        (0, 20, 6, (0, 6)),
        (1, 1, 6, (1, 1)),
        (20, 20, 0, (0, 0)),
        (0, 5, 1, (0, 1)),
    ],
)
def test_examples_are_of_both_kinds(num_positive, num_negative, num_examples, expected):
    labels = [1] * num_positive + [0] * num_negative
    indices = example_indices(labels, num_examples)
    assert indices == example_indices(labels, num_examples)
    assert len(set(indices)) == len(indices) == sum(expected)
    assert sum(labels[index] for index in indices) == expected[0]


def test_examples_are_spread_out():
    assert example_indices([1] * 100, 4) == [12, 37, 62, 87]


def test_slug():
    assert slug("Max-Max & Co (N = 4)") == "max_max_co_n_4"


def test_score_table():
    scores = dict.fromkeys(("sensitivity", "specificity", "accuracy", "precision", "f1", "iou"), 0.5)
    metrics = {"num_images": 3, "instances": {"Max-Max": scores | {"specificity": None, "accuracy": 0.8756}}}
    lines = score_table(metrics, "out").splitlines()
    assert lines[0].split() == ["Instance", "labels", "(%)", "Sensitivity", "Specificity", "Accuracy", "Precision"]
    assert lines[1].split() == ["Max-Max", "50.0", "-", "87.6", "50.0"]
    assert len(lines[0]) == len(lines[1])
    assert lines[-1].startswith("3 images; ")
    assert lines[-1].endswith("are in out")


@pytest.mark.parametrize("segmenter", ["segmentation", "instances"])
def test_stored_features_are_scored_without_the_encoder(records_of_side, tmp_path, segmenter, monkeypatch):
    """And the figure shows the images that they are of."""
    dataset = RegionDataset(records_of_side(64), size_px=64, pixel_labels="mask")
    encoder = load_encoder("efficientnet_lite0")
    torch.manual_seed(0)
    classifier = EncodedClassifier(encoder)
    network = EncodedSegmentation(encoder) if segmenter == "segmentation" else InstanceMap(classifier, N)
    options = {"segmenter": network, "classifiers": {"Bright": classifier}, "num_workers": 1}
    expected = evaluation(tmp_path / "images", dataset, **options)
    of_images = expected.run()
    stored = EmbeddedImages(dataset, encoder, tmp_path / "features")
    stored.run()
    monkeypatch.setattr(encoder, "forward", None)
    scored = evaluation(tmp_path / "stored", EmbeddedImages(dataset, encoder, tmp_path / "features"), **options)
    of_features = scored.run()
    for name in ("pixels", "instances", "images"):
        for row, scores in of_images[name].items():
            assert of_features[name][row] == pytest.approx(scores, abs=0.02), (name, row)
    rows, counts = [{"label": record["label"], "image": record["image"]} for record in dataset.data], [None] * len(dataset)
    monkeypatch.setattr(scored, "panels", lambda example, row, counts: {"shape": example["inputs"].numpy()})
    monkeypatch.setattr("shared.evaluation.image_evaluation.example_title", str)
    for drawn, index in zip(scored.examples(rows, counts), example_indices([row["label"] for row in rows], 6), strict=True):
        np.testing.assert_array_equal(drawn.image, np.asarray(Image.open(dataset.data[index]["image"])))
        assert drawn.panels["shape"].shape == (1280, 2, 2)
