"""`scripts/check_gpu.py` without a GPU: that it runs, what it counts, and that what fails says so."""

import json
import re
import sys
import warnings
from collections import Counter

import pytest

from scripts import check_gpu
from scripts.gpu_check.check import FAIL, PASS, ROOT, SKIP, Check, run_check
from scripts.gpu_check.computed import compare_augmentation
from scripts.gpu_check.counted_run import SAID, Place, count_waits, waiting_line
from scripts.gpu_check.gpu_load import Utilisation
from scripts.gpu_check.trainings import processes_check, training_check
from shared.synthetic import DemoPlan, write_demo

SCRIPT = ROOT / "scripts/check_gpu.py"


@pytest.mark.slow
def test_it_runs_dry(run_python, tmp_path):
    """One training and one map, by the command that a machine with a GPU gets."""
    write_demo(tmp_path / "data", DemoPlan(images={"train": 16, "val": 8, "test": 8}, size_px=64, slides=()))
    small = [f"dataset_dir={tmp_path / 'data'}", "image_size_px=64", "backbone=resnet10", "num_workers=1", "batch_size=4"]
    only = ["training wildcat", "map fp32", "map last device"]
    options = ["--device", "cpu", "--only", *only, "--keys", *small, "--out", tmp_path / "out"]
    options += ["--minutes", 25, "--check_seconds", 1500]
    process = run_python(SCRIPT, *options, cwd=tmp_path)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "2 checks passed, 0 failed, 1 skipped" in process.stdout
    rows = (tmp_path / "out/table.txt").read_text().splitlines()
    assert [row.split()[0] for row in rows] == [PASS, PASS, SKIP]
    assert (tmp_path / "out/wildcat/model.pt").is_file()
    assert json.loads((tmp_path / "out/wildcat_waits.json").read_text()) == {}


def test_tiles_are_augmented_alike():
    assert compare_augmentation("cpu").startswith("at most 0/255 from the CPU's; ")


def names_of(monkeypatch, device, num_devices, *options):
    monkeypatch.setattr(sys, "argv", ["check_gpu.py", *options])
    lists = check_gpu.checks(device, num_devices, check_gpu.parsed())
    return {one.name: one for of in lists for one in of}


@pytest.mark.parametrize("num_devices", [1, 2])
def test_every_bundle_is_checked(monkeypatch, num_devices):
    found = names_of(monkeypatch, "cuda", num_devices)
    bundles = [path.name for path in (ROOT / "bundles").iterdir() if path.is_dir()]
    assert {f"training {name}" for name in bundles} <= set(found)
    assert {f"processes {name}" for name in bundles} <= set(found)
    skipped = {name for name, check in found.items() if check.skipped}
    several = {"map last device", *(f"processes {name}" for name in bundles)}
    assert skipped == (several if num_devices == 1 else set())
    assert found["map last device"].command[-1] == f"cuda:{num_devices - 1}"


@pytest.mark.parametrize("name", ["camel", "mil_boosting"])
def test_keys_are_given_where_a_bundle_has_them(tmp_path, name):
    keys = {"amp_dtype": "bfloat16", "num_workers": "3"}
    for check in (training_check(name, "cuda", tmp_path, keys), processes_check(name, "cuda", 2, tmp_path, keys)):
        assert ("--num_workers" in check.command, "--amp_dtype" in check.command) == (True, name == "camel")
        assert ("--device" in check.command) == check.name.startswith("training")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "finds no CUDA GPU .* Use --device cpu to try out the check itself"),
        (["--device", "cpu", "--only", "maps"], "there is no check named maps; the checks are: training alpha_beta_mil, "),
        (["--device", "cpu", "--keys", "num_workers"], "--keys expects KEY=VALUE, got 'num_workers'"),
    ],
)
def test_what_cannot_be_started(monkeypatch, capsys, options, message):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["check_gpu.py", *options])
    with pytest.raises(SystemExit) as stopped:
        check_gpu.main()
    assert stopped.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def describe(log):
    if "wrong" in log:
        raise ValueError("7/255 from the CPU's")
    return log.strip()


