"""`scripts/evaluate.py` as a user starts it, on maps that were made before."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from torch import nn

from scripts import evaluate
from scripts.evaluation.finished_maps import tissue_of
from shared.inference import Compute, SlideMapper, Tiles

ROOT = Path(__file__).resolve().parents[2]


class Redness(nn.Module):
    def forward(self, images):
        return (images[:, :1] - images[:, 1:2] - 140) / 3


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """A tumour slide whose map is right, a normal one and one without tissue."""
    folder = tmp_path_factory.mktemp("cohort")
    for name in ("tumour", "normal", "empty"):
        rgb = np.full((800, 1000, 3), 250, np.uint8)
        mask = np.zeros((800, 1000), np.uint8)
        if name != "empty":
            rgb[80:720, 80:920] = (200, 120, 180)
        if name == "tumour":
            rgb[200:600, 400:800] = (220, 20, 60)
            mask[200:600, 400:800] = 1
        options = {"tile": (256, 256), "compression": "zlib", "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(folder / f"{name}.tif", rgb, photometric="rgb", metadata=None, **options)
        Image.fromarray(mask * 255).save(folder / f"{name}.png")
    (folder / "slides.csv").write_text(
        "image,label,mask,split\ntumour.tif,1,tumour.png,test\nnormal.tif,0,,test\nempty.tif,0,empty.png,train\n"
    )
    mapper = SlideMapper(
        Redness(), threshold=0.4, tiles=Tiles(tile_size_px=256, margin_px=0), compute=Compute(amp=False, device="cpu")
    )
    mapper.run(folder / "slides.csv", folder / "maps")
    return folder / "slides.csv"


@pytest.fixture
def start(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
        evaluate.main()
        return capsys.readouterr().out

    return run


def test_maps_are_scored(run_python, manifest, tmp_path):
    maps = manifest.parent / "maps"
    process = run_python("scripts/evaluate.py", "--maps", maps, "--manifest", manifest, "--out", tmp_path)
    assert process.returncode == 0, process.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for part in ("pixels_tissue", "pixels_all"):
        assert {name: metrics[part][name] for name in ("auc", "f1", "iou")} == {"auc": 1.0, "f1": 1.0, "iou": 1.0}
    assert metrics["slides"]["auc"] == 1.0
    assert metrics["threshold"] == 0.4
    assert metrics["lesions"]["num_lesions"] == 1
    with (tmp_path / "slides.csv").open(newline="") as file:
        rows = {row["slide"]: row for row in csv.DictReader(file)}
    assert [rows[name]["tp"] for name in ("tumour", "normal", "empty")] == ["10000", "0", "0"]
    lines = process.stdout.splitlines()
    assert lines[1].split() == ["tissue", "only", *["100.0"] * 8]
    assert lines[-1] == "3 slides, threshold 0.4"
    # The table of the maps is not the table of the scores.
    assert "fingerprint" in (maps / "slides.csv").read_text()


def test_isolated_tumour_cells_are_named(manifest, tmp_path, start):
    """A lesion of 40 um more, found; it counts neither way, and the table says so."""
    with Image.open(manifest.with_name("tumour.png")) as image:
        mask = np.array(image)
    mask[620:700, 120:200] = 255
    Image.fromarray(mask).save(manifest.with_name("with_cells.png"))
    more = manifest.with_name("cells.csv")
    more.write_text("image,label,mask\ntumour.tif,1,with_cells.png\n")
    printed = start("--maps", manifest.parent / "maps", "--manifest", more, "--out", tmp_path)
    assert "1 lesions, FROC (%)                        100.0" in printed
    assert "  1 of isolated tumour cells (below 200 um) are not counted\n" in printed
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["lesions"]["num_isolated"] == 1
    # Of a single slide the mean of slides is the pooled score.
    for part in ("pixels_tissue", "pixels_all"):
        assert metrics[part]["mean_slide_iou"] == pytest.approx(metrics[part]["iou"])
        assert metrics[part]["mean_slide_auc"] == pytest.approx(metrics[part]["auc"])
    header, *lines = printed[printed.index("Pixels (%)") :].splitlines()[:3]
    assert header.endswith("IoU  AUC, per slide  IoU, per slide")
    assert {len(line) for line in lines} == {len(header)}


def test_tissue_is_that_of_the_maps(tmp_path):
    used, own, given = tmp_path / "used", tmp_path / "own", tmp_path / "given"
    settings = {"tissue_method": "white", "tissue_mpp": 4.0, "tissue_dir": str(used)}
    found = tissue_of(settings, None, own)
    assert (found.folder, found.method, found.mpp) == (own, "white", 4.0)
    used.mkdir()
    given.mkdir()
    assert tissue_of(settings, None, own).folder == used
    assert tissue_of(settings, given, own).folder == given
    # Found on the overview, or by an earlier version.
    for settings in ({"tissue_method": "hsv", "tissue_mpp": None, "tissue_dir": None}, {}):
        found = tissue_of(settings, None, own)
        assert (found.folder, found.method, found.mpp) == (own, settings.get("tissue_method", "otsu"), 8.0)


def test_maps_of_two_networks_are_warned_of(manifest, tmp_path, start, caplog):
    """The folder's settings are those of its last run, which mapped one of three slides."""
    folder = manifest.parent
    options = {"tiles": Tiles(tile_size_px=256, margin_px=0), "compute": Compute(amp=False, device="cpu")}
    SlideMapper(Redness(), threshold=0.4, **options).run(manifest, tmp_path / "maps")
    start("--maps", tmp_path / "maps", "--manifest", manifest)
    assert not caplog.messages
    SlideMapper(Redness(), threshold=0.6, **options).run(folder / "normal.tif", tmp_path / "maps")
    caplog.clear()
    start("--maps", tmp_path / "maps", "--manifest", manifest)
    (said,) = caplog.messages
    assert said.startswith(
        f"{tmp_path / 'maps'}: 2 maps, such as tumour, were made with other settings than those in settings.json"
    )


