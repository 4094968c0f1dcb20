"""A process for each GPU of a machine, as far as a machine without one can show it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scripts import infer
from scripts.options.gpus import chosen_gpus, run_on_gpus

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many GPUs, of which an environment variable may show some."""

    def make(count, visible=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return make


@pytest.mark.parametrize(
    ("count", "visible", "given", "expected"),
    [
        (1, None, "all", ["0"]),
        (3, None, "all", ["0", "1", "2"]),
        (3, None, "2,0", ["2", "0"]),
        # Numbers are those that PyTorch sees.
        (2, "4,7", "all", ["4", "7"]),
        (2, "GPU-a, GPU-b", "1", ["GPU-b"]),
    ],
)
def test_which_gpus(machine, count, visible, given, expected):
    machine(count, visible)
    assert chosen_gpus(given) == expected


@pytest.mark.parametrize(
    ("count", "given", "message"),
    [
        (0, "all", r"--gpus all needs CUDA GPUs, and PyTorch .* finds none \(see nvidia-smi\). Leave it out"),
        (2, "0,2", "there is no GPU 2; PyTorch finds 2, numbered from 0"),
        (2, "1,1", "name each GPU only once"),
        (2, "both", "expects 'all' or numbers such as 0,1; got 'both'"),
        (2, "0,", "expects 'all' or numbers such as 0,1; got '0,'"),
        (2, "-1", "expects 'all' or numbers such as 0,1; got '-1'"),
    ],
)
def test_gpus_that_are_not_there(machine, count, given, message):
    machine(count)
    with pytest.raises(ValueError, match=message):
        chosen_gpus(given)


def test_each_process_sees_one_gpu_and_is_named_by_it(capfd):
    code = "import os, sys; print('at', os.environ['CUDA_VISIBLE_DEVICES']); print('log', file=sys.stderr)"
    assert run_on_gpus([sys.executable, "-c", code], ["4", "GPU-b"]) == 0
    said = capfd.readouterr()
    assert sorted(said.out.splitlines()) == ["GPU 4: at 4", "GPU GPU-b: at GPU-b"]
    assert sorted(said.err.splitlines()) == ["GPU 4: log", "GPU GPU-b: log"]


@pytest.mark.parametrize(("ends", "status"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGKILL)", 1)])
def test_one_that_fails_fails_the_whole_and_stops_no_other(capfd, tmp_path, ends, status):
    """The other process ends its work only after the first one has failed."""
    failed = tmp_path / "failed"
    code = f"""
import os, pathlib, signal, sys, time
if os.environ['CUDA_VISIBLE_DEVICES'] == '1':
    pathlib.Path({str(failed)!r}).touch()
    {ends}
while not os.path.exists({str(failed)!r}):
    time.sleep(0.01)
print('done')
"""
    assert run_on_gpus([sys.executable, "-c", code], ["0", "1", "2"]) == status
    said = capfd.readouterr()
    assert sorted(said.out.splitlines()) == ["GPU 0: done", "GPU 2: done"]
    assert "error: the process of GPU 1 ended with status" in said.err


def test_ended_it_ends_its_processes(tmp_path):
    code = f"import os, pathlib, time; pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch(); time.sleep(600)"
    parent = (
        f"import sys; from scripts.options.gpus import run_on_gpus; run_on_gpus([sys.executable, '-c', {code!r}], ['0', '1'])"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT)
    while len(list(tmp_path.iterdir())) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    for child in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(child.name), 0)


@pytest.fixture
def start(monkeypatch, tmp_path, capfd):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    options = ["--manifest", tmp_path / "a.png", "--bundle", ROOT / "bundles/camel", "--out", tmp_path / "maps"]

    def run(*more):
        monkeypatch.setattr(sys, "argv", ["infer.py", *map(str, [*options, *more])])
        with pytest.raises(SystemExit) as stopped:
            infer.main()
        return stopped.value.code, capfd.readouterr().err

    return run


def test_infer_starts_itself_on_every_gpu(start, machine):
    """There is none really: each process refuses to compute on the CPU in silence."""
    machine(2)
    code, said = start("--gpus", "all", "--threshold", 0.4)
    assert code == 2
    for gpu in range(2):
        assert f"GPU {gpu}: error:" in said
        assert f"error: the process of GPU {gpu} ended with status 2" in said
    assert "needs a CUDA GPU" in said


def test_infer_without_gpus(start, machine):
    machine(0)
    code, said = start("--gpus", "all")
    assert code == 2
    assert "error: --gpus all needs CUDA GPUs" in said


@pytest.mark.parametrize("more", [["--engine", "ray"], ["--device", "cuda:1"]])
def test_infer_is_told_once_where_to_compute(start, more):
    code, said = start("--gpus", "all", *more)
    assert code == 2
    assert "--gpus already selects the devices" in said
