"""The closing table of CDWS-MIL against loops over pixels in numpy."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from shared.data import RegionDataset
from shared.evaluation import RegionEvaluation
from shared.evaluation.score_pool import ScorePool
from shared.metrics import boundary_counts, ods_of_counts

WIDTH_PX, HEIGHT_PX = 12, 8
MAPS = ["Side output 1", "Side output 3", "Colours"]


class Colours(nn.Module):
    """Red and green are the side outputs; their fusion, with weights 1/4 and 3/4, is exact in float32."""

    side_outputs = (1, 3)

    def maps(self, images):
        red, green = images[:, :2].float().unbind(1)
        return torch.stack([red, green, red / 4 + green * 3 / 4], dim=1) / 256


class Red(nn.Module):
    """One side output, which is its own fusion."""

    side_outputs = (3,)

    def maps(self, images):
        return images[:, :1].float().expand(-1, 2, -1, -1) / 256


def blocks(image):
    """Super-pixels of 3 x 2 px, their ids with gaps."""
    rows, columns = torch.arange(image.shape[1]) // 2, torch.arange(image.shape[2]) // 3
    return (7 * rows[:, None] + 2 * columns)[None].int()


@pytest.fixture
def records(tmp_path):
    """Seven images of noise, four of them with tumour; the last with a label of 1 and next to no tumour."""
    rng = np.random.default_rng(5)
    made = []
    for index in range(7):
        pixels = rng.integers(0, 256, (HEIGHT_PX, WIDTH_PX, 3), dtype=np.uint8)
        # Some maps are below the threshold everywhere.
        pixels[..., index % 2] //= 1 + index % 3
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        mask = None
        if index % 2 == 0:
            mask = str(tmp_path / f"{index}_mask.png")
            tumour = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
            tumour[1 : 1 + (6 - index), 2 : 2 + 2 * (6 - index)] = 255
            tumour[0, 0] = 255
            Image.fromarray(tumour).save(mask)
        made.append({"image": str(tmp_path / f"{index}.png"), "label": int(mask is not None), "mask": mask, "row": index + 2})
    return made


def maps_by_loops(record, superpixels):
    """Each map of `Colours` by its name, (H, W) in float64."""
    pixels = np.asarray(Image.open(record["image"])).astype(float) / 256
    maps = dict(zip(MAPS, (pixels[..., 0], pixels[..., 1], pixels[..., 0] / 4 + pixels[..., 1] * 3 / 4), strict=True))
    if superpixels:
        for values in maps.values():
            for row in range(0, HEIGHT_PX, 2):
                for column in range(0, WIDTH_PX, 3):
                    values[row : row + 2, column : column + 3] = np.mean(values[row : row + 2, column : column + 3])
    return maps


def mask_of(record):
    return np.asarray(Image.open(record["mask"])) > 0 if record["mask"] else np.zeros((HEIGHT_PX, WIDTH_PX), bool)


def counts_by_loops(probabilities, mask):
    counts = {"tp": 0, "fp": 0, "fn": 0, "tn": 0}
    for probability, is_tumour in zip(probabilities.ravel(), mask.ravel(), strict=True):
        counts[("t" if (probability >= 0.5) == is_tumour else "f") + ("p" if probability >= 0.5 else "n")] += 1
    return counts


def f_by_loops(counts, label):
    if label:
        return 2 * counts["tp"] / max(1, 2 * counts["tp"] + counts["fp"] + counts["fn"])
    normal = counts["tn"] + counts["fn"]
    return 2 * normal / (normal + HEIGHT_PX * WIDTH_PX)


def mean(values):
    return sum(values) / len(values)


def evaluate(folder, records, network=None, superpixels=None, **options):
    dataset = RegionDataset(records, pixel_labels=options.pop("pixel_labels", "mask"), superpixels=superpixels)
    options = {"network": network or Colours(), "method": "Colours", "device": "cpu", "batch_size": 3} | options
    RegionEvaluation(folder=folder, dataset=dataset, **options).run()
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("superpixels", [None, blocks], ids=["pixels", "superpixels"])
def test_scores_equal_those_of_loops(tmp_path, records, superpixels):
    metrics = evaluate(tmp_path / "out", records, superpixels=superpixels)
    assert metrics["num_images"] == 7
    assert list(metrics["regions"]) == list(metrics["boundaries"]) == MAPS
    assert list(metrics["pixels"]) == [*MAPS, "Everything is tumour"]
    images = [maps_by_loops(record, superpixels) for record in records]
    masks, labels = [mask_of(record) for record in records], [record["label"] for record in records]
    for name in MAPS:
        counts = [counts_by_loops(maps[name], mask) for maps, mask in zip(images, masks, strict=True)]
        f = [f_by_loops(count, label) for count, label in zip(counts, labels, strict=True)]
        tumour = [index for index, label in enumerate(labels) if label]
        num_pixels = HEIGHT_PX * WIDTH_PX
        assert metrics["regions"][name] == pytest.approx(
            {
                "f_ca": mean([f[index] for index in tumour]),
                "f_nc": mean([f[index] for index in range(7) if index not in tumour]),
                "f_all": mean(f),
                "predicted_area_ca": mean([(counts[index]["tp"] + counts[index]["fp"]) / num_pixels for index in tumour]),
                "true_area_ca": mean([masks[index].sum() / num_pixels for index in tumour]),
                "mean_probability_ca": mean([images[index][name].mean() for index in tumour]),
            }
        )
        tp, fp, fn = (sum(count[kind] for count in counts) for kind in ("tp", "fp", "fn"))
        assert metrics["pixels"][name]["iou"] == pytest.approx(tp / (tp + fp + fn))
        # The matching itself has tests of its own.
        boundary = ods_of_counts(sum(boundary_counts(np.float32(images[index][name]), masks[index]) for index in tumour))
        scores = {"ods": boundary.f, "precision": boundary.precision, "recall": boundary.recall}
        assert metrics["boundaries"][name] == pytest.approx(scores | {"threshold": boundary.threshold})
    assert metrics["pixels"]["Everything is tumour"]["iou"] == pytest.approx(mean([mask.mean() for mask in masks]))


@pytest.mark.parametrize("superpixels", [None, blocks], ids=["pixels", "superpixels"])
@pytest.mark.parametrize("r", [1.0, 4.0])
def test_images_equal_those_of_loops(tmp_path, records, superpixels, r):
    """A row per image is of the fusion; an image's probability is its generalised mean."""
    metrics = evaluate(tmp_path / "out", records, superpixels=superpixels, generalized_mean_r=r)
    table = pd.read_csv(tmp_path / "out/images.csv")
    assert table["image"].tolist() == [record["image"] for record in records]
    right = 0
    for record, (_, row) in zip(records, table.iterrows(), strict=True):
        fusion = maps_by_loops(record, superpixels)["Colours"]
        counts = counts_by_loops(fusion, mask_of(record))
        assert {name: row[name] for name in counts} == counts
        assert row["region_f"] == pytest.approx(f_by_loops(counts, record["label"]), abs=1e-6)
        assert row["max_probability"] == pytest.approx(fusion.max(), abs=1e-6)
        probability = mean([value**r for value in fusion.ravel()]) ** (1 / r)
        assert row["image_probability"] == pytest.approx(probability, abs=1e-6)
        right += (probability >= 0.5) == record["label"]
    assert metrics["images"]["Colours"]["accuracy"] == pytest.approx(right / 7)


