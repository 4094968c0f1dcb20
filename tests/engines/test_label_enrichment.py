import csv

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from shared.data import (
    RegionDataset,
    attach_instance_labels,
    load_manifest,
    load_picks,
    split_into_instances,
    write_instance_labels,
)
from shared.engines import Construct, ConstructFromMasks, LatticeScorer, Relabel
from shared.engines.label_enrichment import consistent_picks, enriched_labels

INSTANCE_PX = 3


class Channel(nn.Module):
    """The logit of an instance is its first pixel's value in one colour channel, less 128: what a test has painted."""

    def __init__(self, channel):
        super().__init__()
        self.channel = channel

    def forward(self, images):
        return images[:, self.channel, 0, 0].float()[:, None] - 128


@pytest.fixture
def make_dataset(tmp_path):
    """Images of 2 x 2 instances whose logits are given for each colour channel, as a data set."""

    def make(rows, **options):
        records = []
        for number, (label, *logits) in enumerate(rows):
            lattice = np.full((2, 2, 3), 128)
            for channel, values in enumerate(logits):
                lattice[..., channel] += np.reshape(values, (2, 2))
            pixels = lattice.repeat(INSTANCE_PX, 0).repeat(INSTANCE_PX, 1)
            path = tmp_path / f"image{number}.png"
            Image.fromarray(np.uint8(pixels)).save(path)
            records.append({"image": str(path), "label": label, "case_id": f"c{number}", "split": "train", "row": number + 2})
        return RegionDataset(records, **options)

    return make


# label, logits by which Max-Max picks (red), logits by which Max-Min picks (green)
BAGS = [
    (1, [0, 1, 2, -1], [0, 1, 2, -1]),  # both pick instance 2: one pick
    (1, [5, 1, 2, -1], [0, 7, 2, -1]),  # 0 and 1
    (1, [-1, -2, -3, -4], [0, -1, -1, -1]),  # Max-Max: 0 is not tumour, dropped; Max-Min: 0 with logit 0 is tumour
    (0, [-4, -1, -2, -3], [-4, -1, -2, -3]),  # Max-Max: 1; Max-Min: 0
    (0, [-4, 1, -2, -3], [9, 1, 2, 3]),  # dropped by both
]
PICKS = {(0, 2): "max_max+max_min", (1, 0): "max_max", (1, 1): "max_min", (2, 0): "max_min", (3, 0): "max_min", (3, 1): "max_max"}


def construct(dataset, path, names=("max_max", "max_min")):
    networks = {"max_max": Channel(0), "max_min": Channel(1)}
    return Construct(LatticeScorer(dataset, 2, "cpu", batch_size=2), {name: networks[name] for name in names}, path)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_scores_are_in_the_order_of_the_data_set(make_dataset):
    network = Channel(0).train()
    logits = LatticeScorer(make_dataset(BAGS), 2, "cpu", batch_size=2)(network)
    assert logits.tolist() == [[float(value) for value in red] for _, red, _ in BAGS]
    assert not network.training


def test_picks_that_agree_with_the_images_label():
    records = [{"label": label} for label, *_ in BAGS]
    red, green = (torch.tensor([bag[column] for bag in BAGS], dtype=torch.float32) for column in (1, 2))
    assert consistent_picks(red, records, "max_max") == [(0, 2), (1, 0), (3, 1)]
    assert consistent_picks(green, records, "max_min") == [(0, 2), (1, 1), (2, 0), (3, 0)]


