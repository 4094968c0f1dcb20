"""Both bundles of slide labels ship their heads: trained on a few slides, shipped, and mapping with the same answers."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image

from scripts.shipping.finished_run import read_run
from scripts.shipping.shipper import Request, ship
from shared.calibration.carried_threshold import carried_threshold
from shared.inference import ImageInput
from shared.inference.bundle_mapper import load_slide_mapper
from shared.synthetic import DemoPlan, SlidePlan, write_demo
from shared.synthetic.slide import write_slide
from tests.bundles.runs import Bundle

SETTINGS = {
    "alpha_beta_mil": (("features",), {"amp_dtype": "$None", "num_workers": 0, "num_epochs": 4, "tiles_per_slide": 20}),
    "attention_mil": ((), {"amp_dtype": "$None", "num_workers": 0, "min_steps": 120, "lr": 0.003}),
}
NOTE = "These slides are generated, of no patient."

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Generated slides whose tumour is painted in another colour."""
    folder = tmp_path_factory.mktemp("slides") / "data"
    splits = ["train"] * 4 + ["val"] * 2 + ["test"] * 3
    plans = [SlidePlan(split, 0.4 * (index % 2 == 0), (840 + 20 * index, 1000)) for index, split in enumerate(splits)]
    write_demo(folder, DemoPlan(images={}, slides=plans))
    for mask in sorted((folder / "slide_masks").iterdir()):
        pixels = tifffile.imread(folder / "slides" / f"{mask.stem}.tif", level=0)
        pixels[np.array(Image.open(mask)) > 0] = (70, 30, 120)
        write_slide(folder / "slides" / f"{mask.stem}.tif", pixels)
    return folder


@pytest.fixture(scope="module", params=SETTINGS)
def trained(request, slides, tmp_path_factory):
    overlays, options = SETTINGS[request.param]
    run = tmp_path_factory.mktemp(request.param) / "run"
    Bundle(request.param, slides, {}).train_here(*overlays, output_dir=run, tissue_mpp=4.0, **options)
    return request.param, overlays, run


def shipped(copy_of, trained, **changed):
    name, overlays, run = trained
    return ship(Request(copy_of(name), run, overlays, head="ebhi_mosaics", data_note=NOTE, **changed))


def test_a_head_of_slides_maps_from_its_folder_alone(copy_of, trained, slides, tmp_path):
    folder = shipped(copy_of, trained)
    names = {"README.md", "calibration.json", "inference.json", "metrics.json", "model.pt", "test_slides.csv"}
    assert {path.name for path in folder.iterdir()} == names
    assert str(slides) not in (folder / "inference.json").read_text() + (folder / "README.md").read_text()
    overlay = json.loads((folder / "inference.json").read_text())
    # Whatever the bundle's own file will say.
    assert overlay["feature_stride_px"] == 32
    assert overlay["encoder_def"]["_target_"] == "shared.encoders.load_encoder"
    threshold = json.loads((folder / "calibration.json").read_text())["threshold"]
    assert carried_threshold(folder / "model.pt") == threshold
    mapper = load_slide_mapper(folder.parents[1], [str(folder / "inference.json")], {"device": "cpu"})
    assert mapper.threshold == threshold
    run = torch.load(trained[2] / "model.pt", weights_only=True)
    loaded = {key.rpartition("network.")[2]: value for key, value in mapper.network.state_dict().items()}
    assert all(torch.equal(loaded[key], value) for key, value in run.items())
    row = mapper.map_image(ImageInput(sorted((slides / "slides").iterdir())[-1], "one"), tmp_path)
    assert 0 <= row["tumour_share"] <= 1


def test_the_card_has_the_scores_of_the_slides_and_says_how_they_were_made(copy_of, trained):
    folder = shipped(copy_of, trained)
    known = json.loads((trained[2] / "evaluation/metrics.json").read_text())
    scores, text = json.loads((folder / "metrics.json").read_text()), (folder / "README.md").read_text()
    (method,) = known["slides"]
    iou = scores["pixels"][method]["iou"]
    assert iou["mean"] == pytest.approx(known["pixels_tissue"][method]["iou"])
    assert scores["slide_labels"] == known["slides"]
    # A case of each slide is none that is known.
    assert (scores["num_slides"], scores["interval"]["resampled"], "num_cases" in scores) == (3, "slides", False)
    counts = pd.read_csv(folder / "test_slides.csv")
    assert counts.image.tolist() == ["slide_06.tif", "slide_07.tif", "slide_08.tif"]
    assert counts.tp.sum() / counts[["tp", "fp", "fn"]].to_numpy().sum() == pytest.approx(iou["mean"])
    for part in (
        "CC BY 4.0",
        NOTE,
        "3 test slides of EBHI-Seg mosaics that took no part in the training; in per cent, pixels in tissue of all slides",
        "intervals over slides (2000 bootstrap draws",
        "The method was scored on 3 slides of one data set",
        "--dataset_dir data/ebhi_mosaics",
        "Slides are read at 1 um per pixel.",
    ):
        assert part in text, part


def test_scores_of_groups_are_not_those_of_the_method(copy_of, trained):
    path = trained[2] / "evaluation/metrics.json"
    before = path.read_text()
    metrics = json.loads(before)
    (method,) = metrics["slides"]
    expected = read_run(trained[2])
    try:
        for part in ("slides", "pixels_tissue", "pixels_all"):
            metrics[part][f"{method}, b"] = metrics[part][method]
        path.write_text(json.dumps(metrics))
        assert read_run(trained[2]).method == expected.method == method
        assert shipped(copy_of, trained).is_dir()
    finally:
        path.write_text(before)


def test_two_slides_of_one_name_are_refused(trained, slides):
    manifest = slides / "slides.csv"
    before = manifest.read_text()
    last = before.splitlines()[-1]
    name = last.partition(",")[0].removeprefix("slides/")
    (slides / "other").mkdir(exist_ok=True)
    shutil.copy(slides / "slides" / name, slides / "other" / name)
    try:
        manifest.write_text(before + last.replace("slides/", "other/", 1) + "\n")
        with pytest.raises(ValueError, match=r"slides\.csv: 4 test slides, with 3 names: .* Give every file its own name"):
            read_run(trained[2])
    finally:
        manifest.write_text(before)


def test_slides_of_which_some_have_no_mask_are_refused(copy_of, trained):
    path = trained[2] / "evaluation/metrics.json"
    before = path.read_text()
    try:
        path.write_text(json.dumps(json.loads(before) | {"num_slides_scored_by_pixel": 2}))
        with pytest.raises(ValueError, match="only 2 of 3 test slides have masks"):
            read_run(trained[2])
    finally:
        path.write_text(before)