def test_superpixels_change_the_scores(tmp_path, records):
    """So that the loops above prove something."""
    plain, pooled = (
        evaluate(tmp_path / str(index), records, superpixels=of)["regions"] for index, of in enumerate((None, blocks))
    )
    for name in MAPS:
        assert plain[name]["f_all"] != pytest.approx(pooled[name]["f_all"], abs=0.01)
        # Super-pixels of one size keep the mean.
        assert plain[name]["mean_probability_ca"] == pytest.approx(pooled[name]["mean_probability_ca"])


def test_a_single_side_output_is_its_own_fusion(tmp_path, records, capsys):
    metrics = evaluate(tmp_path / "out", records, Red())
    assert list(metrics["regions"]) == ["Colours"]
    expected = evaluate(tmp_path / "all", records)["regions"]["Side output 1"]
    assert metrics["regions"]["Colours"] == pytest.approx(expected)
    assert "Side output" not in capsys.readouterr().out.split("Regions (%)")[1]


def test_the_table_is_printed_and_the_figure_opens(tmp_path, records, capsys):
    metrics = evaluate(tmp_path / "out", records)
    (line,) = [line for line in capsys.readouterr().out.split("Boundaries")[0].splitlines() if line.startswith("Side output 3")]
    shown = ["f_ca", "f_nc", "f_all", "predicted_area_ca", "true_area_ca"]
    assert line.split()[3:] == [f"{100 * metrics['regions']['Side output 3'][name]:.1f}" for name in shown]
    with Image.open(tmp_path / "out/examples.png") as figure:
        assert min(figure.size) > 100


