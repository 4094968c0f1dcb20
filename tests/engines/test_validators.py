import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, jaccard_score, recall_score, roc_auc_score
from torch import nn

from shared.data import RegionDataset
from shared.engines import class_validator, lattice_validator, pixel_validator, region_validator
from shared.metrics import CLASS_SCORES, bach_score


class Redness(nn.Module):
    """How much redder than green an instance is, on average: one logit."""

    def forward(self, images):
        return (images[:, 0].float() - images[:, 1].float()).mean(dim=(1, 2))[:, None] - 10


class RedPixels(nn.Module):
    def forward(self, images):
        return images[:, :1].float() - images[:, 1:2].float() - 20


def arrays(records):
    images = np.stack([np.asarray(Image.open(record["image"])) for record in records]).astype(float)
    masks = np.stack([np.asarray(Image.open(record["mask"])) > 0 for record in records])
    return images[..., 0] - images[..., 1], masks


def test_lattice_scores_equal_those_of_sklearn(records):
    validator = lattice_validator(RegionDataset(records, pixel_labels="mask"), Redness(), 2, "cpu", batch_size=5)
    validator.run()
    difference, masks = arrays(records)
    predicted = difference.reshape(-1, 2, 4, 2, 4).mean(axis=(2, 4)).reshape(len(records), -1) >= 10
    truth = masks.reshape(-1, 2, 4, 2, 4).any(axis=(2, 4)).reshape(len(records), -1)
    labels = [record["label"] for record in records]
    metrics = validator.state.metrics
    assert 0.05 < predicted.mean() < 0.95
    assert metrics["val_instance_accuracy"] == pytest.approx(accuracy_score(truth.ravel(), predicted.ravel()))
    assert metrics["val_instance_sensitivity"] == pytest.approx(recall_score(truth.ravel(), predicted.ravel()))
    assert metrics["val_image_accuracy"] == pytest.approx(accuracy_score(labels, predicted.any(axis=1)))
    means = difference.reshape(-1, 2, 4, 2, 4).mean(axis=(2, 4)).reshape(len(records), -1)
    assert metrics["val_image_auc"] == pytest.approx(roc_auc_score(labels, means.max(axis=1)))
    assert metrics["val_instance_auc"] == pytest.approx(roc_auc_score(truth.ravel(), means.ravel()))
    assert metrics["val_image_balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted.any(axis=1)))
    assert metrics["val_instance_balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth.ravel(), predicted.ravel()))
    # A second run counts again.
    before = dict(metrics)
    validator.run()
    assert validator.state.metrics == before


@pytest.mark.parametrize("pixel_labels", [None, "label"])
def test_without_masks_the_images_alone_are_scored(records, pixel_labels):
    validator = lattice_validator(RegionDataset(records, pixel_labels=pixel_labels), Redness(), 2, "cpu")
    validator.run()
    assert {"_".join(name.split("_")[:2]) for name in validator.state.metrics} == {"val_image"}


def test_validation_leaves_the_weights_alone(records, make_classifier):
    network = make_classifier().train()
    before = {name: values.clone() for name, values in network.state_dict().items()}
    lattice_validator(RegionDataset(records, pixel_labels="mask"), network, 2, torch.device("cpu")).run()
    assert all(torch.equal(values, before[name]) for name, values in network.state_dict().items())


@pytest.mark.parametrize("given", [{}, {"generalized_mean_r": 20.0}])
def test_pixel_scores_equal_those_of_sklearn(records, given):
    validator = pixel_validator(RegionDataset(records, pixel_labels="mask"), RedPixels(), "cpu", batch_size=5, **given)
    validator.run()
    difference, masks = arrays(records)
    predicted = difference >= 20
    metrics = validator.state.metrics
    assert metrics["val_pixel_iou"] == pytest.approx(jaccard_score(masks.ravel(), predicted.ravel()))
    assert metrics["val_pixel_auc"] == pytest.approx(roc_auc_score(masks.ravel(), difference.ravel()), abs=0.01)
    # Of images, the generalised mean of their pixels' probabilities.
    probability = 1 / (1 + np.exp(-(difference - 20)))
    r = given.get("generalized_mean_r", 4.0)
    scores = (probability**r).mean(axis=(1, 2)) ** (1 / r)
    labels = [record["label"] for record in records]
    assert metrics["val_image_auc"] == pytest.approx(roc_auc_score(labels, scores))
    assert metrics["val_image_accuracy"] == pytest.approx(accuracy_score(labels, scores >= 0.5))
    assert validator.state.key_metric_name == "val_pixel_iou"
    regions = region_validator(RegionDataset(records, pixel_labels="mask"), RedMaps(), "cpu", batch_size=5, **given)
    regions.run()
    assert {name: regions.state.metrics[name] for name in metrics} == pytest.approx(metrics)


class RedMaps(RedPixels):
    def forward(self, images):
        return super().forward(images).sigmoid()


@pytest.mark.parametrize(
    ("make", "network", "known", "scored"),
    [
        (pixel_validator, RedPixels(), {"label"}, {"val_image"}),
        (pixel_validator, RedPixels(), {"mask"}, {"val_pixel"}),
        (region_validator, RedMaps(), {"label"}, {"val_image"}),
        (region_validator, RedMaps(), {"label", "mask"}, {"val_image", "val_pixel", "val_region"}),
    ],
)
def test_of_maps_what_all_images_have_labels_for_is_scored(records, make, network, known, scored):
    hidden = {"label", "mask"} - known
    given = [{**record, **dict.fromkeys(hidden)} for record in records]
    validator = make(RegionDataset(given, pixel_labels="mask" if "mask" in known else None), network, "cpu")
    validator.run()
    assert {"_".join(name.split("_")[:2]) for name in validator.state.metrics} == scored


def test_nothing_to_score(records):
    assert pixel_validator(RegionDataset([{**record, "label": None} for record in records]), RedPixels(), "cpu") is None
    assert class_validator(RegionDataset(records, num_classes=3), Levels(), "cpu") is None


class Levels(nn.Module):
    """Three classes by how much redder than green a pixel is."""

    def forward(self, images):
        difference = images[:, :1].float() - images[:, 1:2].float()
        return torch.cat([20 - difference, torch.full_like(difference, 0.5), difference - 80], dim=1)


@pytest.mark.parametrize("batch_size", [5, 20])
def test_scores_of_classes_equal_those_of_sklearn(records, tmp_path, batch_size):
    truth = []
    for index, record in enumerate(records):
        classes = np.uint8(np.asarray(Image.open(record["mask"])) > 0) * (1 + index % 4 // 2)
        record["mask"] = str(tmp_path / f"{index}_classes.png")
        Image.fromarray(classes).save(record["mask"])
        truth.append(classes)
    dataset = RegionDataset(records, pixel_labels="mask", num_classes=3)
    validator = class_validator(dataset, Levels(), "cpu", batch_size)
    validator.run()
    difference = np.stack([np.asarray(Image.open(record["image"])).astype(int) for record in records])
    difference = difference[..., 0] - difference[..., 1]
    predicted, truth = np.digitize(difference, [20, 81]).ravel(), np.stack(truth).ravel()
    assert set(predicted) == set(truth) == {0, 1, 2}
    metrics = validator.state.metrics
    assert set(metrics) >= {f"val_pixel_{name}" for name in CLASS_SCORES}
    assert metrics["val_pixel_accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert metrics["val_pixel_macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert metrics["val_pixel_mean_iou"] == pytest.approx(jaccard_score(truth, predicted, average="macro"))
    expected = bach_score(torch.from_numpy(predicted), torch.from_numpy(truth), num_classes=3)
    assert metrics["val_pixel_bach_score"] == pytest.approx(float(expected))
    assert validator.state.key_metric_name == "val_pixel_bach_score"
    # A second run counts again.
    before = dict(metrics)
    validator.run()
    assert validator.state.metrics == before
