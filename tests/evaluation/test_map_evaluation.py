"""Maps of small painted slides by a network that knows the paint; everything again in NumPy and scikit-learn."""

import json
import shutil

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from tests.engines.conftest import in_processes

from .map_reference import METHOD, PaintOrGlass, assert_same, reference, table


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


def test_maps_and_scores_have_one_tissue(tmp_path, evaluation, cohort):
    with pytest.raises(ValueError, match="made where 'white' finds tissue, but would be scored where 'otsu' does"):
        evaluation(tmp_path / "run", cohort, tissue_method="white")
    evaluation(tmp_path / "run", cohort, tissue_method="white", tissue_only=False)


def test_one_class_has_no_auc(tmp_path, evaluation, cohort):
    normal = [record for record in cohort if record["label"] == 0]
    found = evaluation(tmp_path / "e", normal).run()
    assert found["slides"][METHOD]["auc"] is None
    for part in ("pixels_tissue", "pixels_all"):
        assert [found[part][METHOD][name] for name in ("auc", "mean_slide_auc", "mean_slide_iou")] == [None] * 3
        assert found[part][METHOD]["specificity"] > 0.9
        assert found[part]["Everything is tumour"]["mean_slide_auc"] is None


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