def test_without_masks_the_images_alone_are_scored(tmp_path, records):
    metrics = evaluate(tmp_path / "out", records, pixel_labels=None)
    assert metrics.keys() == {"split", "num_images", "images"}
    assert "region_f" not in pd.read_csv(tmp_path / "out/images.csv")


def test_scores_that_do_not_exist_are_null(tmp_path, records):
    metrics = evaluate(tmp_path / "out", [record for record in records if not record["label"]])
    assert metrics["regions"]["Colours"]["f_ca"] is None
    assert metrics["regions"]["Colours"]["mean_probability_ca"] is None
    assert set(metrics["boundaries"]["Colours"].values()) == {None}
    assert metrics["regions"]["Colours"]["f_nc"] == metrics["regions"]["Colours"]["f_all"]


class Remembering(ScorePool):
    """Whether processes were started."""

    was_started = False

    def map(self, function, arguments):
        scores = super().map(function, arguments)
        self.was_started |= self._executor is not None
        return scores


@pytest.mark.parametrize(("num_processes", "patience_s", "is_started"), [(2, 0.0, True), (2, 1e6, False), (1, 0.0, False)])
def test_processes_change_no_score(tmp_path, records, num_processes, patience_s, is_started):
    expected = evaluate(tmp_path / "alone", records)
    pool = Remembering(num_processes, patience_s)
    assert evaluate(tmp_path / "shared", records, pool=pool) == expected
    assert (tmp_path / "shared/images.csv").read_bytes() == (tmp_path / "alone/images.csv").read_bytes()
    assert pool.was_started == is_started
    assert pool._executor is None


def images_of_side(folder, side_px):
    """Blobs, of which every other image has some as tumour, in colours that a network tells from the rest."""
    rng = np.random.default_rng(1)
    records = []
    for index in range(4):
        coarse = rng.random((side_px // 16, side_px // 16)) < 0.4 * (index % 2)
        tumour = np.kron(coarse, np.ones((16, 16))) > 0
        pixels = rng.integers(90, 140, (side_px, side_px, 3))
        pixels[tumour, 0] += 90
        image, mask = folder / f"side_{index}.png", folder / f"side_{index}_mask.png"
        Image.fromarray(np.uint8(pixels)).save(image)
        Image.fromarray(np.uint8(tumour) * 255).save(mask)
        records.append({"image": str(image), "label": index % 2, "mask": str(mask), "row": index + 2})
    return records


class Blobs(nn.Module):
    """Convolutions that find them, with scores between 0 and 1 at their edges; notes in what it computed."""

    side_outputs = ()

    def __init__(self):
        super().__init__()
        self.mean = nn.Conv2d(3, 1, 5, padding=2, padding_mode="replicate")
        with torch.no_grad():
            self.mean.weight.copy_(torch.tensor([1.0, -0.5, -0.5]).view(1, 3, 1, 1).expand(1, 3, 5, 5) / 25)
            self.mean.bias.fill_(-45)
        self.computed_in = set()

    def maps(self, images):
        logits = self.mean(images.float())
        self.computed_in.add(logits.dtype)
        return (logits.float() / 8).sigmoid()

    def image_probability(self, images):
        return self.maps(images).amax(dim=(1, 2, 3))


@pytest.mark.parametrize("side_px", [32, 64])
def test_maps_are_computed_as_in_inference_in_bfloat16_where_that_is_faster(tmp_path, side_px, monkeypatch):
    """But for images of 32 px and less, as in training."""
    monkeypatch.setattr("shared.engines.inferers.computes_bfloat16", lambda device: True)
    records, found, computed_in = images_of_side(tmp_path, side_px), {}, {}
    for amp in (True, False):
        network = Blobs()
        found[amp] = evaluate(tmp_path / str(amp), records, network, amp=amp)
        computed_in[amp] = network.computed_in
    assert computed_in == {True: {torch.bfloat16 if side_px > 32 else torch.float32}, False: {torch.float32}}
    fast, exact = found[True], found[False]
    assert exact["regions"]["Colours"]["f_all"] > 0.7
    for group in ("regions", "pixels", "images"):
        for name, value in exact[group]["Colours"].items():
            assert fast[group]["Colours"][name] == pytest.approx(value, abs=0.02), (group, name)
