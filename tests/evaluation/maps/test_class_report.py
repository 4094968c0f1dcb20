"""Scores of maps of several classes against scikit-learn and loops on all pixels at once."""

import json

import numpy as np
import pytest
import shapely
import tifffile
import torch
from PIL import Image
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
    roc_auc_score,
)
from torch import nn

from shared.data import TissueCache, load_manifest
from shared.evaluation.maps.cohort import MapCohort
from shared.evaluation.maps.report import class_map_report
from shared.inference import Compute, SlideMapper, Tiles
from shared.writers import write_rows
from tests.evaluation.test_class_evaluation import bach_score_by_loop

NAMES = ["normal", "benign", "in situ", "invasive"]
# No multiple of a map pixel, which is 4 pixels wide: the middle of the last one lies beyond the slide.
HEIGHT, WIDTH = 509, 701
GLASS, COLOURS = (255, 255, 255), [(200, 120, 180), (120, 60, 160), (150, 20, 110), (220, 20, 60)]
# Level-0 boxes (top, left, height, width) of classes; in the middle of the first one there is none.
AREAS = {"a": [(1, 64, 64, 200, 240), (0, 120, 120, 60, 60), (3, 320, 380, 120, 240)], "b": [(2, 240, 60, 200, 320)], "c": []}
HOLE = (90, 420, 190, 190)


class Nearest(nn.Module):
    """Logits fall with the squared distance to each class's colour; glass looks like the last class."""

    def forward(self, images):
        colours = torch.tensor([*COLOURS, GLASS], dtype=torch.float32)[None, :, :, None, None]
        distance = (images[:, None] - colours).square().sum(dim=2)
        return -torch.cat([distance[:, :3], distance[:, 3:].amin(dim=1, keepdim=True)], dim=1) / 4000


def box_of(top, left, height, width):
    return slice(top, top + height), slice(left, left + width)


def truth_of(name):
    truth = np.zeros((HEIGHT, WIDTH), np.uint8)
    for index, *area in AREAS[name]:
        truth[box_of(*area)] = index
    return truth


