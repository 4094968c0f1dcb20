import csv
import json

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score
from torch import nn

from shared.data.public.patch_camelyon import PatchCamelyonDataset
from shared.evaluation.patch_evaluation import PatchCamelyonEvaluation, tile_logits

NUM_PATCHES = 23


class RedCentre(nn.Module):
    """The mean red of the 64 x 64 px in the tile's centre, less 128, to one of `levels` an interval of 1: ``(B, 1)``."""

    def __init__(self, levels=1000.0):
        super().__init__()
        self.levels = levels

    def forward(self, tiles):
        assert tiles.shape[1:] == (3, 224, 224)
        assert tiles.dtype == torch.float32
        return ((red_centre(tiles) - 128) * self.levels).round() / self.levels


class DenseRed(nn.Module):
    """Logits ``(B, 1, 7, 7)``: the mean red of 32 x 32 px, less 128."""

    def forward(self, tiles):
        return tiles[:, :1].unflatten(3, (7, 32)).unflatten(2, (7, 32)).mean(dim=(3, 5)) - 128


class Wrong(nn.Module):
    def forward(self, tiles):
        return tiles[:, :2, 0, 0]


def red_centre(tiles):
    return tiles[:, 0, 80:144, 80:144].mean(dim=(1, 2))[:, None]


def write_patches(folder, labels):
    """Patches of noise, in the published layout, with a little more red in tumour."""
    rng = np.random.default_rng(1)
    labels = np.asarray(labels, dtype=np.uint8)
    patches = rng.integers(0, 256, (len(labels), 96, 96, 3)) + rng.normal(0, 3, (len(labels), 1, 1, 1))
    patches[labels == 1, ..., 0] += 2
    for letter, values in (("x", patches.clip(0, 255).astype(np.uint8)), ("y", labels[:, None, None, None])):
        with h5py.File(folder / f"camelyonpatch_level_2_split_test_{letter}.h5", "w") as file:
            file.create_dataset(letter, data=values, chunks=True, compression="gzip")
    return PatchCamelyonDataset(folder)


@pytest.fixture
def dataset(tmp_path):
    return write_patches(tmp_path, np.arange(NUM_PATCHES) % 3 == 0)


def evaluation(folder, dataset, **options):
    defaults = {"network": RedCentre(), "method": "Red", "device": "cpu", "batch_size": 5}
    return PatchCamelyonEvaluation(folder=folder, dataset=dataset, **(defaults | options))


def truth_and_logits(dataset):
    """By numpy alone: how often each pixel counts in the mean over the tile's centre."""
    with h5py.File(dataset.images_path) as file:
        red = file["x"][..., 0].astype(np.float64)
    # Each pixel makes two, but a quarter of the first and the last comes from the pixel beyond the centre's border.
    weights = np.zeros(96)
    weights[32:64] = 2
    weights[[31, 64]] = 0.25
    weights[[32, 63]] -= 0.25
    mean = np.einsum("r,nrc,c->n", weights, red, weights) / 64**2
    return dataset.labels.numpy(), mean - 128


def by_sklearn(labels, logits, threshold=0.5):
    decided = 1 / (1 + np.exp(-logits)) >= threshold
    return {
        "auc": roc_auc_score(labels, logits),
        "accuracy": accuracy_score(labels, decided),
        "sensitivity": recall_score(labels, decided),
        "specificity": recall_score(1 - labels, ~decided),
    }


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_metrics_equal_those_of_sklearn(tmp_path, dataset, threshold):
    metrics = evaluation(tmp_path / "out", dataset, threshold=threshold).run()
    assert metrics == json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["num_images"] == NUM_PATCHES
    assert metrics["threshold"] == threshold
    labels, logits = truth_and_logits(dataset)
    expected = by_sklearn(labels, logits, threshold)
    assert 0.5 < expected["auc"] < 1
    assert {name: metrics["images"]["Red"][name] for name in expected} == pytest.approx(expected)


def test_equal_logits_share_their_ranks(tmp_path, dataset):
    labels, logits = truth_and_logits(dataset)
    assert len(np.unique(logits.round())) < NUM_PATCHES
    metrics = evaluation(tmp_path, dataset, network=RedCentre(levels=1), num_examples=0).run()
    assert metrics["images"]["Red"]["auc"] == pytest.approx(roc_auc_score(labels, logits.round()))


def test_a_row_a_patch(tmp_path, dataset):
    metrics = evaluation(tmp_path / "out", dataset).run()
    rows = rows_of(tmp_path / "out/images.csv")
    labels, logits = truth_and_logits(dataset)
    assert list(rows[0]) == ["index", "label", "probability"]
    assert [int(row["index"]) for row in rows] == list(range(NUM_PATCHES))
    assert [int(row["label"]) for row in rows] == labels.tolist()
    probability = [float(row["probability"]) for row in rows]
    assert probability == pytest.approx(1 / (1 + np.exp(-logits)), rel=2e-3)
    # Not rounded: the file has what the AUC is made of.
    assert roc_auc_score(labels, probability) == pytest.approx(metrics["images"]["Red"]["auc"])


