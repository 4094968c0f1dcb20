"""The closing table of several classes against loops over pixels and scikit-learn."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score, precision_score, recall_score
from torch import nn

from shared.data import RegionDataset
from shared.evaluation import ClassEvaluation

WIDTH_PX, HEIGHT_PX = 12, 8
NAMES = ["normal", "benign", "in situ", "invasive"]


class Reds(nn.Module):
    """A pixel's class is its red, in quarters of the range; an image's class that of its largest red."""

    def forward(self, images):
        level = (images[:, :1].float() / 64).floor()
        return -(level - torch.arange(4.0)[:, None, None]).abs()

    def classify(self, images):
        return self(images.amax(dim=(2, 3), keepdim=True))[:, :, 0, 0]


class Maps(nn.Module):
    """`Reds` without a classifier."""

    def forward(self, images):
        return Reds()(images)


@pytest.fixture
def records(tmp_path):
    """Seven images of noise; the fourth has no mask and is normal."""
    rng = np.random.default_rng(5)
    made = []
    for index in range(7):
        pixels = rng.integers(0, 256, (HEIGHT_PX, WIDTH_PX, 3), dtype=np.uint8)
        # Not every class is found in every image.
        pixels[..., 0] //= 1 + index % 4
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        mask, label = None, 0
        if index != 3:
            mask, label = str(tmp_path / f"{index}_mask.png"), 1 + index % 3
            classes = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
            classes[1:5, 2 : 4 + index] = label
            classes[6, 5] = 3
            Image.fromarray(classes).save(mask)
        made.append({"image": str(tmp_path / f"{index}.png"), "label": label, "mask": mask, "row": index + 2})
    return made


def evaluation(folder, records, network=None, pixel_labels="mask", **options):
    dataset = RegionDataset(records, pixel_labels=pixel_labels, num_classes=4)
    options = {"network": network or Reds(), "class_names": NAMES, "batch_size": 3} | options
    return ClassEvaluation(folder=folder, dataset=dataset, method="Reds", device="cpu", **options)


def evaluate(folder, records, **options):
    metrics = evaluation(folder, records, **options).run()
    assert metrics == json.loads((folder / "metrics.json").read_text())
    return metrics


def truth_of(record):
    return np.asarray(Image.open(record["mask"])) if record["mask"] else np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)


def predicted_of(record):
    return np.asarray(Image.open(record["image"]))[..., 0] // 64


def bach_score_by_loop(truth, predicted):
    distance = worst = 0
    for true, given in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        distance += abs(true - given)
        worst += max(true, 3 - true) if true or given else 0
    return 1 - distance / worst if worst else 1


def scores_by_image(records, index):
    """Mean Dice where the class is, and mean share that is called so where it is not."""
    dice, wrong = [], []
    for record in records:
        truth, predicted = truth_of(record) == index, predicted_of(record) == index
        if truth.any():
            dice.append(f1_score(truth.ravel(), predicted.ravel()))
        else:
            wrong.append(predicted.mean())
    return {"dice_positive": np.mean(dice), "false_positive_share": np.mean(wrong) if wrong else None}


def test_pixels_equal_those_of_sklearn(tmp_path, records):
    metrics = evaluate(tmp_path / "out", records)
    truth, predicted = (np.stack([of(record) for record in records]).ravel() for of in (truth_of, predicted_of))
    assert metrics["confusion"] == confusion_matrix(truth, predicted).tolist()
    assert (metrics["split"], metrics["num_images"], metrics["class_names"]) == ("test", 7, NAMES)
    scores = {
        "accuracy": accuracy_score(truth, predicted),
        "foreground_accuracy": accuracy_score(truth[truth > 0], predicted[truth > 0]),
        "macro_f1": f1_score(truth, predicted, average="macro"),
        "micro_f1": f1_score(truth, predicted, average="micro"),
        "weighted_f1": f1_score(truth, predicted, average="weighted"),
        "mean_iou": jaccard_score(truth, predicted, average="macro"),
        "released_iou": jaccard_score(truth, predicted, average=None)[1:].mean(),
        "bach_score": bach_score_by_loop(truth, predicted),
    }
    assert metrics["class_pixels"]["Reds"] == pytest.approx(scores)
    each = zip(
        *(of(truth, predicted, average=None) for of in (f1_score, jaccard_score, precision_score, recall_score)), strict=True
    )
    for index, (name, values) in enumerate(zip(NAMES, each, strict=True)):
        expected = dict(zip(("f1", "iou", "precision", "recall"), values, strict=True))
        expected |= {"true_share": (truth == index).mean()} | scores_by_image(records, index)
        assert metrics["classes"][name] == pytest.approx(expected)


def test_background_everywhere_is_scored_beside(tmp_path, records):
    metrics = evaluate(tmp_path / "out", records)
    truth = np.stack([truth_of(record) for record in records])
    everything = metrics["class_pixels"]["Everything is normal"]
    assert list(metrics["class_pixels"]) == ["Reds", "Everything is normal"]
    assert everything["accuracy"] == pytest.approx((truth == 0).mean())
    assert everything["foreground_accuracy"] == 0
    assert everything["bach_score"] == pytest.approx(bach_score_by_loop(truth, truth * 0))


def test_of_two_classes_both_constant_answers_are_scored(tmp_path, records):
    """Tumour is whatever is not 0, and the reds above the middle."""

    class Reddish(nn.Module):
        def forward(self, images):
            red = images[:, :1].float()
            return torch.cat([128 - red, red - 127.5], dim=1)

    records = [record | {"label": min(1, record["label"])} for record in records]
    dataset = RegionDataset(records, pixel_labels="mask", num_classes=2)
    options = {"network": Reddish(), "class_names": ["normal", "tumour"], "classifies": False}
    metrics = ClassEvaluation(folder=tmp_path, dataset=dataset, method="Reds", device="cpu", **options).run()
    truth = np.stack([truth_of(record) > 0 for record in records]).ravel()
    predicted = np.stack([predicted_of(record) > 1 for record in records]).ravel()
    constants = {"Everything is normal": np.zeros_like(truth), "Everything is tumour": np.ones_like(truth)}
    assert list(metrics["class_pixels"]) == ["Reds", *constants]
    for name, answer in {"Reds": predicted, **constants}.items():
        scores = metrics["class_pixels"][name]
        assert scores["accuracy"] == pytest.approx(accuracy_score(truth, answer))
        # The challenge's score of two classes.
        assert scores["bach_score"] == pytest.approx(jaccard_score(truth, answer))
    assert list(metrics["classes"]) == ["normal", "tumour", "everything is tumour"]
    assert metrics["classes"]["everything is tumour"]["iou"] == pytest.approx(truth.mean())
    dice = [2 * truth_of(record).astype(bool).mean() / (1 + truth_of(record).astype(bool).mean()) for record in records]
    dice = [score for score in dice if score > 0]
    assert metrics["classes"]["everything is tumour"]["dice_positive"] == pytest.approx(np.mean(dice))
    assert metrics["classes"]["everything is tumour"]["false_positive_share"] == 1


def test_labels_of_images(tmp_path, records):
    metrics = evaluate(tmp_path / "out", records)
    labels, predicted = [record["label"] for record in records], [int(predicted_of(record).max()) for record in records]
    assert 0 < accuracy_score(labels, predicted) < 1
    expected = {"accuracy": accuracy_score(labels, predicted), "macro_f1": f1_score(labels, predicted, average="macro")}
    assert metrics["image_classes"] == {"Reds": pytest.approx(expected)}


def test_a_row_an_image(tmp_path, records):
    evaluate(tmp_path / "out", records)
    table = pd.read_csv(tmp_path / "out/images.csv")
    assert table["image"].tolist() == [record["image"] for record in records]
    for record, (_, row) in zip(records, table.iterrows(), strict=True):
        truth, predicted = truth_of(record), predicted_of(record)
        assert (row["label"], row["predicted_label"]) == (record["label"], predicted.max())
        assert row["accuracy"] == pytest.approx((truth == predicted).mean(), abs=1e-6)
        assert row["macro_f1"] == pytest.approx(f1_score(truth.ravel(), predicted.ravel(), average="macro"), abs=1e-6)
        assert row["bach_score"] == pytest.approx(bach_score_by_loop(truth, predicted), abs=1e-6)
        for index, name in enumerate(NAMES):
            assert row[f"true_share_{name}"] == pytest.approx((truth == index).mean(), abs=1e-6)
            assert row[f"predicted_share_{name}"] == pytest.approx((predicted == index).mean(), abs=1e-6)
    assert "confusion" not in table


def test_without_masks_the_labels_alone_are_scored(tmp_path, records, capsys):
    metrics = evaluate(tmp_path / "out", records, pixel_labels=None)
    assert metrics.keys() == {"split", "num_images", "class_names", "image_classes"}
    assert list(pd.read_csv(tmp_path / "out/images.csv"))[-2:] == ["label", "predicted_label"]
    assert "Pixels" not in capsys.readouterr().out


def test_a_network_without_a_classifier(tmp_path, records):
    metrics = evaluate(tmp_path / "out", records, network=Maps(), classifies=False)
    assert "image_classes" not in metrics
    assert "predicted_label" not in pd.read_csv(tmp_path / "out/images.csv")
    assert metrics["confusion"] == evaluate(tmp_path / "both", records)["confusion"]


def test_a_label_that_is_not_known_scores_no_labels(tmp_path, records):
    records[0] = records[0] | {"label": None}
    metrics = evaluate(tmp_path / "out", records)
    assert "image_classes" not in metrics
    assert metrics["num_images"] == 7


def test_scores_that_do_not_exist_are_null(tmp_path, records):
    """A single normal image, dark everywhere: no pixel is of another class, or called one."""
    Image.fromarray(np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8)).save(records[3]["image"])
    metrics = evaluate(tmp_path / "out", records[3:4])
    assert metrics["class_pixels"]["Reds"]["foreground_accuracy"] is None
    assert metrics["class_pixels"]["Reds"]["bach_score"] == metrics["classes"]["normal"]["f1"] == 1
    assert set(metrics["classes"]["invasive"].values()) == {None, 0.0}
    assert "NaN" not in (tmp_path / "out/metrics.json").read_text()


def test_the_table_is_printed(tmp_path, records, capsys):
    metrics = evaluate(tmp_path / "out", records)
    lines = capsys.readouterr().out.splitlines()
    names = ["Pixels (%)", "Reds", "Everything is normal", "Classes of pixels (%)", *NAMES, "Image labels (%)", "Reds"]
    assert [line.split("  ")[0] for line in lines if line][:-1] == names
    shown = ["bach_score", "accuracy", "foreground_accuracy", "macro_f1", "weighted_f1", "mean_iou", "released_iou"]
    assert lines[1].split()[1:] == [f"{100 * metrics['class_pixels']['Reds'][name]:.1f}" for name in shown]


def test_the_figure_shows_classes_in_their_places(tmp_path, records):
    made = evaluation(tmp_path / "out", records, num_examples=3)
    rows = made.examples([made.dataset.data[index] for index in range(7)], [None] * 7)
    assert [row.title for row in rows] == ["1\nlabel in situ", "5\nlabel invasive", "3\nlabel normal"]
    for row, index in zip(rows, (1, 5, 3), strict=True):
        np.testing.assert_array_equal(row.panels["truth"], truth_of(records[index]))
        np.testing.assert_array_equal(row.panels["Reds"], predicted_of(records[index]))
        assert all(np.issubdtype(panel.dtype, np.integer) for panel in row.panels.values())
    made.run()
    with Image.open(tmp_path / "out/examples.png") as figure:
        assert figure.size == pytest.approx((3 * 2.6 * 110, (3 * 2.6 + 0.5) * 110), abs=2)
