"""What a shipped head is: small, whole, with a card whose numbers are those of the run; and what is refused."""

import json
import runpy
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, logit

from scripts.shipping.shipper import Request, ship
from shared.inference import ImageInput
from shared.inference.bundle_mapper import load_slide_mapper
from tests.bundles.runs import REPOSITORY

from .conftest import OVERLAYS

REASON = "EBHI-Seg states a magnification alone"


def request_of(bundle, run, **changed):
    return Request(**{"bundle": bundle, "run": run, "overlays": OVERLAYS, "mpp": 0.5, "mpp_reason": REASON, **changed})


def test_a_head_maps_from_its_folder_alone(bundle, run, tiles, tmp_path):
    folder = ship(request_of(bundle, run))
    assert folder == bundle / "models" / "ebhi_seg"
    assert [path.name for path in bundle.glob("models/*")] == ["ebhi_seg"]
    names = {"README.md", "calibration.json", "inference.json", "metrics.json", "model.pt", "test_images.csv"}
    assert {path.name for path in folder.iterdir()} == names
    assert sum(path.stat().st_size for path in folder.iterdir()) < 100_000
    state, trained = (torch.load(file / "model.pt", weights_only=True) for file in (folder, run))
    assert state.keys() == trained.keys()
    assert all(torch.equal(state[name], trained[name]) for name in state)
    mapper = load_slide_mapper(bundle, [str(folder / "inference.json")], {"device": "cpu"})
    assert (mapper.mpp, mapper.threshold, mapper.tiles.tile_size_px, mapper.tiles.margin_px) == (0.5, 0.45, 532, 84)
    assert (mapper.network.encoder.stride_px, mapper.network.encoder.smoothing) == (14, 7)
    row = mapper.map_image(ImageInput(tiles / "images" / "1.png", "one"), tmp_path)
    assert 0 <= row["tumour_share"] <= 1


def test_the_scores_are_those_of_the_run_with_intervals_over_cases(bundle, run):
    folder = ship(request_of(bundle, run))
    scores, known = json.loads((folder / "metrics.json").read_text()), json.loads((run / "evaluation/metrics.json").read_text())
    assert (scores["num_images"], scores["num_cases"], scores["threshold"]) == (6, 3, 0.45)
    for name in ("CAMEL", "Everything is tumour"):
        for score in ("iou", "sensitivity", "specificity"):
            assert scores["pixels"][name][score]["mean"] == pytest.approx(known["pixels"][name][score])
    images = pd.read_csv(folder / "test_images.csv")
    # Resampled by hand: of three cases of two images each.
    sums = images[["tp", "fp", "fn", "tn"]].to_numpy().reshape(3, 2, 4).sum(1)
    drawn = sums[np.random.default_rng(1).integers(3, size=(4000, 3))].sum(1)
    iou = drawn[:, 0] / drawn[:, :3].sum(1)
    found = scores["pixels"]["CAMEL"]["iou"]
    # On the scale of log odds: Student's t with 2 degrees of freedom, and 3 over 2.
    half = 4.302653 * 1.5**0.5 * iou.std() / (found["mean"] * (1 - found["mean"]))
    expected = expit(logit(found["mean"]) + np.array([-half, half]))
    assert [found["low"], found["high"]] == pytest.approx(list(expected), abs=0.01)


def test_the_card_says_what_must_be_said(bundle, run):
    config = json.loads((run / "config.json").read_text())
    config["_meta_"]["version"] = "0.0.9"
    (run / "config.json").write_text(json.dumps(config))
    text = (ship(request_of(bundle, run)) / "README.md").read_text()
    iou = json.loads((run / "evaluation/metrics.json").read_text())["pixels"]["CAMEL"]["iou"]
    for part in (
        "Shi et al.",
        "CC BY 4.0",
        "`efficientnet_lite0`, frozen, licence of its weights: Apache-2.0",
        "not a medical device, not for diagnosis",
        "6 test images of EBHI-Seg, of 3 cases",
        f"| CAMEL | {100 * iou:.1f} (",
        f"This is an assumption: {REASON}.",
        "configs/ebhi_seg.json','bundles/camel/configs/features.json']\" --image_size_px 112",
        # Of the run, not of the bundle as it is now.
        "Version 0.0.9 of the bundle, seed 0",
        "bundles/camel/models/ebhi_seg/inference.json']\" \\\n    --source slide.tif",
    ):
        assert part in text, part
    assert str(run) not in text


