"""`scripts/evaluate.py` on maps of several classes, on generated slides of four classes that were mapped before."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, f1_score
from torch import nn

from shared.data import TissueCache
from shared.inference import Compute, Outputs, SlideMapper, Tiles
from shared.synthetic import BreastPlan, write_demo
from shared.synthetic.breast_demo import BreastSlidePlan

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["normal", "benign", "in situ", "invasive"]
SLIDES = (
    BreastSlidePlan("test", (1, 2, 3), (421, 533)),
    BreastSlidePlan("test", (1,), (389, 471)),
    BreastSlidePlan("val", (), (300, 300)),
)


class Darkness(nn.Module):
    """The darker, the more severe: of four steps of the red."""

    def forward(self, images):
        steps = torch.tensor([240.0, 180.0, 160.0, 120.0])[None, :, None, None]
        return -((images[:, :1] - steps) / 15).square()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_demo(tmp_path_factory.mktemp("breast") / "demo", BreastPlan(masked={}, labelled={}, slides=SLIDES))
    mapper = SlideMapper(
        Darkness(),
        mpp=8.0,
        class_names=NAMES,
        tiles=Tiles(tile_size_px=64, margin_px=8),
        outputs=Outputs(map_downsample=1),
        compute=Compute(amp=False, device="cpu"),
    )
    mapper.run(folder / "slides.csv", folder / "maps")
    return folder


def pixels_of(folder, name):
    """Predicted and true class of a map's pixels in tissue, each 2 level-0 pixels wide."""
    predicted = tifffile.imread(folder / "maps" / f"{name}.ome.tif").argmax(0)
    mask = np.asarray(Image.open(folder / "slide_masks" / f"{name}.png"))
    truth = np.pad(mask, ((0, 1), (0, 1)))[1::2, 1::2]
    tissue = TissueCache(folder / "maps" / "evaluation" / "tissue").get(folder / "slides" / f"{name}.tif", 4.0)
    at = [
        ((np.arange(length) + 0.5) * 2 / tissue.pixel_px).astype(int).clip(max=limit - 1)
        for length, limit in zip(predicted.shape, tissue.mask.shape, strict=True)
    ]
    is_tissue = tissue.mask[np.ix_(*at)]
    return predicted[is_tissue], truth[is_tissue]


def test_maps_of_classes_are_scored(run_python, folder):
    options = ["--maps", folder / "maps", "--split", "test", "--manifest", folder / "slides.csv"]
    process = run_python(ROOT / "scripts/evaluate.py", *options, cwd=folder)
    assert process.returncode == 0, process.stderr
    out = folder / "maps" / "evaluation"
    metrics = json.loads((out / "metrics.json").read_text())
    slides = [pixels_of(folder, name) for name in ("slide_00", "slide_01")]
    predicted, truth = (np.concatenate(parts) for parts in zip(*slides, strict=True))
    assert metrics["confusion"] == confusion_matrix(truth, predicted, labels=range(4)).tolist()
    assert metrics["class_pixels"]["Darkness"]["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    with (out / "slides.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["slide"] for row in rows] == ["slide_00", "slide_01"]
    assert [json.loads(row["confusion"]) for row in rows] == [
        confusion_matrix(true, said, labels=range(4)).tolist() for said, true in slides
    ]
    lines = process.stdout.splitlines()
    of_maps = [line.split() for line in lines if line.startswith("Darkness ")]
    assert of_maps[0][2] == f"{100 * (predicted == truth).mean():.1f}"
    # The last line of a name is that of the confusion matrix.
    lines_of = {line.split("  ")[0]: line.split() for line in lines}
    shares = [f"{100 * ((truth == 2) & (predicted == index)).sum() / (truth == 2).sum():.1f}" for index in range(4)]
    assert lines_of["in situ"][2:] == [*shares, str((truth == 2).sum())]
    assert lines_of["tissue only"][2] == f"{100 * metrics['pixels_tissue']['auc']:.1f}"
    assert lines[-1] == "2 slides; tissue only, unless stated otherwise"


def test_what_is_no_truth_of_these_classes(folder, run_script, tmp_path):
    manifest = tmp_path / "slides.csv"
    options = ["--maps", folder / "maps", "--manifest", manifest, "--out", tmp_path / "out"]
    slide, normal = (folder / "slides" / f"slide_0{index}.tif" for index in (0, 2))
    manifest.write_text(f"image,label\n{normal},0\n")
    error, printed = run_script("evaluate.py", *options)
    assert (error, printed.splitlines()[-1]) == (
        "",
        "1 slides; tissue only, unless stated otherwise; no mask contains benign, in situ, invasive",
    )
    for name in ("threshold", "froc_mpp"):
        error, _ = run_script("evaluate.py", *options, f"--{name}", 0.5)
        assert f"--{name} is for maps of tumour, and those in {folder / 'maps'} have several classes" in error
    mask = np.asarray(Image.open(folder / "slide_masks" / "slide_00.png")) > 0
    Image.fromarray(mask * np.uint8(255)).save(tmp_path / "tumour.png")
    manifest.write_text(f"image,label,mask\n{slide},1,tumour.png\n")
    error, _ = run_script("evaluate.py", *options)
    assert f"{manifest}, row 2, {slide}: the mask {tmp_path / 'tumour.png'} has a pixel of value 255: with 4 classes" in error
    manifest.write_text(f"image,label,mask\n{slide},4,tumour.png\n")
    error, _ = run_script("evaluate.py", *options)
    assert f"{manifest}, row 2: label must be one of 0..3, got 4" in error
    manifest.write_text(f"image,label\n{slide},1\n")
    error, _ = run_script("evaluate.py", *options)
    assert "nothing to score: no slide has both a map in" in error