def write_slide(path, truth, seed):
    """Blotched colours, so that no class is found everywhere, on tissue with a hole."""
    rng = np.random.default_rng(seed)
    noise = np.kron(rng.normal(0, 25, (HEIGHT // 10 + 1, WIDTH // 10 + 1, 3)), np.ones((10, 10, 1)))[:HEIGHT, :WIDTH]
    rgb = np.full((HEIGHT, WIDTH, 3), GLASS, np.uint8)
    tissue = np.zeros(truth.shape, bool)
    tissue[40:-60, 30:-30] = True
    tissue[box_of(*HOLE)] = False
    rgb[tissue] = (np.array(COLOURS)[truth] + noise).clip(0, 230)[tissue]
    options = {"tile": (256, 256), "compression": "zlib", "photometric": "rgb", "metadata": None}
    tifffile.imwrite(path, rgb, resolution=(2e4, 2e4), resolutionunit="CENTIMETER", **options)


def write_annotations(path, areas):
    """As QuPath exports them, under names in another case."""
    features = []
    for index, top, left, height, width in areas:
        geometry = json.loads(shapely.to_geojson(shapely.box(left, top, left + width, top + height)))
        properties = {"classification": {"name": NAMES[index].upper()}}
        features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Three slides - mask, annotations, normal - with their maps, and a slide without a map."""
    folder = tmp_path_factory.mktemp("cohort")
    for index, name in enumerate(AREAS):
        write_slide(folder / f"{name}.tif", truth_of(name), index)
    Image.fromarray(truth_of("a")).save(folder / "a.png")
    write_annotations(folder / "b.geojson", AREAS["b"])
    rows = ["image,label,mask", "a.tif,3,a.png", "b.tif,2,b.geojson", "c.tif,0,"]
    (folder / "slides.csv").write_text("\n".join(rows) + "\n")
    mapper = SlideMapper(
        Nearest(), class_names=NAMES, tiles=Tiles(tile_size_px=64, margin_px=0), compute=Compute(amp=False, device="cpu")
    )
    mapper.run(folder / "slides.csv", folder / "maps")
    (folder / "d.tif").write_bytes(b"")
    return folder


def records_of(folder):
    return load_manifest(folder / "slides.csv", require=(), num_classes=4)


def cohort_of(folder, records, class_names=NAMES, **options):
    return MapCohort(folder / "maps", records, TissueCache(folder / "tissue"), class_names, **options)


def report_of(folder, records, class_names=NAMES):
    return class_map_report(cohort_of(folder, records, class_names), "Nearest")


def pixels_of(cohort, name):
    """Predicted class, truth, 1 - P(normal) in 255ths and tissue of a map's pixels, each 4 level-0 pixels wide."""
    probabilities = tifffile.imread(cohort / "maps" / f"{name}.ome.tif")
    shape = probabilities.shape[1:]
    # Beyond the slide nothing is annotated.
    truth = np.pad(truth_of(name), ((0, 3), (0, 3)))[2::4, 2::4][: shape[0], : shape[1]]
    tissue = TissueCache(cohort / "tissue").get(cohort / f"{name}.tif", 0.5)
    at = [
        ((np.arange(length) + 0.5) * 4 / tissue.pixel_px).astype(int).clip(max=limit - 1)
        for length, limit in zip(shape, tissue.mask.shape, strict=True)
    ]
    tumour = np.where(probabilities.max(axis=0) > 0, 255 - probabilities[0].astype(int), 0)
    return probabilities.argmax(axis=0), truth, tumour, tissue.mask[np.ix_(*at)]


def pooled_pixels(cohort, names="abc"):
    pixels = [[part.ravel() for part in pixels_of(cohort, name)] for name in names]
    return [np.concatenate(parts) for parts in zip(*pixels, strict=True)]


@pytest.fixture(scope="module")
def scored(cohort):
    # Many strips a slide, the last one lower than the others.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shared.evaluation.maps.scoring_grid._STRIP_GRID_PX", 3000)
        return report_of(cohort, records_of(cohort))


@pytest.mark.parametrize(
    ("part", "kind", "matrix"), [("tissue", "class_pixels", "confusion"), ("all", "class_pixels_all", "confusion_all")]
)
def test_pixels_are_scored_as_by_another_library(cohort, scored, part, kind, matrix):
    predicted, truth, tumour, is_tissue = pooled_pixels(cohort)
    assert (predicted[~is_tissue] > 0).any(), "the maps say nothing of the glass"
    assert (predicted == truth)[is_tissue].mean() < 0.99
    predicted, tumour = np.where(is_tissue, predicted, 0), np.where(is_tissue, tumour, 0)
    kept = is_tissue if part == "tissue" else np.ones_like(is_tissue)
    predicted, truth, tumour = predicted[kept], truth[kept], tumour[kept]
    metrics, _ = scored
    assert metrics[matrix] == confusion_matrix(truth, predicted, labels=range(4)).tolist()
    assert list(metrics[kind]) == ["Nearest", "Everything is normal"]
    for name, answer in (("Nearest", predicted), ("Everything is normal", np.zeros_like(predicted))):
        assert metrics[kind][name] == pytest.approx(
            {
                "accuracy": accuracy_score(truth, answer),
                "foreground_accuracy": accuracy_score(truth[truth > 0], answer[truth > 0]),
                "macro_f1": f1_score(truth, answer, average="macro"),
                "micro_f1": f1_score(truth, answer, average="micro"),
                "weighted_f1": f1_score(truth, answer, average="weighted"),
                "mean_iou": jaccard_score(truth, answer, average="macro"),
                "released_iou": jaccard_score(truth, answer, average=None)[1:].mean(),
                "bach_score": bach_score_by_loop(truth, answer),
            }
        )
    assert metrics[f"pixels_{part}"]["auc"] == pytest.approx(roc_auc_score(truth > 0, tumour))
    assert 0.6 < metrics[f"pixels_{part}"]["auc"] < 0.999
    assert metrics[f"pixels_{part}"]["f1"] == pytest.approx(f1_score(truth > 0, predicted > 0))


def test_means_of_slides(scored):
    metrics, rows = scored
    found = metrics["class_pixels_of_slides"]["Nearest"]
    for name in ("accuracy", "macro_f1", "bach_score"):
        assert found[name] == pytest.approx(np.mean([row[name] for row in rows]), abs=1e-6)
    for name in NAMES[1:]:
        of_slides = [row[f"f1_{name}"] for row in rows if row[f"f1_{name}"] is not None]
        assert found[f"f1 {name}"] == pytest.approx(np.mean(of_slides), abs=1e-6)
    assert metrics["class_pixels_all_of_slides"]["Nearest"]["accuracy"] > found["accuracy"]


def test_each_class_and_each_slide(cohort, scored):
    metrics, rows = scored
    predicted, truth, _, is_tissue = pooled_pixels(cohort)
    predicted, truth = predicted[is_tissue], truth[is_tissue]
    scorers = {"f1": f1_score, "iou": jaccard_score, "precision": precision_score, "recall": recall_score}
    for name, scorer in scorers.items():
        each = scorer(truth, predicted, average=None)
        assert [metrics["classes"][label][name] for label in NAMES] == pytest.approx(each)
    assert (metrics["num_slides"], metrics["class_names"], metrics["classes_without_truth"]) == (3, NAMES, [])
    assert [(row["slide"], row["label"]) for row in rows] == [("a", 3), ("b", 2), ("c", 0)]
    for row in rows:
        predicted, truth, tumour, is_tissue = pixels_of(cohort, row["slide"])
        predicted, truth, tumour = predicted[is_tissue], truth[is_tissue], tumour[is_tissue]
        assert row["confusion"] == confusion_matrix(truth, predicted, labels=range(4)).tolist()
        assert row["num_pixels"] == len(truth)
        assert row["accuracy"] == pytest.approx((truth == predicted).mean(), abs=1e-6)
        assert row["bach_score"] == pytest.approx(bach_score_by_loop(truth, predicted), abs=1e-6)
        for index, name in enumerate(NAMES):
            assert row[f"true_share_{name}"] == pytest.approx((truth == index).mean(), abs=1e-6)
            assert row[f"predicted_share_{name}"] == pytest.approx((predicted == index).mean(), abs=1e-6)
            assert row[f"f1_{name}"] == pytest.approx(f1_score(truth == index, predicted == index))
        if row["label"]:
            assert row["tissue_auc"] == pytest.approx(roc_auc_score(truth > 0, tumour))
    assert (rows[2]["tissue_auc"], rows[2]["auc"]) == (None, None), "without a lesion there is nothing to rank"


def test_a_slide_without_tissue_counts_nothing_in_it(tmp_path):
    """The means over slides leave it out, and no score is made of nothing."""
    rgb = np.full((300, 400, 3), 255, np.uint8)
    tifffile.imwrite(
        tmp_path / "e.tif", rgb, tile=(256, 256), photometric="rgb", resolution=(2e4, 2e4), resolutionunit="CENTIMETER"
    )
    (tmp_path / "slides.csv").write_text("image,label\ne.tif,0\n")
    SlideMapper(Nearest(), class_names=NAMES, compute=Compute(amp=False, device="cpu")).run(
        tmp_path / "slides.csv", tmp_path / "maps"
    )
    metrics, rows = report_of(tmp_path, records_of(tmp_path))
    assert (rows[0]["num_pixels"], metrics["confusion_all"][0][0]) == (0, 75 * 100)
    assert metrics["class_pixels"]["Nearest"]["accuracy"] is None
    assert metrics["classes"]["normal"] == dict.fromkeys(metrics["classes"]["normal"])
    assert metrics["classes_without_truth"] == NAMES[1:]


def with_mask(cohort, mask, row=0):
    return [{**records_of(cohort)[row], "mask": str(mask)}]


def test_masks_that_are_of_other_classes(cohort, tmp_path):
    Image.fromarray(truth_of("a") * np.uint8(85)).save(tmp_path / "binary.png")
    classes = r"with 4 classes .* its class index, 0\.\.3; the maps have the classes 0 normal, 1 benign, 2 in situ, 3 inv"
    with pytest.raises(
        ValueError, match=rf"slides\.csv, row 2, .*a\.tif: the mask .*binary\.png has a pixel of value 85: {classes}"
    ):
        report_of(cohort, with_mask(cohort, tmp_path / "binary.png"))
    # A tiled mask is read where it is scored: the index that is none stands in the last tile.
    truth = truth_of("b")
    truth[-9:, -9:] = 4
    tifffile.imwrite(tmp_path / "tiled.tif", truth, tile=(64, 64), compression="zlib")
    with pytest.raises(
        ValueError, match=rf"slides\.csv, row 3, .*b\.tif: the mask .*tiled\.tif has a pixel of value 4: {classes}"
    ):
        report_of(cohort, with_mask(cohort, tmp_path / "tiled.tif", row=1))
    write_annotations(tmp_path / "a.geojson", AREAS["a"])
    other = ["normal", "benign", "necrosis", "invasive"]
    cohort_of(cohort, with_mask(cohort, tmp_path / "a.geojson"), other).check_masks()
    write_annotations(tmp_path / "b.geojson", AREAS["b"])
    wanted = (
        r"row 3, .*the annotations .*b\.geojson: .* has the class 'IN SITU', expected one of 'normal', 'benign', 'necrosis', 'inv"
    )
    with pytest.raises(ValueError, match=wanted):
        report_of(cohort, with_mask(cohort, tmp_path / "b.geojson", row=1), other)


def test_maps_that_cannot_be_scored(cohort, tmp_path):
    records = records_of(cohort)
    unknown = {**records[0], "image": str(cohort / "d.tif")}
    with pytest.raises(ValueError, match=r"1 of 4 slides have no finished map in .*d\.tif \(not begun\)"):
        cohort_of(cohort, [*records, unknown])
    kept = cohort_of(cohort, [*records, unknown, {**records[1], "mask": None}], allow_missing=True)
    assert (len(kept.records), kept.num_missing, kept.num_without_truth) == (3, 1, 1)
    with pytest.raises(ValueError, match=r"row 4, .*c\.tif: the map .*c\.ome\.tif was expected to hold 3 tiled .*; found 4"):
        report_of(cohort, records[2:], NAMES[:3])
    with pytest.raises(ValueError, match="need three classes or more"):
        report_of(cohort, records, ["normal", "tumour"])
    write_rows(tmp_path / "maps" / "slides.csv", [{"slide": "a", "status": "failed"}])
    with pytest.raises(ValueError, match=r"1 of 1 slides have no finished map in .*a\.tif \(failed\)"):
        cohort_of(tmp_path, records[:1])