def test_lesions_are_found_where_maps_call_little_tumour(manifest, tmp_path, start):
    """A probability of 0.3 is tumour at a threshold of 0.2, in pixels and in lesions."""
    bias = nn.Sequential(Redness(), nn.Hardtanh(-5, -0.8))
    options = {"tiles": Tiles(tile_size_px=256, margin_px=0), "compute": Compute(amp=False, device="cpu")}
    SlideMapper(bias, threshold=0.2, **options).run(manifest, tmp_path / "maps")
    start("--maps", tmp_path / "maps", "--manifest", manifest, "--out", tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["pixels_tissue"]["iou"], metrics["lesions"]["froc"]) == (1.0, 1.0)


def test_a_split_and_its_default_folder(manifest, start):
    printed = start("--maps", manifest.parent / "maps", "--manifest", manifest, "--split", "test", "--threshold", 0.5)
    assert "2 slides, threshold 0.5" in printed
    assert json.loads((manifest.parent / "maps" / "evaluation" / "metrics.json").read_text())["num_slides"] == 2


def outline(name, left, top, right, bottom):
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    classification = {"classification": {"name": name}} if name else {}
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": classification}


@pytest.mark.parametrize(
    ("other", "found", "classes"),
    [("Stroma", r"Stroma \(1\), Tumor \(1\)", ["tumor"]), (None, r"Unclassified \(1\), Tumor \(1\)", ["Tumor", "Metastasis"])],
)
def test_annotations_of_several_classes_need_the_tumours_named(manifest, start, tmp_path, other, found, classes):
    """A right map scores 100 %, where all that is annotated would have been tumour, or nothing at all."""
    features = [outline(other, 100, 100, 380, 700), outline("Tumor", 400, 200, 800, 600)]
    (tmp_path / "tumour.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    table = tmp_path / "slides.csv"
    table.write_text(f"image,label,mask\n{manifest.parent / 'tumour.tif'},1,tumour.geojson\n")
    options = ["--maps", manifest.parent / "maps", "--manifest", table, "--out", tmp_path / "out"]
    with pytest.raises(SystemExit, match=rf"slides\.csv, row 2, .*tumour\.geojson: .*found {found}.*tumour_classes"):
        start(*options)
    start(*options, "--tumour_classes", *classes)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["pixels_all"]["iou"] == 1.0
    with pytest.raises(SystemExit, match=rf"'Tumour' \(tumour_classes\), found {found}"):
        start(*options, "--tumour_classes", "Tumour")


def test_slides_that_are_not_mapped(manifest, start, tmp_path):
    more = manifest.with_name("more.csv")
    more.write_text("image,label,mask\ntumour.tif,1,tumour.png\nother.tif,0,\nunknown.tif,1,\n")
    for name in ("other", "unknown"):
        manifest.with_name(f"{name}.tif").write_bytes(b"")
    options = ["--maps", manifest.parent / "maps", "--manifest", more, "--out", tmp_path / "out"]
    with pytest.raises(SystemExit, match=r"1 of 2 slides have no finished map in .*other\.tif \(not begun\)"):
        start(*options)
    printed = start(*options, "--allow_missing")
    assert printed.splitlines()[-1] == (
        "1 slides, threshold 0.4; 1 left out without a finished map; 1 left out without mask or label 0"
    )


@pytest.mark.parametrize("compares", [False, True])
def test_a_folder_of_tissue_that_is_not_there(manifest, start, tmp_path, compares):
    """A mistyped name: edited masks in the right folder would go unused."""
    options = ["--maps", manifest.parent / "maps", "--manifest", manifest, "--out", tmp_path / "out"]
    options += ["--compare_with", manifest.parent] if compares else []
    with pytest.raises(SystemExit, match=r"tisue: expected a folder of tissue masks, found none of this name"):
        start(*options, "--tissue", tmp_path / "tisue")
    assert not list(tmp_path.iterdir())


def test_maps_that_do_not_tell_their_threshold(manifest, start, tmp_path):
    with pytest.raises(SystemExit, match=rf"{tmp_path}: expected maps and their table slides\.csv, .*; found no maps"):
        start("--maps", tmp_path, "--manifest", manifest)
    with pytest.raises(SystemExit, match=r"none: expected maps and their table .*; found no such folder"):
        start("--maps", tmp_path / "none", "--manifest", manifest)
    with pytest.raises(
        SystemExit, match=r"no row with split 'tset'; its splits are 'train' \(1 rows\), 'test' \(2 rows\): add some"
    ):
        start("--maps", manifest.parent / "maps", "--manifest", manifest, "--split", "tset", "--out", tmp_path)
    (tmp_path / "slides.csv").write_text("slide,status\n")
    with pytest.raises(SystemExit, match=r"settings\.json does not state .*: give --threshold"):
        start("--maps", tmp_path, "--manifest", manifest)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--compare_threshold", 0.3), "give their folder with --compare_with"),
        (("--compare_with", "theirs", "--froc_mpp", 8), "--froc_mpp is for lesions"),
    ],
)
def test_options_that_would_do_nothing_are_refused(start, manifest, options, problem, capsys):
    with pytest.raises(SystemExit):
        start("--maps", manifest.parent / "maps", "--manifest", manifest, *options)
    assert problem in capsys.readouterr().err


