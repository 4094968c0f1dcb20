"""`scripts/embed.py` as a user starts it, with the default encoder."""

import csv
import json
import sys

import h5py
import numpy as np
import pytest
import tifffile
import torch

from scripts import embed
from shared.features import SlideFeatures

SMALL = ["--encoder", "efficientnet_lite0", "--tile_size_px", 128, "--margin_px", 0, "--device", "cpu"]


@pytest.fixture
def manifest(tmp_path):
    """Two slides of 256 x 128 px with tissue at the left."""
    for number, name in enumerate("ab"):
        rgb = np.full((128, 256, 3), 245, np.uint8)
        rgb[:, :100] = np.random.default_rng(number).integers((180, 60, 120), (240, 140, 200), (128, 100, 3))
        tifffile.imwrite(
            tmp_path / f"{name}.tif", rgb, photometric="rgb", tile=(64, 64), resolution=(2e4, 2e4), resolutionunit="CENTIMETER"
        )
    (tmp_path / "slides.csv").write_text("image,split\na.tif,train\nb.tif,test\n")
    return tmp_path / "slides.csv"


@pytest.fixture
def start(monkeypatch, capsys):
    """Run the script in this process; its exit status and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["embed.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            embed.main()
        return stopped.value.code, capsys.readouterr()

    return run


def test_slides_are_embedded_once(run_python, tmp_path, manifest, start):
    options = ["--manifest", manifest, "--out", tmp_path / "features", *SMALL]
    finished = run_python("scripts/embed.py", *options, "--split", "train")
    assert finished.returncode == 0, finished.stderr
    assert "1 images, 1 embedded now (1 ok)" in finished.stdout
    code, printed = start(*options)
    assert code == 0
    assert "2 images, 1 embedded now (1 ok)" in printed.out
    with (tmp_path / "features" / "slides.csv").open(newline="") as file:
        rows = {row["slide"]: row for row in csv.DictReader(file)}
    for name in "ab":
        with SlideFeatures.open(tmp_path / "features" / f"{name}.h5") as features:
            assert (features.encoder_name, features.dim, features.stride_px, features.mpp) == (
                "efficientnet_lite0",
                1280,
                64,
                1.0,
            )
            assert len(features) == int(rows[name]["num_features"]) > 0
            assert np.abs(features.read()).max() > 0


def test_options_reach_the_encoder(tmp_path, manifest, start):
    code, _ = start(
        *("--manifest", tmp_path / "a.tif", "--out", tmp_path / "features", *SMALL, "--mpp", 1, "--strides_px", 8, 16),
        *("--smoothing", 5, "--tissue_dir", tmp_path / "tissue", "--tissue_mpp", 4),
    )
    assert code == 0
    with SlideFeatures.open(tmp_path / "features" / "a.h5") as features:
        # Four places of stride 8 in one of stride 16.
        assert (features.dim, features.stride_px, features.mpp) == (4 * 40 + 112, 32, 1.0)
    assert len(list((tmp_path / "tissue").glob("a.*.png"))) == 1


def test_an_exported_encoder_is_told_what_its_file_does_not_say(tmp_path, manifest, start):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 16, stride=16), torch.nn.Flatten(), torch.nn.Linear(5 * 16, 7))
    torch.jit.trace(network, torch.rand(2, 3, 64, 64)).save(str(tmp_path / "mine.pt"))
    options = ["--manifest", tmp_path / "a.tif", "--out", tmp_path / "features", "--device", "cpu"]
    options += ["--encoder", tmp_path / "mine.pt", "--tokens", "embedding", "--encoder_mpp", 1, "--input_size_px", 64]
    code, printed = start(*options)
    assert code == 2
    assert "give mean and std" in printed.err
    code, _ = start(*options, "--mean", 0.7, 0.5, 0.7, "--std", 0.2, 0.2, 0.2, "--licence", "mine")
    assert code == 0
    with SlideFeatures.open(tmp_path / "features" / "a.h5") as features:
        # A vector of each tile of 64 px at 1 um, of a slide at 0.5 um.
        assert (features.dim, features.stride_px, features.mpp) == (7, 128, 1.0)
    with h5py.File(tmp_path / "features" / "a.h5") as file:
        said = json.loads(file.attrs["encoder"])
    assert (said["mean"], said["std"], said["licence"]) == ([0.7, 0.5, 0.7], [0.2, 0.2, 0.2], "mine")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--mean", 0.5, 0.5, 0.5], "mean cannot be given: efficientnet_lite0 has its own (mean [0.498"),
        (["--encoder", "nobody/knows"], "nobody/knows"),
        (["--smoothing", 2], "smoothing must be an odd number of cells, 1 or more; got 2"),
        (["--margin_px", 20], "multiples of the stride of efficientnet_lite0, 32"),
        (["--tissue_method", "magic"], "tissue_method must be one of"),
        (["--manifest", "none.csv"], "none.csv does not exist"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_computed(tmp_path, manifest, start, changed, message):
    code, printed = start("--manifest", manifest, "--out", tmp_path / "features", *SMALL, *changed)
    assert code == 2
    assert message in printed.err
    assert not list(tmp_path.glob("features/*.h5"))


def test_a_slide_that_is_too_coarse_fails_alone(tmp_path, manifest, start):
    code, printed = start("--manifest", manifest, "--out", tmp_path / "features", *SMALL, "--mpp", 0.25)
    assert code == 1
    assert "a.tif: its pixels are 0.5 um, coarser than the mpp=0.25 at which efficientnet_lite0 is given images" in printed.err


def test_other_settings_are_refused_with_the_options_that_fit(tmp_path, manifest, start):
    given = (
        "--manifest",
        tmp_path / "a.tif",
        "--out",
        tmp_path / "features",
        "--encoder",
        "efficientnet_lite0",
        "--device",
        "cpu",
    )
    of_others = ("--smoothing", 1, "--stride_px", 16, "--mpp", 0.5)
    assert start(*given, *of_others)[0] == 0
    code, printed = start(*given)
    assert code == 2
    assert "(mpp: expected 1.0, found 0.5; stride_px: expected 32, found 16; smoothing: expected 3, found 1)" in printed.err
    assert "give the settings with which they were made: --mpp 0.5 --stride_px 16 --smoothing 1 (stride_px is" in printed.err
    code, printed = start(*given, *of_others, "--strides_px", 16, 32)
    assert "(strides_px: expected [16, 32], found [32])" in printed.err