def test_a_head_takes_the_place_of_an_older_one(bundle, run):
    folder = ship(request_of(bundle, run))
    (folder / "old").write_text("x")
    ship(request_of(bundle, run))
    assert not (folder / "old").exists()


def edit(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def no_evaluation(bundle, run):
    (run / "evaluation/metrics.json").unlink()


def cut_off(bundle, run):
    path = run / "evaluation/metrics.json"
    path.write_text(path.read_text()[:40])


def other_split(bundle, run):
    edit(run / "evaluation/metrics.json", split="val")


def other_threshold(bundle, run):
    edit(run / "calibration.json", threshold=0.3)


def other_counts(bundle, run):
    path = run / "evaluation/images.csv"
    table = pd.read_csv(path)
    table["fp"] += 500
    table.to_csv(path, index=False)


def fine_tuned(bundle, run):
    state = torch.load(run / "model.pt", weights_only=True)
    torch.save(state | {"encoder.stem.weight": torch.zeros(1)}, run / "model.pt")


def no_encoder(bundle, run):
    torch.save({"weight": torch.zeros(1)}, run / "model.pt")


def not_free(bundle, run):
    path = bundle / "docs/data_license.txt"
    path.write_text(path.read_text().replace("CC BY 4.0", "CC BY-NC 4.0"))


def not_named(bundle, run):
    path = bundle / "docs/data_license.txt"
    path.write_text(path.read_text().replace("ebhi_seg", "ebhi_seg_mosaics"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_evaluation, r"evaluation/metrics\.json does not exist\. Score the run on the test split first"),
        (cut_off, r"evaluation/metrics\.json: expected a JSON object; found text that is not JSON .*\. Score the run on the"),
        (other_split, "expected scores of the test split, found those of val"),
        (other_threshold, r"scored at a threshold of 0\.45, and maps would be made at 0\.3"),
        (other_counts, r"images\.csv gives an IoU of .* metrics\.json"),
        (fine_tuned, r"model\.pt holds the weights of its encoder, which was fine-tuned: only heads are shipped"),
        (no_encoder, r"model\.pt is not a head on an encoder's features: train with the overlay features\.json"),
        (not_free, r"Expected CC0 or CC BY 4\.0"),
        (
            not_named,
            r"does not state the terms under which the data of ebhi_seg are distributed: .* or the folder models/ebhi_seg",
        ),
    ],
)
def test_what_is_refused_leaves_nothing_behind(bundle, run, change, message):
    change(bundle, run)
    with pytest.raises(ValueError, match=message):
        ship(request_of(bundle, run))
    assert not list(bundle.glob("models/*"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mpp": None}, r"read its images as stored \(mpp null\): give --mpp"),
        ({"mpp_reason": None}, r"the training had mpp None, and slides are read at 0\.5: give --mpp_reason"),
        ({"overlays": ("ebhi_seg",)}, "the training differs from its overlays in .*: give --overlay as the training had it"),
        ({"overlays": ()}, "a training without overlays has data without a name: give --name"),
        ({"head": "ebhi_seg"}, "--name is for data that no overlay names, and needs --data_note"),
        ({"overlays": ("ebhi_seg", "feature")}, r"feature\.json does not exist: give the overlays of the training"),
    ],
)
def test_requests_that_are_refused(bundle, run, changed, message):
    with pytest.raises(ValueError, match=message):
        ship(request_of(bundle, run, **changed))
    assert not list(bundle.glob("models/*"))


def test_the_command_ships_and_says_what_is_wrong(bundle, run, monkeypatch, capsys):
    def command(*words):
        given = ["--bundle", bundle, "--run", run, "--overlay", *OVERLAYS, *words]
        monkeypatch.setattr(sys, "argv", ["ship.py", *map(str, given)])
        runpy.run_path(str(REPOSITORY / "scripts" / "ship.py"), run_name="__main__")

    with pytest.raises(SystemExit, match=r"^error: the training read its images as stored"):
        command()
    command("--mpp", 0.5, "--mpp_reason", REASON)
    assert "models/ebhi_seg: " in capsys.readouterr().out
