"""Scores of maps against scikit-learn on all pixels at once, and MONAI's own FROC on files."""

import json

import numpy as np
import pytest
import shapely
import tifffile
from monai.apps.pathology.metrics import LesionFROC
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score, roc_auc_score
from torch import nn

from shared.data import TissueCache, load_manifest
from shared.evaluation.maps.cohort import MapCohort
from shared.evaluation.maps.report import tumour_map_report
from shared.inference import Compute, SlideMapper, Tiles, Tissue

HEIGHT, WIDTH = 1000, 1400
# Level-0 boxes (top, left, height, width) of tumour: 0.5 um a pixel, so 400 px are 200 um.
LESIONS = [(100, 100, 300, 500), (500, 800, 400, 500), (700, 100, 60, 60)]


class Greenness(nn.Module):
    """The less green, the likelier tumour, with all probabilities in between."""

    def forward(self, images):
        return (130 - images[:, 1:2]) / 12


def picture_of(lesions, seed):
    rng = np.random.default_rng(seed)
    rgb = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    noise = np.kron(rng.normal(0, 30, (HEIGHT // 20, WIDTH // 20)), np.ones((20, 20)))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for top, left, height, width in lesions:
        mask[top : top + height, left : left + width] = 1
    green = np.where(mask == 1, 110, 150) + noise
    tissue = np.zeros(mask.shape, bool)
    tissue[40:-40, 40:-40] = True
    rgb[tissue] = np.stack([np.full_like(green, 200), green, np.full_like(green, 170)], -1).clip(0, 220)[tissue]
    return rgb, mask


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Three slides - mask, annotations, normal - with their maps."""
    folder = tmp_path_factory.mktemp("cohort")
    rows = ["image,label,mask"]
    for index, (name, lesions) in enumerate({"a": LESIONS, "b": LESIONS[:1], "c": []}.items()):
        rgb, mask = picture_of(lesions, index)
        options = {"tile": (256, 256), "compression": "zlib", "photometric": "rgb", "metadata": None}
        tifffile.imwrite(folder / f"{name}.tif", rgb, resolution=(2e4, 2e4), resolutionunit="CENTIMETER", **options)
        np.save(folder / f"{name}.npy", mask)
        if name == "a":
            Image.fromarray(mask).save(folder / "a.png")
        if name == "b":
            boxes = [shapely.box(left, top, left + width, top + height) for top, left, height, width in lesions]
            features = [{"type": "Feature", "properties": {}, "geometry": json.loads(shapely.to_geojson(box))} for box in boxes]
            (folder / "b.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        rows.append(f"{name}.tif,{int(bool(lesions))},{ {'a': 'a.png', 'b': 'b.geojson', 'c': ''}[name] }")
    (folder / "slides.csv").write_text("\n".join(rows) + "\n")
    mapper = SlideMapper(
        Greenness(),
        tiles=Tiles(tile_size_px=256, margin_px=0),
        compute=Compute(amp=False, device="cpu"),
        tissue=Tissue(only=False),
    )
    mapper.run(folder / "slides.csv", folder / "maps")
    return folder


def report_of(cohort):
    records = load_manifest(cohort / "slides.csv", require=())
    return tumour_map_report(MapCohort(cohort / "maps", records, TissueCache(cohort / "tissue")), 0.5, froc_mpp=8.0)


def pixels_of(cohort):
    """Scores, truth and tissue of all map pixels of all slides; a map pixel is 4 level-0 pixels wide."""
    parts = []
    for name in "abc":
        probability = tifffile.imread(cohort / "maps" / f"{name}.ome.tif")
        truth = np.load(cohort / f"{name}.npy")[2::4, 2::4]
        tissue = TissueCache(cohort / "tissue").get(cohort / f"{name}.tif", 0.5)
        at = [
            ((np.arange(length) + 0.5) * 4 / tissue.pixel_px).astype(int).clip(max=limit - 1)
            for length, limit in zip(probability.shape, tissue.mask.shape, strict=True)
        ]
        parts.append([array.ravel() for array in (probability, truth, tissue.mask[np.ix_(*at)])])
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _of_slide(values, truth, kept, name):
    """Truth and map of one slide's pixels that count: slides have equally many, in the order of their names."""
    part = np.array_split(np.arange(len(values)), 3)["abc".index(name)]
    chosen = part[kept[part]]
    return truth[chosen], values[chosen]


def test_pixels_are_scored_as_by_another_library(cohort, monkeypatch):
    # Several strips a slide.
    monkeypatch.setattr("shared.evaluation.maps.scoring_grid._STRIP_AREA_PX", 200_000)
    metrics, rows = report_of(cohort)
    probability, truth, is_tissue = pixels_of(cohort)
    for part, values, kept in (
        ("tissue", probability, is_tissue),
        ("all", np.where(is_tissue, probability, 0), np.ones_like(is_tissue)),
    ):
        scores = metrics[f"pixels_{part}"]
        assert scores["auc"] == pytest.approx(roc_auc_score(truth[kept], values[kept]))
        assert 0.6 < scores["auc"] < 0.99
        assert scores["f1"] == pytest.approx(f1_score(truth[kept], values[kept] >= 128))
        assert scores["iou"] == pytest.approx(jaccard_score(truth[kept], values[kept] >= 128))
        # Slide c has no tumour.
        of_slides = [_of_slide(values, truth, kept, name) for name in "ab"]
        assert scores["mean_slide_auc"] == pytest.approx(np.mean([roc_auc_score(true, found) for true, found in of_slides]))
        overlaps = [jaccard_score(true, found >= 128) for true, found in of_slides]
        assert scores["mean_slide_iou"] == pytest.approx(np.mean(overlaps))
        assert abs(scores["mean_slide_iou"] - scores["iou"]) > 0.001
    assert [row["slide"] for row in rows] == ["a", "b", "c"]
    assert sum(row["tp"] for row in rows) == ((probability >= 128) & (truth == 1) & is_tissue).sum()
    assert metrics["slides"]["auc"] == 1.0
    assert (metrics["num_slides"], metrics["num_missing"], metrics["num_without_truth"]) == (3, 0, 0)


def test_lesions_are_scored_as_by_monai_on_files(cohort, tmp_path):
    """8 um a pixel: 4 x 4 map pixels of 2 um, 16 x 16 pixels of level 0."""
    metrics, _ = report_of(cohort)
    data = []
    for name in "abc":
        probability = tifffile.imread(cohort / "maps" / f"{name}.ome.tif").astype(np.float64)
        height, width = (-(-side // 4) for side in probability.shape)
        padded = np.full((height * 4, width * 4), np.nan)
        padded[: probability.shape[0], : probability.shape[1]] = probability
        reduced = np.nanmean(padded.reshape(height, 4, width, 4), axis=(1, 3)) / 255
        np.save(tmp_path / f"{name}.npy", reduced.astype(np.float32))
        mask = np.load(cohort / f"{name}.npy")
        rows, columns = (np.minimum(np.arange(n) * 16 + 8, side - 1) for n, side in zip((height, width), mask.shape, strict=True))
        mask = mask[np.ix_(rows, columns)]
        tifffile.imwrite(tmp_path / f"{name}.tif", np.repeat(mask[..., None], 3, -1), photometric="rgb", tile=(256, 256))
        files = {"prob_map": str(tmp_path / f"{name}.npy"), "tumor_mask": str(tmp_path / f"{name}.tif")}
        data.append({**files, "level": 0, "pixel_spacing": 8.0})
    expected = LesionFROC(data, image_reader_name="tifffile").evaluate()
    assert metrics["lesions"]["froc"] == pytest.approx(expected)
    # The third lesion of the first slide is 30 um wide: isolated tumour cells, which do not count.
    assert (metrics["lesions"]["num_lesions"], metrics["lesions"]["num_slides"]) == (3, 3)
    assert 0 < metrics["lesions"]["froc"] <= 1


def test_what_cannot_be_scored(cohort, tmp_path):
    records = load_manifest(cohort / "slides.csv", require=())
    tissue = TissueCache(tmp_path)
    with pytest.raises(ValueError, match=r"3 of 3 slides have no finished map .*a\.tif \(not begun\)"):
        MapCohort(tmp_path, records, tissue)
    unknown = {**records[0], "image": str(cohort / "z.tif")}
    with pytest.raises(ValueError, match=r"1 of 4 slides .*z\.tif \(not begun\)"):
        MapCohort(cohort / "maps", [*records, unknown], tissue)
    kept = MapCohort(cohort / "maps", [*records, unknown, {**records[1], "mask": None}], tissue, allow_missing=True)
    assert (len(kept.records), kept.num_missing, kept.num_without_truth) == (3, 1, 1)
    with pytest.raises(ValueError, match=r"slides\.csv, row 2, .*region of a slide"):
        MapCohort(cohort / "maps", [{**records[0], "x": 0}], tissue)
    # The map is of one of them, and only its folder tells which.
    twin = {**records[0], "image": str(cohort / "other/a.tif"), "row": 9}
    with pytest.raises(ValueError, match=r"slides\.csv, row 9, .*its map is also that of \S*/a\.tif \(row 2\)"):
        MapCohort(cohort / "maps", [*records, twin], tissue)
    with pytest.raises(ValueError, match="nothing to score"):
        MapCohort(cohort / "maps", [{**records[1], "mask": None}], tissue)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    bad = MapCohort(cohort / "maps", [{**records[0], "mask": str(tmp_path / "bad.png")}], tissue)
    with pytest.raises(ValueError, match=r"slides\.csv, row 2, .*bad\.png cannot be read"):
        tumour_map_report(bad, 0.5)
    for numbers in ({"threshold": 0.0}, {"threshold": 1.5}, {"threshold": 0.5, "froc_mpp": 0.0}):
        with pytest.raises(ValueError, match="need 0 < threshold <= 1 and froc_mpp > 0"):
            tumour_map_report(bad, **numbers)
