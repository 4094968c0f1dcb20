"""Maps of small painted slides by a network that knows the paint; everything again in NumPy and scikit-learn."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from sklearn.metrics import precision_score, recall_score, roc_auc_score
from torch import nn

from shared.data import TissueCache
from shared.evaluation import MapEvaluation
from shared.inference import SlideMapper
from tests.engines.conftest import in_processes
from tests.inference.flat_options import grouped

ALPHA, THRESHOLD, METHOD = 0.2, 0.3, "paint"
# At 1 um per pixel with 4 pixels a map pixel, of slides of 0.5 um.
MAP_PIXEL_PX = 8


class PaintOrGlass(nn.Module):
    """Another network with what it says of glass added to each tile's logit."""

    def __init__(self, network, glass_logit):
        super().__init__()
        self.network, self.glass_logit = network, nn.Parameter(torch.tensor(glass_logit))

    def forward(self, tiles):
        glass = (tiles.amin(dim=1, keepdim=True) > 225).float()
        return self.network(tiles) * (1 - glass).mean(dim=(2, 3)) + self.glass_logit * glass.mean(dim=(2, 3))


@pytest.fixture
def tissue(tmp_path):
    return TissueCache(tmp_path / "tissue")


@pytest.fixture
def evaluation(tissue, paint_finder):
    def make(folder, records, network=None, alpha=ALPHA, num_examples=3, truth="mask", normal_is_zero=None, **options):
        options = {
            "mpp": 1.0,
            "tile_size_px": 32,
            "margin_px": 8,
            "threshold": THRESHOLD,
            "device": "cpu",
            "amp": False,
        } | options
        mapper = SlideMapper(network or paint_finder(), **grouped(**options))
        zero = {} if normal_is_zero is None else {"normal_is_zero": normal_is_zero}
        return MapEvaluation(folder, records, mapper, tissue, alpha, METHOD, num_examples, truth=truth, **zero)

    return make


def at_map_pixels(record, shape, tissue):
    """Truth and tissue in the middle of each map pixel, one by one."""
    with Image.open(record["mask"]) as image:
        mask = np.asarray(image) > 0
    map_of_tissue = tissue.get(record["image"])
    truth, is_tissue = np.zeros(shape, bool), np.zeros(shape, bool)
    for row in range(shape[0]):
        for column in range(shape[1]):
            y, x = (row + 0.5) * MAP_PIXEL_PX, (column + 0.5) * MAP_PIXEL_PX
            if y < mask.shape[0] and x < mask.shape[1]:
                truth[row, column] = mask[int(y), int(x)]
            at = [
                min(int(p / map_of_tissue.pixel_px), side - 1) for p, side in zip((y, x), map_of_tissue.mask.shape, strict=True)
            ]
            is_tissue[row, column] = map_of_tissue.mask[at[0], at[1]]
    return truth, is_tissue


def reference(folder, records, tissue, alpha=ALPHA, threshold=THRESHOLD):
    """What ``metrics.json`` should hold, from the files, and each slide's row."""
    pixels, rows = {"pixels_tissue": [], "pixels_all": []}, []
    for record in records:
        name = record["image"].split("/")[-1].removesuffix(".tif")
        values = tifffile.imread(folder / "maps" / f"{name}.ome.tif", key=0)
        truth, is_tissue = at_map_pixels(record, values.shape, tissue)
        pixels["pixels_tissue"].append((truth[is_tissue], values[is_tissue]))
        pixels["pixels_all"].append((truth.ravel(), np.where(is_tissue, values, 0).ravel()))
        best = np.sort(values[is_tissue])[::-1][: max(1, math.floor(is_tissue.sum() * alpha + 1e-9))]
        rows.append({"slide": name, "label": record["label"], "score": best.mean() / 255, "tissue_share": is_tissue.mean()})
        for part, column in (("pixels_tissue", "tissue_auc"), ("pixels_all", "auc")):
            found = pixels[part][-1]
            rows[-1][column] = roc_auc_score(*found) if found[0].any() else None
    labels, scores = [row["label"] for row in rows], [row["score"] for row in rows]
    slides = {METHOD: {"auc": roc_auc_score(labels, scores)}}
    metrics = {"split": "test", "num_slides": len(rows), "threshold": threshold, "slides": slides}
    for part, of_slides in pixels.items():
        truth, values = (np.concatenate(arrays) for arrays in zip(*of_slides, strict=True))
        positive = values >= 255 * threshold
        metrics[part] = {
            METHOD: {
                "auc": roc_auc_score(truth, values),
                "mean_slide_auc": np.mean([roc_auc_score(*of_one) for of_one in of_slides if of_one[0].any()]),
                "sensitivity": recall_score(truth, positive),
                "specificity": recall_score(~truth, ~positive),
                "accuracy": (truth == positive).mean(),
                "precision": precision_score(truth, positive, zero_division=0),
                "f1": 2 * (truth & positive).sum() / (truth.sum() + positive.sum()),
                "iou": (truth & positive).sum() / (truth | positive).sum(),
            },
            "Everything is tumour": {
                "auc": 0.5,
                "mean_slide_auc": 0.5,
                "sensitivity": 1.0,
                "specificity": 0.0,
                "accuracy": truth.mean(),
                "precision": truth.mean(),
                "f1": 2 * truth.sum() / (truth.sum() + len(truth)),
                "iou": truth.mean(),
            },
        }
    return metrics, rows