def test_construct_writes_the_union(tmp_path, make_dataset):
    path = tmp_path / "construct/picks.csv"
    construct(make_dataset(BAGS), path).run()
    rows = read(path)
    expected = sorted(PICKS)
    assert [row["criterion"] for row in rows] == [PICKS[key] for key in expected]
    for row, (image, instance) in zip(rows, expected, strict=True):
        assert row["image"].endswith(f"image{image}.png")
        assert (int(row["x"]), int(row["y"])) == (instance % 2 * INSTANCE_PX, instance // 2 * INSTANCE_PX)
        assert (row["width_px"], row["height_px"]) == ("3", "3")
        assert int(row["label"]) == BAGS[image][0]
        column = 1 if row["criterion"].startswith("max_max") else 2
        assert float(row["probability"]) == pytest.approx(1 / (1 + np.exp(-float(BAGS[image][column][instance]))), abs=1e-6)
    assert [record["label"] for record in load_picks([path])] == [1, 1, 1, 1, 0, 0]


def test_picks_are_read_as_the_instances_that_were_scored(tmp_path, make_dataset):
    dataset = make_dataset(BAGS)
    construct(dataset, tmp_path / "picks.csv").run()
    picks = RegionDataset(load_manifest(tmp_path / "picks.csv"), size_px=INSTANCE_PX)
    for position, (image, instance) in enumerate(sorted(PICKS)):
        assert torch.equal(picks[position]["image"], split_into_instances(dataset[image]["image"][None], 2)[0, instance])


def test_one_criterion_alone(tmp_path, make_dataset):
    construct(make_dataset(BAGS), tmp_path / "picks.csv", names=["max_max"]).run()
    assert [row["criterion"] for row in read(tmp_path / "picks.csv")] == ["max_max"] * 3


def test_regions_of_regions(tmp_path, make_dataset):
    """The cascade: picks of picks are regions of the first image."""
    dataset = make_dataset([(1, [9, 0, 0, 0]), (0, [-9, -9, -9, -9])])
    dataset.data = [{**record, "x": 1, "y": 0, "width_px": 4, "height_px": 6} for record in dataset.data]
    construct(dataset, tmp_path / "picks.csv", names=["max_max"]).run()
    row = read(tmp_path / "picks.csv")[0]
    assert [int(row[name]) for name in ("x", "y", "width_px", "height_px")] == [1, 0, 2, 3]


@pytest.mark.parametrize(("label", "words"), [(1, "1 tumour and 0 normal picks"), (0, "0 tumour and 1 normal picks")])
def test_picks_of_one_class_only(tmp_path, make_dataset, label, words):
    # Whichever the label, the other image's pick does not agree with it.
    logit = 5 if label else -5
    dataset = make_dataset([(label, [logit] * 4, [logit] * 4), (1 - label, [logit] * 4, [logit] * 4)])
    with pytest.raises(ValueError, match=f"construct: {words} .*cmil::num_epochs"):
        construct(dataset, tmp_path / "picks.csv").run()
    assert not (tmp_path / "picks.csv").exists()


def test_finished_steps_are_skipped(tmp_path, make_dataset):
    dataset = make_dataset(BAGS)
    score = LatticeScorer(dataset, 2, "cpu")
    (tmp_path / "done.csv").write_text("as it was")
    Construct(score, {"max_max": None}, tmp_path / "done.csv").run()
    Relabel(score, None, tmp_path / "done.csv").run()
    ConstructFromMasks(dataset, 2, tmp_path / "done.csv").run()
    assert (tmp_path / "done.csv").read_text() == "as it was"


@pytest.mark.parametrize("clamp", [False, True])
def test_relabel(tmp_path, make_dataset, clamp):
    dataset = make_dataset(BAGS)
    path = tmp_path / "relabel/instance_labels.csv"
    Relabel(LatticeScorer(dataset, 2, "cpu"), Channel(0), path, clamp_negative_bags=clamp).run()
    expected = ["1110", "1110", "0000", "0000", "0000" if clamp else "0100"]
    assert [record["instances"] for record in attach_instance_labels(dataset.data, path)] == expected
    assert [int(row["num_tumour"]) for row in read(path)] == [text.count("1") for text in expected]
    first = path.read_bytes()
    path.unlink()
    Relabel(LatticeScorer(dataset, 2, "cpu", batch_size=1), Channel(0), path, clamp_negative_bags=clamp).run()
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    ("logit", "clamp", "said"),
    [(-5, False, "0 of 8"), (5, False, "8 of 8"), (-5, True, "0 of 8")],
)
def test_a_segmentation_is_not_trained_on_one_class(tmp_path, make_dataset, logit, clamp, said):
    dataset = make_dataset([(1, [logit] * 4), (0, [logit] * 4)])
    path = tmp_path / "relabel/instance_labels.csv"
    with pytest.raises(ValueError, match=rf"^relabel: {said} instances of 2 .*{path} was not written.*retrain::num_epochs"):
        Relabel(LatticeScorer(dataset, 2, "cpu"), Channel(0), path, clamp_negative_bags=clamp).run()
    assert not path.exists()
    # Nor on what an earlier version has left.
    write_instance_labels(dataset.data, [torch.full((4,), int(logit > 0))] * 2, path)
    with pytest.raises(ValueError, match=rf"^{path}: {said} instances are labelled tumour; both .*retrain::num_epochs"):
        attach_instance_labels(dataset.data, path)


def test_clamping_spares_tumour_images():
    logits = torch.tensor([[1.0, -1.0], [1.0, -1.0], [0.0, 2.0]])
    records = [{"label": 0}, {"label": 1}, {"label": 0}]
    assert enriched_labels(logits, records).tolist() == [[1, 0], [1, 0], [1, 1]]
    assert enriched_labels(logits, records, clamp_negative_bags=True).tolist() == [[0, 0], [1, 0], [0, 0]]


def test_masks_without_tumour_teach_no_instance(tmp_path, make_dataset):
    dataset = make_dataset([(1, [0] * 4), (0, [0] * 4)], pixel_labels="mask")
    Image.fromarray(np.zeros((6, 6), np.uint8)).save(tmp_path / "mask.png")
    dataset.data[0]["mask"] = str(tmp_path / "mask.png")
    with pytest.raises(ValueError, match="masks of 2 training images label 0 of 8 instances tumour and 8 normal"):
        ConstructFromMasks(dataset, 2, tmp_path / "picks.csv").run()
    assert not (tmp_path / "picks.csv").exists()


def test_instances_with_their_true_labels(tmp_path, make_dataset):
    dataset = make_dataset([(1, [0] * 4), (0, [0] * 4)], pixel_labels="mask")
    mask = np.zeros((6, 6), np.uint8)
    mask[2, 3] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    dataset.data[0]["mask"] = str(tmp_path / "mask.png")
    ConstructFromMasks(dataset, 2, tmp_path / "picks.csv").run()
    picks = load_picks([tmp_path / "picks.csv"])
    assert [pick["label"] for pick in picks] == [0, 1, 0, 0, 0, 0, 0, 0]
    assert [(pick["x"], pick["y"]) for pick in picks[:4]] == [(0, 0), (3, 0), (0, 3), (3, 3)]
