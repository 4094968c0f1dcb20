"""Numeric options of every command: what is out of range is refused by the parser, before anything is read or written."""

import re
import runpy
import sys

import pytest

from tests.scripts.conftest import SCRIPTS

# The least that each parser demands; of what is named here nothing exists.
MANIFEST = ("--manifest", "none.csv")
MAPPED = (*MANIFEST, "--out", "none")
EMBEDDED = (*MAPPED, "--encoder", "efficientnet_lite0")
EVALUATED = (*MANIFEST, "--maps", "none")
MODEL = (*MANIFEST, "--bundle", "none", "--model_dir", "none")
COUNTED, FROM_0, SHARE = "a whole number from 1", "a whole number from 0", "a number from 0 to 1"
PIXEL_SIZE = "micrometres per pixel above 0"


@pytest.mark.parametrize(
    ("script", "given", "option", "value", "expected"),
    [
        ("calibrate.py", MODEL, "--regions_per_slide", "-3", COUNTED),
        ("calibrate.py", MODEL, "--regions_per_slide", "2.5", COUNTED),
        ("check_gpu.py", (), "--jobs", "0", COUNTED),
        ("check_gpu.py", (), "--minutes", "-1", "a number above 0"),
        ("check_slides.py", MAPPED, "--num_threads", "0", COUNTED),
        ("embed.py", EMBEDDED, "--margin_px", "-1", FROM_0),
        ("embed.py", EMBEDDED, "--tile_mpp", "inf", PIXEL_SIZE),
        ("embed.py", EMBEDDED, "--cpus_per_slide", "0", "a number above 0"),
        ("evaluate.py", EVALUATED, "--threshold", "50", SHARE),
        ("evaluate.py", EVALUATED, "--froc_mpp", "nan", PIXEL_SIZE),
        ("figure.py", (*MANIFEST, "--out", "none.png", "--maps", "A=none"), "--side_px", "0", COUNTED),
        ("prepare.py", ("regions", "none.csv", "regions.csv", "--size_px", "64"), "--stride_px", "-64", FROM_0),
        ("prepare.py", ("patches", "none.csv", "patches.csv"), "--min_tissue", "75", SHARE),
        ("serve.py", ("--studies", "none"), "--port", "65536", "a whole number from 0 to 65535"),
        ("serve.py", ("--studies", "none"), "--retrain_every", "-5", FROM_0),
        ("ship.py", ("--bundle", "none", "--run", "none"), "--mpp", "-0.5", PIXEL_SIZE),
        ("view.py", ("none",), "--port", "-1", "a whole number from 0 to 65535"),
    ],
)
def test_a_number_out_of_range_is_refused(monkeypatch, capsys, tmp_path, script, given, option, value, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, *given, option, value])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    assert stop.value.code == 2
    found = repr(value) if value == "2.5" else value
    assert f"argument {option}: expected {expected}, found {found}\n" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_numeric_option_has_a_range():
    plain = [
        f"{path.relative_to(SCRIPTS)}: {found[0]}"
        for path in SCRIPTS.rglob("*.py")
        for found in re.finditer(r"\btype=(int|float)\b", path.read_text(encoding="utf-8"))
    ]
    assert not plain, "take a type of scripts/options/numbers.py"