def assert_same(found, expected):
    """Nested dictionaries of numbers."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, dict):
            assert_same(found[name], value)
        else:
            assert found[name] == pytest.approx(value), name


def table(folder):
    with (folder / "slides.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("stride", [None, 8])
def test_scores_against_numpy(tmp_path, evaluation, cohort, tissue, paint_finder, capsys, stride):
    folder = tmp_path / "evaluation"
    found = evaluation(folder, cohort, paint_finder(stride)).run()
    assert json.loads((folder / "metrics.json").read_text()) == found
    expected, rows = reference(folder, cohort, tissue)
    assert_same(found, expected)
    assert found["slides"][METHOD]["auc"] == 1.0
    assert min(found[part][METHOD]["auc"] for part in ("pixels_tissue", "pixels_all")) > 0.99
    for row, wanted in zip(table(folder), rows, strict=True):
        assert (row["slide"], row["label"]) == (wanted["slide"], str(wanted["label"]))
        for name in ("score", "tissue_share"):
            assert float(row[name]) == pytest.approx(wanted[name], abs=1e-6)
        for name in ("tissue_auc", "auc"):
            assert (float(row[name]) if row[name] else None) == (wanted[name] and pytest.approx(wanted[name]))
    # Every slide's pixels are counted once, and those of all together make the score.
    counts = np.array([[int(row[name]) for name in ("tp", "fp", "fn", "tn")] for row in table(folder)])
    assert counts.sum(0)[0] / counts.sum(0)[[0, 2]].sum() == pytest.approx(found["pixels_tissue"][METHOD]["sensitivity"])
    with Image.open(folder / "examples.png") as figure:
        assert figure.format == "PNG"
    printed = capsys.readouterr().out
    assert "Pixels, tissue only" in printed
    assert printed.splitlines()[-1].startswith("4 slides; metrics.json, slides.csv and examples.png are in ")
    assert printed.rstrip().endswith(f"the tumour map of every slide is in {folder / 'maps'}")


@pytest.mark.parametrize("glass_logit", [-20.0, 20.0])
def test_background_scores_nothing(tmp_path, evaluation, cohort, tissue, paint_finder, glass_logit):
    """Whatever a map says of glass, its pixels score 0."""
    network = PaintOrGlass(paint_finder(), glass_logit)
    found = evaluation(tmp_path, cohort, network, tissue_only=False, tile_size_px=16, margin_px=0).run()
    corners = [int(tifffile.imread(tmp_path / f"maps/slide_0{index}.ome.tif", key=0)[0, 0]) for index in range(4)]
    assert corners == [255 if glass_logit > 0 else 0] * 4
    assert_same(found, reference(tmp_path, cohort, tissue)[0])
    # More than half of each slide is background, and all of it is right.
    rows = table(tmp_path)
    background = np.mean([1 - float(row["tissue_share"]) for row in rows])
    assert found["pixels_all"][METHOD]["specificity"] > background > 0.5


@pytest.mark.parametrize("threshold", [0.2, 0.5, 1.0])
def test_other_thresholds(tmp_path, evaluation, cohort, tissue, threshold):
    """Also where 255 * threshold is a whole number, a value of the map."""
    found = evaluation(tmp_path / "e", cohort, threshold=threshold, num_examples=0).run()
    expected, _ = reference(tmp_path / "e", cohort, tissue, threshold=threshold)
    assert found["threshold"] == threshold
    for part in ("pixels_tissue", "pixels_all"):
        for name in ("sensitivity", "specificity"):
            assert found[part][METHOD][name] == pytest.approx(expected[part][METHOD][name])
    assert not (tmp_path / "e/examples.png").exists()


@pytest.mark.parametrize("alpha", [0.001, 1.0])
def test_other_alphas(tmp_path, evaluation, cohort, tissue, alpha):
    evaluation(tmp_path / "e", cohort, alpha=alpha, num_examples=0).run()
    expected = [row["score"] for row in reference(tmp_path / "e", cohort, tissue, alpha=alpha)[1]]
    assert [float(row["score"]) for row in table(tmp_path / "e")] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("strip_area_px", [1, 1000])
def test_strips_change_nothing(tmp_path, evaluation, cohort, monkeypatch, strip_area_px):
    whole = evaluation(tmp_path / "whole", cohort[:2], num_examples=0).run()
    monkeypatch.setattr("shared.evaluation.maps.scoring_grid._STRIP_GRID_PX", strip_area_px)
    assert evaluation(tmp_path / "strips", cohort[:2], num_examples=0).run() == whole


def test_goes_on_where_it_was_killed(tmp_path, evaluation, cohort):
    once, again = tmp_path / "once", tmp_path / "again"
    expected = evaluation(once, cohort).run()
    shutil.copytree(once, again)
    # As if the last slide had not been begun.
    for file in (again / "maps").glob("slide_03.*"):
        file.unlink()
    with (again / "maps/slides.csv").open(newline="") as file:
        lines = file.read().splitlines(keepends=True)
    (again / "maps/slides.csv").write_text("".join(lines[:-1]))
    for name in ("metrics.json", "slides.csv", "examples.png"):
        (again / name).unlink()
    before = {path: path.stat().st_mtime_ns for path in (again / "maps").glob("*.ome.tif")}
    assert len(before) == 3
    assert evaluation(again, cohort).run() == expected
    for name in ("metrics.json", "slides.csv"):
        assert (again / name).read_bytes() == (once / name).read_bytes()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list((again / "maps").glob("*.ome.tif"))) == 4


def test_some_slides_first(tmp_path, evaluation, cohort):
    expected = evaluation(tmp_path / "once", cohort).run()
    again = tmp_path / "again"
    assert evaluation(again, cohort[:2]).run()["num_slides"] == 2
    before = {path: path.stat().st_mtime_ns for path in (again / "maps").glob("*.ome.tif")}
    assert evaluation(again, cohort).run() == expected
    assert (again / "slides.csv").read_bytes() == (tmp_path / "once/slides.csv").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # And fewer than there are maps.
    assert evaluation(again, cohort[1:3]).run()["num_slides"] == 2
    assert [row["slide"] for row in table(again)] == ["slide_01", "slide_02"]


def test_another_network_makes_other_maps(tmp_path, evaluation, cohort, paint_finder):
    first = evaluation(tmp_path / "e", cohort[:2]).run()
    reversed_finder = paint_finder()
    with torch.no_grad():
        reversed_finder.scale.neg_()
    assert evaluation(tmp_path / "e", cohort[:2], reversed_finder).run()["pixels_tissue"][METHOD]["auc"] < 0.5
    assert evaluation(tmp_path / "e", cohort[:2]).run() == first


def test_masks_of_half_the_size(tmp_path, evaluation, cohort):
    expected = evaluation(tmp_path / "whole", cohort, num_examples=0).run()
    for record in cohort:
        with Image.open(record["mask"]) as mask:
            path = tmp_path / f"{record['case_id']}_half.png"
            mask.resize((mask.width // 2, mask.height // 2), Image.Resampling.NEAREST).save(path)
        record["mask"] = str(path)
    found = evaluation(tmp_path / "half", cohort, num_examples=0).run()
    for part in ("pixels_tissue", "pixels_all"):
        for name, value in expected[part][METHOD].items():
            assert found[part][METHOD][name] == pytest.approx(value, abs=0.005)


def test_a_normal_slide_needs_no_mask(tmp_path, evaluation, cohort):
    expected = evaluation(tmp_path / "e", cohort).run()
    for record in cohort:
        if record["label"] == 0:
            record["mask"] = None
    assert evaluation(tmp_path / "e", cohort).run() == expected


def test_slides_without_masks_are_scored_by_their_labels(tmp_path, evaluation, cohort, capsys):
    expected = evaluation(tmp_path / "with", cohort).run()
    rows = table(tmp_path / "with")
    assert "Pixels" in capsys.readouterr().out
    for record in cohort:
        record["mask"] = None
    cohort[1]["split"] = "val"  # not looked at
    found = evaluation(tmp_path / "without", cohort).run()
    assert found == {name: expected[name] for name in ("split", "num_slides", "threshold", "slides")}
    assert [row["score"] for row in table(tmp_path / "without")] == [row["score"] for row in rows]
    assert "Pixels" not in capsys.readouterr().out
    assert (tmp_path / "without/examples.png").exists()


@pytest.mark.parametrize(("column", "behind"), [("group", ", {}"), ("location", ", location {}")])
def test_groups_and_locations_are_scored_apart(tmp_path, evaluation, cohort, tissue, capsys, column, behind):
    alone = {}
    for name, records in (("a", cohort[:2]), ("b", cohort[2:])):
        alone[name] = evaluation(tmp_path / name, records, num_examples=0).run()
        for record in records:
            record[column] = name
    # In any order of the rows.
    mixed = [cohort[index] for index in (2, 0, 3, 1)]
    found = evaluation(tmp_path / "e", mixed).run()
    whole, _ = reference(tmp_path / "e", mixed, tissue)
    for kind in ("slides", "pixels_tissue", "pixels_all"):
        expected = dict(whole[kind])
        for group, metrics in alone.items():
            expected |= {name + behind.format(group): scores for name, scores in metrics[kind].items()}
        assert_same(found[kind], expected)
    assert [row[column] for row in table(tmp_path / "e")] == ["b", "a", "b", "a"]
    assert METHOD + behind.format("b") in capsys.readouterr().out


@pytest.mark.parametrize(("column", "behind"), [("group", ", a"), ("location", ", location a")])
def test_one_value_divides_slides_only_from_those_without(tmp_path, evaluation, cohort, column, behind):
    expected = evaluation(tmp_path / "e", cohort[:3], num_examples=0).run()
    assert evaluation(tmp_path / "e", [record | {column: "a"} for record in cohort[:3]], num_examples=0).run() == expected
    assert column not in table(tmp_path / "e")[0]
    alone = evaluation(tmp_path / "alone", cohort[:2], num_examples=0).run()
    divided = [*(record | {column: "a"} for record in cohort[:2]), cohort[2]]
    found = evaluation(tmp_path / "e", divided, num_examples=0).run()
    assert [row[column] for row in table(tmp_path / "e")] == ["a", "a", ""]
    for kind in ("slides", "pixels_tissue", "pixels_all"):
        assert_same(found[kind], expected[kind] | {name + behind: scores for name, scores in alone[kind].items()})


def test_normal_slides_count_as_zero(tmp_path, evaluation, cohort, tissue, paint_finder):
    """The scores are those of the tumour slides' pixels and of normal ones that are all 0; slides keep their own scores."""
    network = PaintOrGlass(paint_finder(), 3.0)
    plain = evaluation(tmp_path / "e", cohort, network, num_examples=0).run()
    zeroed = evaluation(tmp_path / "e", cohort, network, num_examples=0, normal_is_zero=True).run()
    assert zeroed["slides"] == plain["slides"]
    truths, values = [], []
    for record in cohort:
        name = record["image"].split("/")[-1].removesuffix(".tif")
        of_map = tifffile.imread(tmp_path / f"e/maps/{name}.ome.tif", key=0) * (record["label"] > 0)
        truth, is_tissue = at_map_pixels(record, of_map.shape, tissue)
        truths.append(truth[is_tissue])
        values.append(of_map[is_tissue])
    truth, value = np.concatenate(truths), np.concatenate(values)
    found = zeroed["pixels_tissue"][METHOD]
    assert found["auc"] == pytest.approx(roc_auc_score(truth, value))
    assert found["precision"] == pytest.approx(precision_score(truth, value >= 255 * THRESHOLD))
    assert found["specificity"] > plain["pixels_tissue"][METHOD]["specificity"]


