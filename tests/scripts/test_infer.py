"""`scripts/infer.py` as a user starts it, with the bundles' networks, untrained and small."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from scripts import infer
from shared.networks import DeepLabV2, InstanceClassifier

ROOT = Path(__file__).resolve().parents[2]
CAMEL = ROOT / "bundles" / "camel"
SMALL = ["--segmentation_backbone", "resnet10", "--tile_size_px=64", "--margin_px", 16, "--tissue_only", "False"]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """The folder of a training of CAMEL, as far as inference reads it."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    torch.save(DeepLabV2(backbone="resnet10", out_channels=2, norm="batch").state_dict(), folder / "model.pt")
    return folder


@pytest.fixture
def manifest(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        Image.fromarray(rng.integers(0, 256, (96, 80, 3), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "slides.csv").write_text("image,split\na.png,test\nb.png,test\nc.png,train\n")
    return tmp_path / "slides.csv"


@pytest.fixture
def start(monkeypatch, tmp_path, capsys):
    """Run the script in this process; its exit status and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["infer.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            infer.main()
        return stopped.value.code, capsys.readouterr()

    return run


def statuses(folder):
    with (folder / "slides.csv").open(newline="") as file:
        return {row["slide"]: row["status"] for row in csv.DictReader(file)}


def test_a_cohort_from_failure_to_finish(run_python, tmp_path, manifest, model_dir, start):
    """As a separate process first: its status tells a failure, and the others are done."""
    options = ["--manifest", manifest, "--bundle", CAMEL, "--out", tmp_path / "maps", "--model_dir", model_dir, *SMALL]
    whole = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    process = run_python(ROOT / "scripts/infer.py", *options, cwd=tmp_path)
    assert process.returncode == 1, process.stderr
    assert "error: 1 of 3 images failed" in process.stderr
    assert str(tmp_path / "b.png") in process.stderr.splitlines()[-1]
    assert "Traceback" not in process.stderr
    assert statuses(tmp_path / "maps") == {"a": "ok", "b": "failed", "c": "ok"}
    (tmp_path / "b.png").write_bytes(whole)
    assert start(*options)[0] == 0
    assert statuses(tmp_path / "maps") == {"a": "ok", "b": "ok", "c": "ok"}
    code, printed = start(*options)
    assert (code, printed.out) == (0, f"{tmp_path / 'maps'}: 3 images, 0 mapped now\n")
    # Other settings, other maps.
    code, printed = start(*options, "--threshold", "0.25")
    assert (code, printed.out) == (0, f"{tmp_path / 'maps'}: 3 images, 3 mapped now (3 ok)\n")


def test_a_slide_that_is_not_there_stops_no_other(tmp_path, manifest, model_dir, start):
    options = ["--manifest", manifest, "--bundle", CAMEL, "--out", tmp_path / "maps", "--model_dir", model_dir, *SMALL]
    hidden = (tmp_path / "b.png").rename(tmp_path / "elsewhere")
    code, printed = start(*options)
    assert code == 1
    assert "error: 1 of 3 images failed" in printed.err
    assert str(tmp_path / "b.png") in printed.err.splitlines()[-1]
    assert statuses(tmp_path / "maps") == {"a": "ok", "b": "failed", "c": "ok"}
    hidden.rename(tmp_path / "b.png")
    assert start(*options)[0] == 0
    # One that goes away later keeps its result and its row, with other settings too; the run says what it could not do.
    results = {path.name: path.read_bytes() for path in (tmp_path / "maps").glob("a.*")}
    (tmp_path / "a.png").unlink()
    code, printed = start(*options, "--threshold", "0.25")
    assert code == 1
    assert "a.png no longer exists; earlier results for it are kept" in printed.err
    assert statuses(tmp_path / "maps") == {"a": "ok", "b": "ok", "c": "ok"}
    assert {path.name: path.read_bytes() for path in (tmp_path / "maps").glob("a.*")} == results
    for name in ("b", "c"):
        (tmp_path / f"{name}.png").unlink()
    code, printed = start(*options)
    assert code == 2
    assert f"{manifest}: none of its 3 images exists; the first is {tmp_path / 'a.png'}" in printed.err


def test_split_and_checkpoint(tmp_path, manifest, model_dir, start):
    options = ["--manifest", manifest, "--split", "test", "--bundle", CAMEL, "--out", tmp_path / "maps", *SMALL]
    assert start(*options, "--checkpoint", model_dir / "model.pt")[0] == 0
    assert statuses(tmp_path / "maps") == {"a": "ok", "b": "ok"}


def test_a_bundle_of_several_networks_and_glass(tmp_path, manifest, start):
    """Images without tissue are finished too."""
    for name in ("a", "b", "c"):
        Image.new("RGB", (150, 120), (244, 243, 245)).save(tmp_path / f"{name}.png")
    network = InstanceClassifier(backbone="resnet10", norm="batch")
    checkpoints = [tmp_path / "one" / "model.pt", tmp_path / "two" / "model.pt"]
    for path in checkpoints:
        path.parent.mkdir()
        torch.save(network.state_dict(), path)
    bundle = ROOT / "bundles" / "alpha_beta_mil"
    options = ["--bundle", bundle, "--backbone", "resnet10", "--out", tmp_path / "maps", "--threshold", "0.5"]
    code, printed = start("--manifest", manifest, "--checkpoint", *checkpoints, *options)
    assert code == 0, printed.err
    assert "3 images, 3 mapped now (3 no tissue)" in printed.out
    code, printed = start("--manifest", manifest, "--checkpoint", *checkpoints, *options)
    assert "3 images, 0 mapped now" in printed.out
    assert start("--manifest", manifest, "--model_dir", tmp_path / "one", *options)[0] == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--manifest": "none.csv"}, "none.csv does not exist"),
        ({"--bundle": "nothing"}, "nothing is not a bundle"),
        ({"--model_dir": "."}, ". holds no model.pt"),
        ({"--overlay": "unnet"}, "the overlay unnet is neither a file nor the name of one in"),
        ({"--treshold": "0.5"}, "has no key 'treshold'; it has: imports, roots, bundle_root"),
        ({"--treshold": "0.5"}, "Was threshold meant?"),
        ({"--device": "gpu"}, "'gpu' is not a device. Use cuda, cuda:1 or cpu"),
        ({"--tissue_only": "false"}, "--tissue_only false: expected True or False, found 'false'"),
        ({"--tile_size_px": "60"}, "tile_size_px=60"),
        ({"--segmentation_backbone": "resnet18"}, "model.pt"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_mapped(tmp_path, manifest, model_dir, start, changed, message):
    options = {"--manifest": manifest, "--bundle": CAMEL, "--out": tmp_path / "maps", "--model_dir": model_dir}
    options |= {"--segmentation_backbone": "resnet10"} | changed
    code, printed = start(*(part for option in options.items() for part in option))
    assert code == 2, printed.err
    assert message in printed.err
    assert not (tmp_path / "maps").exists()


def test_a_gpu_that_fails_ends_the_process_and_blames_no_slide(tmp_path, manifest, model_dir, start, monkeypatch):
    (tmp_path / "broken_device.py").write_text(
        "import torch\n\nclass Broken(torch.nn.Module):\n    def forward(self, images):\n"
        "        raise RuntimeError('CUDA error: an illegal memory access was encountered\\nFor debugging consider ...')\n"
    )
    (tmp_path / "broken.json").write_text('{"network": {"_target_": "broken_device.Broken"}}')
    monkeypatch.syspath_prepend(tmp_path)
    options = ["--manifest", manifest, "--bundle", CAMEL, "--out", tmp_path / "maps", "--model_dir", model_dir, *SMALL]
    code, printed = start(*options, "--overlay", tmp_path / "broken.json")
    assert code == 3
    (line,) = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert "has stopped working (RuntimeError: CUDA error: an illegal memory access was encountered), at " in line
    assert f"{tmp_path / 'a.png'}, which is left unfinished" in line
    assert "Traceback" not in printed.err
    assert statuses(tmp_path / "maps") == {"a": "unfinished"}
    assert start(*options)[0] == 0
    assert statuses(tmp_path / "maps") == {"a": "ok", "b": "ok", "c": "ok"}


def test_a_key_needs_a_value(tmp_path, manifest, start):
    code, printed = start("--manifest", manifest, "--bundle", CAMEL, "--out", tmp_path / "maps", "--threshold")
    assert code == 2
    assert "expected --key value, got '--threshold' without a value" in printed.err


@pytest.mark.slow
def test_features_are_stored_once_for_all_heads_and_maps(tmp_path, manifest, start):
    """With the head that comes with the repository: maps are those of the pixels, and a second run embeds nothing."""
    head = CAMEL / "models/ebhi_seg/inference.json"
    keys = ["--tissue_only", "False", "--slide_mapper::compute::amp", "False"]
    options = ["--manifest", manifest, "--bundle", CAMEL, "--overlay", head, *keys]
    status, said = start(*options, "--out", tmp_path / "of_pixels")
    assert status == 0, said.err
    features = ["--embed_into", tmp_path / "features"]
    status, said = start(*options, *features, "--out", tmp_path / "maps")
    assert status == 0
    assert "3 images, 3 embedded now" in said.out
    for name in ("a", "b", "c"):
        ours, theirs = (tifffile.imread(tmp_path / folder / f"{name}.ome.tif") for folder in ("maps", "of_pixels"))
        assert np.abs(ours.astype(int) - theirs).max() <= 1
    status, said = start(*options, *features, "--threshold", 0.3, "--out", tmp_path / "again")
    assert status == 0
    assert "3 images, 0 embedded now" in said.out
    assert "3 images, 3 mapped now" in said.out
    assert len(list((tmp_path / "features").iterdir())) == 1
    status, said = start(*options[:4], *SMALL, "--checkpoint", tmp_path / "no.pt", *features, "--out", tmp_path / "none")
    assert status == 2
