"""Heads that lie in the repository: small, with a card of their own numbers, and as good on real tissue as the card says."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image

from scripts.packing.contents import shipped_heads
from scripts.shipping.data_terms import data_terms
from scripts.shipping.finished_run import FinishedRun
from scripts.shipping.scores import scores_of_test_images
from scripts.shipping.slides import slide_scores
from shared.calibration.carried_threshold import carried_threshold
from shared.data import TissueCache, load_manifest
from shared.evaluation.maps.cohort import MapCohort
from shared.evaluation.maps.counts import least_value
from shared.evaluation.maps.report import tumour_map_report
from shared.inference import ImageInput
from shared.inference.bundle_mapper import load_slide_mapper
from tests.bundles.runs import REPOSITORY

HEADS = [head for bundle in sorted(REPOSITORY.glob("bundles/*")) for head in shipped_heads(bundle)]
REAL = os.environ.get("WSI_TEST_DATA")
COUNTS = ["tp", "fp", "fn", "tn"]
# Attention is a network of its own; what else is shipped is linear, or nearly.
LARGEST_BYTES = {"attention_mil": 1_500_000}
# Where the data of heads lie that learned from whole slides.
SLIDES = {"ebhi_mosaics": "case_mosaics"}

OF_IMAGES = [head for head in HEADS if (head / "test_images.csv").is_file()]
OF_SLIDES = [head for head in HEADS if (head / "test_slides.csv").is_file()]


def each(heads):
    return pytest.mark.parametrize("head", heads, ids=lambda head: f"{head.parents[1].name}/{head.name}")


each_head, each_head_of_images, each_head_of_slides = map(each, (HEADS, OF_IMAGES, OF_SLIDES))
on_real_tissue = pytest.mark.skipif(REAL is None, reason="WSI_TEST_DATA names no folder of real tissue")


def slides_of(folder, names):
    """The rows of slides, whose paths hold from any folder."""
    manifest = pd.read_csv(folder / "manifest.csv")
    rows = manifest[manifest.image.isin([f"slides/{name}" for name in names])]
    return rows.assign(image=[str(folder / name) for name in rows.image], mask=[str(folder / name) for name in rows["mask"]])


def mapper_of(head):
    return load_slide_mapper(head.parents[1], [str(head / "inference.json")], {"device": "cpu"})


@each_head
def test_a_head_is_small_and_loads_without_its_encoder(head):
    assert sum(path.stat().st_size for path in head.iterdir()) < LARGEST_BYTES.get(head.parents[1].name, 500_000)
    state = torch.load(head / "model.pt", weights_only=True)
    assert "encoder_key" in state
    assert not [name for name in state if name.startswith("encoder.")]
    overlay = json.loads((head / "inference.json").read_text())
    assert overlay["feature_stride_px"] is not None
    assert overlay["encoder_def"]["stride_px"] == "@feature_stride_px"
    if (head / "calibration.json").is_file():
        assert carried_threshold(head / "model.pt") == json.loads((head / "calibration.json").read_text())["threshold"]
    assert mapper_of(head).threshold == json.loads((head / "metrics.json").read_text())["threshold"]


@each_head
def test_the_card_names_data_licence_and_scores(head):
    text = (head / "README.md").read_text(encoding="utf-8")
    terms = data_terms(head.parents[1], head.name)
    assert f"models/{head.name}" in terms
    assert " ".join(terms.partition("\n")[2].split()) in text
    for scores in json.loads((head / "metrics.json").read_text())["pixels"].values():
        assert (
            f"{100 * scores['iou']['mean']:.1f} ({100 * scores['iou']['low']:.1f} to {100 * scores['iou']['high']:.1f})" in text
        )
    assert "not a medical device, not for diagnosis" in text


@each_head
def test_no_interval_is_a_point(head):
    assert not re.findall(r"(\d+\.\d) \(\1 to \1\)", (head / "README.md").read_text(encoding="utf-8"))
    for scores in json.loads((head / "metrics.json").read_text())["pixels"].values():
        for interval in (value for value in scores.values() if isinstance(value, dict)):
            assert interval["low"] is interval["high"] is None or interval["low"] < interval["mean"] < interval["high"]


def test_every_bundle_ships_a_head_with_the_counts_of_its_test_images_or_slides():
    assert {head.parents[1].name for head in HEADS} == {path.name for path in REPOSITORY.glob("bundles/*") if path.is_dir()}
    assert sorted(OF_IMAGES + OF_SLIDES) == sorted(HEADS)


@on_real_tissue
@each_head
def test_scores_and_intervals_are_those_of_the_counts_beside_them(head):
    folder = Path(REAL) / SLIDES.get(head.name, head.name)
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    unit = "slides" if head in OF_SLIDES else "images"
    table, known = pd.read_csv(head / f"test_{unit}.csv"), json.loads((head / "metrics.json").read_text())
    by_name = {Path(record["image"]).name: record for record in load_manifest(folder / "manifest.csv", split="test", require=())}
    means = {
        name: {key: value["mean"] if isinstance(value, dict) else value for key, value in scores.items()}
        for name, scores in known["pixels"].items()
    }
    metrics = known | {"pixels": means, "images": known["slide_labels" if unit == "slides" else "images"]}
    run = FinishedRun(head, {}, {}, metrics, table, [by_name[name] for name in table.image], unit)
    found, known = (pd.json_normalize(scores).iloc[0].to_dict() for scores in (scores_of_test_images(run), known))
    assert found == pytest.approx({name: value for name, value in known.items() if not name.startswith("slides.")}, nan_ok=True)


@on_real_tissue
@each_head_of_images
def test_test_images_score_what_the_card_says(head, tmp_path):
    folder = Path(REAL) / head.name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    table = pd.read_csv(head / "test_images.csv")
    table = table[table.label > 0].iloc[:: max(1, len(table) // 8)]
    mapper, pooled = mapper_of(head), []
    for row in table.itertuples():
        mapper.map_image(ImageInput(folder / "images" / row.image, "tile"), tmp_path)
        is_tumour = tifffile.imread(tmp_path / "tile.ome.tif", level=0) >= least_value(mapper.threshold)
        truth = np.array(Image.open(folder / "masks" / row.image)) > 0
        found = [(is_tumour & truth).sum(), (is_tumour & ~truth).sum(), (~is_tumour & truth).sum(), (~is_tumour & ~truth).sum()]
        # Maps have 256 values, and some processors compute in bfloat16.
        difference = np.abs(np.array(found) - [getattr(row, name) for name in COUNTS]).sum()
        assert difference < 0.1 * truth.size, row.image
        pooled.append(found)
    true, false, missed, _ = np.sum(pooled, axis=0)
    on_card = table[COUNTS].sum()
    assert true / (true + false + missed) == pytest.approx(on_card.tp / (on_card.tp + on_card.fp + on_card.fn), abs=0.01)


@pytest.mark.slow
@on_real_tissue
@each_head_of_slides
def test_test_slides_score_what_the_card_says(head, tmp_path):
    """A slide with tumour and one without, from their pixels; the card's maps were made from stored features."""
    folder = Path(REAL) / SLIDES[head.name]
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    table = pd.read_csv(head / "test_slides.csv")
    table = table[table.image.isin(["test_tumour_04.tif", "test_normal_07.tif"])]
    slides_of(folder, table.image).to_csv(tmp_path / "slides.csv", index=False)
    mapper = mapper_of(head)
    slide_scores(mapper, tmp_path / "slides.csv", None, tmp_path / "maps")
    cohort = MapCohort(
        tmp_path / "maps", load_manifest(tmp_path / "slides.csv", require=()), TissueCache(tmp_path / "maps/tissue")
    )
    rows = {row["slide"]: row for row in tumour_map_report(cohort, mapper.threshold)[1]}
    assert len(rows) == 2
    for on_card in table.itertuples():
        row = rows[Path(on_card.image).stem]
        # Features are stored in half precision, maps have 256 values, and some processors compute in bfloat16.
        counts = [getattr(on_card, name) for name in COUNTS]
        assert np.abs(np.array([row[name] for name in COUNTS]) - counts).sum() < 0.05 * sum(counts), on_card.image
        assert (row["tissue_auc"] is None) == np.isnan(on_card.tissue_auc)
        assert row["tissue_auc"] is None or row["tissue_auc"] == pytest.approx(on_card.tissue_auc, abs=0.02)


@pytest.mark.slow
@on_real_tissue
@each_head
def test_a_slide_scores_what_the_card_says(head, tmp_path):
    """The smallest of the slides that the card's scores are of."""
    slides = json.loads((head / "metrics.json").read_text()).get("slides")
    if slides is None:
        pytest.skip("the card has no scores of slides")
    folder = Path(REAL) / "case_mosaics"
    paths = [folder / "slides" / f"{name}.tif" for name in slides["each"] if (folder / "slides" / f"{name}.tif").is_file()]
    with_tumour = [path for path in paths if slides["each"][path.stem]["tissue_auc"] is not None]
    slide = min(with_tumour, key=lambda path: path.stat().st_size)
    slides_of(folder, [slide.name]).to_csv(tmp_path / "slides.csv", index=False)
    found = slide_scores(mapper_of(head), tmp_path / "slides.csv", None, tmp_path / "maps")["each"][slide.stem]
    # The card's are of one processor; others compute in bfloat16.
    assert found == pytest.approx(slides["each"][slide.stem], abs=0.03)