def test_masks_of_some_slides(tmp_path, evaluation, cohort, tissue):
    with_masks = evaluation(tmp_path / "with", [cohort[0], cohort[1], cohort[3]], num_examples=0).run()
    labels = evaluation(tmp_path / "labels", cohort, num_examples=0, truth=None).run()["slides"]
    for index in (1, 2, 3):
        cohort[index]["mask"] = None
    # Asked for masks, it does without any.
    assert "pixels_all" not in evaluation(tmp_path / "e", cohort, num_examples=0).run()
    found = evaluation(tmp_path / "e", cohort, num_examples=4, truth="masks_where_given").run()
    assert found["slides"] == labels
    assert (found["num_slides"], found["num_slides_scored_by_pixel"]) == (4, 3)
    for kind in ("pixels_tissue", "pixels_all"):
        assert_same(found[kind], with_masks[kind])
    rows = table(tmp_path / "e")
    assert (rows[2]["tp"], rows[2]["auc"]) == ("", "")
    assert rows[0]["tp"] == table(tmp_path / "with")[0]["tp"]
    # A group without any truth has its slides' labels alone.
    for index, record in enumerate(cohort):
        record["group"] = "b" if index == 2 else "a"
    found = evaluation(tmp_path / "e", cohort, num_examples=0, truth="masks_where_given").run()
    assert list(found["slides"]) == [METHOD, f"{METHOD}, a", f"{METHOD}, b"]
    assert list(found["pixels_all"]) == [METHOD, "Everything is tumour", f"{METHOD}, a", "Everything is tumour, a"]
    cohort[0]["mask"] = None
    found = evaluation(tmp_path / "e", cohort, num_examples=0, truth="masks_where_given").run()
    assert not {"pixels_all", "num_slides_scored_by_pixel"} & set(found)