@pytest.mark.parametrize(
    ("code", "result", "said"),
    [
        ("print('right')", PASS, "right"),
        ("print('wrong')", FAIL, "7/255 from the CPU's (see "),
        ("raise RuntimeError('no kernel')", FAIL, "status 1: RuntimeError: no kernel (see "),
        (
            "try: int('x')\nexcept ValueError as e: raise RuntimeError('Failed to instantiate') from e",
            FAIL,
            "status 1: ValueError: invalid literal for int() with base 10: 'x' (see ",
        ),
        ("import os; os.abort()", FAIL, "status -6: "),
        ("import time; time.sleep(600)", FAIL, "still running after 2 s (see "),
    ],
)
def test_a_check_becomes_a_row(tmp_path, code, result, said):
    row = run_check(Check("one check", ["-c", code], describe), sys.executable, tmp_path, timeout_s=2 if "sleep" in code else 600)
    assert (row.result, row.said[: len(said)]) == (result, said)
    assert str(row).startswith(f"{result}  one check")
    assert (tmp_path / "one_check.log").is_file()


def test_checks_that_are_left_out(tmp_path):
    check = Check("one", ["-c", "1 / 0"], describe)
    assert run_check(check, sys.executable, tmp_path, timeout_s=0).said == "skipped, because the time was up"
    assert run_check(Check("two", [], describe, "there is only one GPU"), sys.executable, tmp_path, 9).result == SKIP


STEP = Place("/env/monai/engines/trainer.py", 250, "_iteration")
LOSS = Place(f"{ROOT}/shared/losses/alpha_beta.py", 60, "alpha_beta_loss")
TORCH = Place("/env/torch/nn/functional.py", 10, "cross_entropy")
LOOK = Place(f"{ROOT}/shared/networks/layers/pixel_normalization.py", 30, "look")


@pytest.mark.parametrize(
    ("stack", "line"),
    [
        ([TORCH, LOSS, STEP], "shared/losses/alpha_beta.py:60"),
        ([TORCH, STEP], "/env/torch/nn/functional.py:10"),
        ([TORCH, LOSS], None),
        ([LOOK, LOSS, STEP], None),
    ],
)
def test_which_line_waits(stack, line):
    assert waiting_line(stack) == line


def test_warnings_within_steps_are_counted(monkeypatch):
    """As PyTorch gives them on a GPU; others are shown as they were."""
    waits, shown = Counter(), []
    code = compile(f"def _iteration():\n    warnings.warn({SAID!r}, stacklevel=1)", STEP.file, "exec")
    scope = {"warnings": warnings}
    exec(code, scope)
    with warnings.catch_warnings():
        monkeypatch.setattr(warnings, "showwarning", lambda message, *_: shown.append(str(message)))
        count_waits(waits)
        for _ in range(3):
            scope["_iteration"]()
        warnings.warn(SAID, stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert dict(waits) == {f"{STEP.file}:2": 3}
    assert shown == ["something else"]


def test_a_step_that_waits_fails_its_check(tmp_path):
    check = training_check("camel", "cuda", tmp_path, {})
    (tmp_path / "camel_waits.json").write_text('{"shared/losses/a.py:3": 8}')
    with pytest.raises(ValueError, match=r"steps wait for the GPU: shared/losses/a\.py:3 \(8 times\)"):
        check.describe("")
    (tmp_path / "camel_waits.json").write_text("{}")
    assert check.describe("Grad strides") == "no step waits for the GPU, 1 warnings about strides"


def test_utilisation_where_nothing_says_it(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with Utilisation() as utilisation:
        pass
    assert str(utilisation) == "not known: nvidia-smi gives no output"
    utilisation.samples = [90.0, 100.0]
    assert str(utilisation) == "95 % on average"