def test_maps_are_compared_with_pictures(start, manifest, tmp_path):
    """Black-and-white pictures of the truth are as right as the maps are."""
    (tmp_path / "theirs").mkdir()
    for name in ("tumour", "empty"):
        with Image.open(manifest.parent / f"{name}.png") as mask:
            mask.convert("1").save(tmp_path / f"theirs/{name}.png")
    options = ("--maps", manifest.parent / "maps", "--manifest", manifest, "--out", tmp_path / "out", "--compare_with")
    with pytest.raises(SystemExit, match=r"1 of 3 slides lack a finished map .* or one in .*theirs, such as .*normal\.tif"):
        start(*options, tmp_path / "theirs")
    printed = start(*options, tmp_path / "theirs", "--allow_missing")
    metrics = json.loads((tmp_path / "out/comparison.json").read_text())
    assert metrics["agreement"]["iou"] == 1.0
    assert metrics["pixels_tissue"]["theirs"]["iou"] == 1.0
    assert (
        printed.splitlines()[-1] == "2 slides, 2 of them with a truth; thresholds: ours 0.4, theirs 0.5; 1 left out without a map"
    )
    with (tmp_path / "out/compared_slides.csv").open(newline="") as file:
        assert [row["slide"] for row in csv.DictReader(file)] == ["tumour", "empty"]


@pytest.mark.parametrize("is_of_maps", [False, True])
def test_scores_replace_neither_the_manifest_nor_the_table_of_the_maps(manifest, start, is_of_maps):
    file = manifest.parent / "maps/slides.csv" if is_of_maps else manifest
    before = file.read_bytes()
    with pytest.raises(SystemExit, match=r"error: .*slides\.csv is a file to read, and slides\.csv.*Give another output folder"):
        start("--maps", manifest.parent / "maps", "--manifest", manifest, "--out", file.parent)
    assert file.read_bytes() == before