def test_slides_with_mask_files_alone(tmp_path, evaluation, cohort):
    """Normal slides without a file are in no sum of pixels; the labels of all are scored."""
    labels = evaluation(tmp_path / "labels", cohort, num_examples=0, truth=None).run()["slides"]
    chosen = [index for index, record in enumerate(cohort) if record["label"] > 0]
    expected = evaluation(tmp_path / "some", [cohort[index] for index in chosen], num_examples=0).run()
    for index, record in enumerate(cohort):
        record["mask"] = record["mask"] if index in chosen else None
    found = evaluation(tmp_path / "e", cohort, num_examples=0, truth="masks_only").run()
    assert found["slides"] == labels
    assert found["num_slides_scored_by_pixel"] == len(chosen) < len(cohort)
    for kind in ("pixels_tissue", "pixels_all"):
        assert_same(found[kind], expected[kind])


def test_maps_and_scores_have_one_tissue(tmp_path, evaluation, cohort):
    with pytest.raises(ValueError, match="made where 'white' finds tissue, but would be scored where 'otsu' does"):
        evaluation(tmp_path / "run", cohort, tissue_method="white")
    evaluation(tmp_path / "run", cohort, tissue_method="white", tissue_only=False)


def test_unknown_truth(tmp_path, evaluation, cohort):
    with pytest.raises(ValueError, match="one of mask, masks_where_given, masks_only or None, got 'masks'"):
        evaluation(tmp_path, cohort, truth="masks")


