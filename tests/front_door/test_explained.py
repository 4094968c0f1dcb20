"""Which errors are told in one line: in this process, and by real ones."""

import errno
import os
import sqlite3
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from shared.front_door import begin_script, explanation
from shared.selection import alpha_beta_labels
from shared.writers import atomic_path

INFERENCE = "bundles/camel/configs/inference.json"


def wrapped(call):
    """What `call` raises, as MONAI wraps what an item of a configuration raises."""
    try:
        try:
            call()
        except Exception as error:
            raise RuntimeError("Failed to evaluate ConfigExpression") from error
    except RuntimeError as error:
        return error
    raise AssertionError("nothing was raised")


def fill(path, error):
    with atomic_path(path):
        raise error


def log_to_a_full_database():
    try:
        raise sqlite3.OperationalError("database or disk is full")
    except sqlite3.OperationalError:
        raise KeyError("of MLflow")  # noqa: B904 - a context without being a cause, as MLflow has it


def test_what_a_user_can_mend_is_a_line(tmp_path):
    lines = {
        "need 0 < alpha": lambda: alpha_beta_labels(torch.zeros(2), alpha=0.0, beta=0.0),
        "the disk is full. Free some space": lambda: fill(tmp_path / "model.pt", OSError(errno.ENOSPC, "No space left")),
        f"No such file or directory: {tmp_path / 'none.csv'}": lambda: (tmp_path / "none.csv").read_text(),
        "a part of its path is a file, not a folder": lambda: Path(__file__, "run").mkdir(parents=True),
        "MLflow's database: the disk is full": log_to_a_full_database,
    }
    for said, call in lines.items():
        assert said in (explanation(wrapped(call)) or ""), said


def test_what_a_library_finds_wrong_keeps_its_traceback():
    for call in (lambda: np.zeros(3).reshape(2), lambda: {}["x"], lambda: torch.zeros(2) @ torch.zeros(3)):
        assert explanation(wrapped(call)) is None


@pytest.mark.parametrize("variables", [{}, {"FULL_TRACEBACK": "1"}])
def test_the_command_line_of_monai_ends_with_one_line(run_python, tmp_path, variables):
    command = ["-m", "monai.bundle", "run", "--config_file", INFERENCE, "--treshold", "0.9", "--output_dir", tmp_path / "maps"]
    process = run_python(*command, **variables)
    assert process.returncode == 1
    assert not (tmp_path / "maps").exists()
    line = f"--treshold 0.9: {INFERENCE} has no key 'treshold', so it would have no effect. Was threshold meant?"
    if variables:
        assert "Traceback" in process.stderr
        assert f"ValueError: {line}" in process.stderr
    else:
        assert "Traceback" not in process.stderr
        assert process.stderr.splitlines()[-1] == f"error: {line}"


def test_a_script_ends_with_one_line(run_python, tmp_path):
    """What it writes to lies below a file, which no user may change, not even root."""
    slides = tmp_path / "slides.csv"
    slides.write_text("image,label,split\n")
    out = slides / "folder" / "all.csv"
    process = run_python("scripts/prepare.py", "tcga", out, "--table", make_table(tmp_path))
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    said = f"error: {out.parent} cannot be written: a part of its path is a file, not a folder. Write to another folder."
    assert process.stderr.splitlines()[-1] == said


@pytest.mark.parametrize(
    ("word", "expected"),
    [("~/maps", "{home}/maps"), ("--out=~/maps", "--out={home}/maps"), ("~", "{home}"), ("a~/b", "a~/b"), ("~x", "~x")],
)
def test_a_script_expands_the_home_folder_that_the_shell_has_left(monkeypatch, tmp_path, word, expected):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["script.py", "--other", word])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    begin_script()
    assert sys.argv == ["script.py", "--other", expected.format(home=tmp_path)]


def make_table(folder):
    rows = ["id\tfilename\tmd5\tsize\tstate"]
    for site in ("A1", "B6"):
        for sample in ("01A", "11A"):
            rows.append(f"x\tTCGA-{site}-A0{len(rows):02d}-{sample}-01-TS1.0a0b0c0d.svs\tx\t1\tx")
    table = folder / "table.tsv"
    table.write_text("\n".join(rows) + "\n")
    return table


# A user of the system's who is not in its list, as in a container that was started with a bare number.
UNKNOWN_USER = """
import pwd
def missing(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = missing
"""
NAMES = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME")


@pytest.fixture
def run_nameless(run_python, monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return lambda code: run_python("-c", UNKNOWN_USER + code)


def test_a_user_whom_the_system_does_not_know(run_nameless):
    """MONAI and MLflow ask for name and home folder when they are imported."""
    process = run_nameless("import shared, monai, mlflow, getpass, pathlib; print(getpass.getuser(), pathlib.Path.home())")
    assert process.stdout.splitlines()[-1:] == [f"user{os.getuid()} {tempfile.gettempdir()}"], process.stderr


def test_a_user_without_home_is_told_so_where_monai_was_there_first(run_nameless, tmp_path):
    code = f"""
import os
os.environ["USER"] = "me"
# Where Matplotlib, which MONAI imports, is older than 3.11, it asks for a home folder itself.
os.environ["MPLCONFIGDIR"] = {str(tmp_path)!r}
from monai.bundle import run
run(config_file={INFERENCE!r}, output_dir={str(tmp_path / "maps")!r})
"""
    process = run_nameless(code)
    assert process.returncode == 1
    assert "has no home folder, which MLflow needs: export HOME=FOLDER" in process.stderr
    assert not (tmp_path / "maps").exists()
