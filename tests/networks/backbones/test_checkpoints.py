"""Files of ``torch.save`` are read without running code of theirs, with whatever harmless things trainings save in them."""

import argparse
import collections
import os
import pathlib
import re
import types

import numpy as np
import pytest
import torch
from torch import nn

from shared.encoders.weights import read_weights
from shared.networks import load_imagenet_weights, load_weights
from shared.networks.backbones.checkpoints import read_checkpoint
from shared.networks.backbones.resnet import resnet

BESIDE = {
    "options, as DINO and MAE save them": argparse.Namespace(lr=1e-3, output_dir=pathlib.Path("runs"), milestones=[1, 2]),
    "a namespace": types.SimpleNamespace(epoch=3),
    "a path": pathlib.PosixPath("/runs/1"),
    "numbers of NumPy": [np.float64(0.5), np.float32(0.5), np.int64(3), np.bool_(True), np.str_("best")],
    "an array": np.arange(6.0).reshape(2, 3),
    "a dictionary with defaults": collections.defaultdict(list, {"loss": [1.0, 2.0]}),
}


@pytest.mark.parametrize("is_of_now", [True, False], ids=["zip", "before PyTorch 1.6"])
@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_what_trainings_save_beside_the_weights_is_read(tmp_path, beside, is_of_now):
    weights = nn.Linear(2, 3).state_dict()
    saved = {"model": weights, "args": beside}
    torch.save(saved, tmp_path / "checkpoint.pth", _use_new_zipfile_serialization=is_of_now)
    found = read_weights(tmp_path / "checkpoint.pth")
    assert all(torch.equal(found[name], value) for name, value in weights.items())
    # Elsewhere in this process these objects are as foreign as before.
    if not isinstance(beside, dict):
        with pytest.raises(Exception, match="Weights only load failed"):
            torch.load(tmp_path / "checkpoint.pth", weights_only=True)


def test_options_and_paths_are_what_they_were(tmp_path):
    saved = {"args": argparse.Namespace(lr=0.1, folder=pathlib.PosixPath("runs/1")), "log": collections.defaultdict(list, a=[1])}
    torch.save(saved, tmp_path / "checkpoint.pth")
    expected = {"args": argparse.Namespace(lr=0.1, folder=pathlib.PurePosixPath("runs/1")), "log": {"a": [1]}}
    assert read_checkpoint(tmp_path / "checkpoint.pth") == expected


def head_weights(path):
    return load_weights(nn.Linear(2, 3), path)


def imagenet_weights(path):
    return load_imagenet_weights(resnet("resnet18"), "resnet18", path)


@pytest.mark.parametrize("read", [read_weights, head_weights, imagenet_weights])
def test_other_objects_end_in_one_line_with_the_code_that_saves_the_weights_alone(tmp_path, read):
    weights, path = nn.Linear(2, 3).state_dict(), tmp_path / "checkpoint.pth"
    torch.save({"state_dict": weights, "criterion": nn.MSELoss()}, path)
    with pytest.raises(ValueError, match=r"checkpoint.pth holds other objects than tensors \(torch\.\S+MSELoss\)") as told:
        read(path)
    text = str(told.value)
    assert text.isprintable()
    exec(re.search(r": (import torch; .*) - with", text)[1], {})
    found = read_weights(tmp_path / "checkpoint.weights.pth")
    assert all(torch.equal(found[name], value) for name, value in weights.items())


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("around", [lambda payload: payload, lambda payload: argparse.Namespace(lr=payload)])
def test_code_in_a_file_is_not_run(tmp_path, around):
    torch.save({"model": {}, "args": around(Payload(tmp_path / "made"))}, tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match=r"holds other objects than tensors \(posix\.mkdir\)"):
        read_checkpoint(tmp_path / "checkpoint.pth")
    assert not (tmp_path / "made").exists()


def test_other_files_are_named_in_one_line(tmp_path):
    torch.jit.script(nn.Linear(2, 3)).save(tmp_path / "script.pt")
    (tmp_path / "page.pth").write_text("<html>404</html>")
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "half.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "half.pth").read_bytes()[:700])
    for name, said in [("script.pt", "a TorchScript file"), ("page.pth", "not a PyTorch"), ("half.pth", "not a PyTorch")]:
        with pytest.raises(ValueError, match=f"{name} is {said}") as told:
            read_checkpoint(tmp_path / name)
        assert str(told.value).isprintable()