def test_no_split_and_no_mask_column(tmp_path, evaluation, cohort):
    bare = [{"image": record["image"], "label": record["label"], "mpp": None, "row": 2} for record in cohort]
    assert evaluation(tmp_path / "e", bare).run()["slides"][METHOD]["auc"] == 1.0


def test_one_class_has_no_auc(tmp_path, evaluation, cohort):
    normal = [record for record in cohort if record["label"] == 0]
    found = evaluation(tmp_path / "e", normal).run()
    assert found["slides"][METHOD]["auc"] is None
    for part in ("pixels_tissue", "pixels_all"):
        assert (found[part][METHOD]["auc"], found[part][METHOD]["mean_slide_auc"]) == (None, None)
        assert found[part][METHOD]["specificity"] > 0.9


def test_two_processes_find_what_one_does(tmp_path, evaluation, cohort):
    expected = evaluation(tmp_path / "one", cohort[:3]).run()

    def work(number):
        assert evaluation(tmp_path / "two", cohort[:3]).run() == expected

    in_processes(work)
    assert (tmp_path / "two/slides.csv").read_bytes() == (tmp_path / "one/slides.csv").read_bytes()
    assert (tmp_path / "two/examples.png").exists()


def test_a_mask_that_does_not_fit_is_named(tmp_path, evaluation, cohort):
    Image.fromarray(np.zeros((99, 100), np.uint8)).save(tmp_path / "wrong.png")
    cohort[2]["mask"] = str(tmp_path / "wrong.png")
    with pytest.raises(ValueError, match=r"wrong\.png is 100 x 99 px, \S*slide_02\.tif 773 x 630 px"):
        evaluation(tmp_path / "e", cohort).run()