def test_a_dense_network_scores_by_the_mean_of_its_logits(tmp_path, dataset):
    metrics = evaluation(tmp_path, dataset, network=DenseRed(), num_examples=0).run()
    with h5py.File(dataset.images_path) as file:
        red = file["x"][..., 0].mean(axis=(1, 2))
    # Bilinear interpolation to twice the size with repeated borders keeps the mean; the black around it is 1 - (192 / 224)^2.
    logits = red * (192 / 224) ** 2 - 128
    assert metrics["images"]["Red"]["auc"] == pytest.approx(roc_auc_score(dataset.labels, logits))
    probability = [float(row["probability"]) for row in rows_of(tmp_path / "images.csv")]
    assert np.log(probability) == pytest.approx(logits, abs=1e-3)


def test_tile_logits():
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]], [[[-1.0, -1.0], [-2.0, 4.0]]]])
    assert tile_logits(maps).tolist() == [3, 0]
    assert tile_logits(torch.tensor([[0.5], [-2.0]])).tolist() == [0.5, -2]
    half = tile_logits(maps.bfloat16())
    assert half.dtype == torch.float32


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 2, 7, 7), (4, 1, 7)])
def test_logits_of_another_shape_are_rejected(shape):
    with pytest.raises(ValueError, match=rf"must be \(B, 1\) or \(B, 1, h, w\); got \({', '.join(map(str, shape))},?\)"):
        tile_logits(torch.zeros(shape))


def test_a_network_of_two_logits_is_rejected(tmp_path, dataset):
    with pytest.raises(ValueError, match=r"got \(5, 2\)"):
        evaluation(tmp_path, dataset, network=Wrong()).run()


@pytest.mark.parametrize("threshold", [-0.1, 1.5])
def test_a_threshold_is_a_probability(tmp_path, dataset, threshold):
    with pytest.raises(ValueError, match=f"must be a probability; got {threshold}"):
        evaluation(tmp_path, dataset, threshold=threshold)


def test_the_network_is_left_in_eval_mode_without_gradients(tmp_path, dataset):
    network = nn.Sequential(RedCentre(), nn.Dropout(0.9)).train()
    metrics = evaluation(tmp_path / "a", dataset, network=network).run()
    assert not network.training
    assert metrics == evaluation(tmp_path / "b", dataset).run()


def test_one_class_alone_has_no_auc(tmp_path, capsys):
    metrics = evaluation(tmp_path / "out", write_patches(tmp_path, [0, 0, 0, 0])).run()
    assert metrics["images"]["Red"]["auc"] is None
    assert "NaN" not in (tmp_path / "out/metrics.json").read_text()
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["Red", "-", "-"]


def test_the_table_is_printed_and_the_figure_opens(tmp_path, dataset, capsys):
    metrics = evaluation(tmp_path / "out", dataset, num_examples=3).run()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["PatchCamelyon", "(%)", "AUC", "Sensitivity", "Specificity", "Accuracy"]
    scores = metrics["images"]["Red"]
    assert lines[1].split() == [
        "Red",
        *(f"{100 * scores[name]:.1f}" for name in ("auc", "sensitivity", "specificity", "accuracy")),
    ]
    assert lines[-1].startswith(f"{NUM_PATCHES} patches, counted as tumour from a probability of 0.5; ")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["examples.png", "images.csv", "metrics.json"]
    with Image.open(tmp_path / "out/examples.png") as figure:
        # Image, label and probability, 2.6 inch each; three rows.
        assert figure.size == pytest.approx((3 * 2.6 * 110, (3 * 2.6 + 0.5) * 110), abs=2)


def test_the_figure_shows_label_and_probability_where_they_belong(tmp_path, dataset):
    made = evaluation(tmp_path, dataset, num_examples=3)
    shares = torch.linspace(0, 1, NUM_PATCHES).tolist()
    rows = [{"index": index, "label": int(dataset.labels[index]), "probability": share} for index, share in enumerate(shares)]
    rows = made.examples(rows, shares)
    assert [row.title.splitlines()[1] for row in rows] == ["label 1, 0.27", "label 1, 0.82", "label 0, 0.50"]
    for row, index, label in zip(rows, (6, 18, 11), (1, 1, 0), strict=True):
        assert row.title.startswith(f"patch {index}\n")
        assert row.image.shape == (96, 96, 3)
        for name, share in {"label": label, "Red": index / (NUM_PATCHES - 1)}.items():
            expected = np.zeros((96, 96))
            expected[32:64, 32:64] = share
            np.testing.assert_allclose(row.panels[name], expected, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_the_gpu_the_scores_are_the_same(tmp_path, dataset):
    evaluation(tmp_path / "cpu", dataset).run()
    evaluation(tmp_path / "gpu", dataset, device="cuda").run()
    cpu, gpu = ([float(row["probability"]) for row in rows_of(tmp_path / name / "images.csv")] for name in ("cpu", "gpu"))
    assert cpu == pytest.approx(gpu, rel=5e-3)
