"""The command that finds the data sets by itself."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import PREPARE, Prepare

MODULES = PREPARE.parent / "preparation"
NAMES = sorted(path.stem for path in MODULES.glob("*.py") if "def prepare(" in path.read_text(encoding="utf-8"))
OPTIONS = sorted(path.stem for path in MODULES.glob("*.py") if path.stem not in ("__init__", *NAMES))

OWN = '''"""Prepare what is our own."""

def add_arguments(parser):
    parser.add_argument("count", type=int)

def prepare(arguments):
    for number in range(arguments.count):
        if number == 2:
            raise ValueError("2 is too many")
        yield number
'''


def run(script: object, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, check=False)


def test_help_names_every_data_set_and_imports_none() -> None:
    command = [sys.executable, "-X", "importtime", str(PREPARE), "--help"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    shown = " ".join(finished.stdout.split())
    assert len(NAMES) > 10
    for name in NAMES:
        docstring = (MODULES / f"{name}.py").read_text(encoding="utf-8").removeprefix('"""')
        assert f" {name} {docstring.splitlines()[0]}" in shown
    imported = {line.rpartition("|")[2].strip() for line in finished.stderr.splitlines()}
    assert "shared.front_door" in imported
    assert not {name for name in imported if name.split(".")[0] in ("torch", "numpy", "monai") or "preparation" in name}


@pytest.mark.parametrize("name", NAMES)
def test_help_of_a_data_set(name: str, prepare: Prepare) -> None:
    error, printed = prepare(name, "--help")
    assert error == "0"
    assert f"python scripts/prepare.py {name} " in printed
    assert "show this help" in printed


def test_the_documents_name_every_data_set() -> None:
    pages = [(PREPARE.parents[1] / "docs" / page).read_text(encoding="utf-8") for page in ("data.md", "data_sets.md")]
    named = re.findall(r"prepare\.py ([a-z_0-9]+)", "".join(pages))
    assert not set(NAMES) - set(named)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ebhi"], "there is no data set 'ebhi': was ebhi_seg meant?"),
        (["zzz"], f"there is no data set 'zzz': choose from {', '.join(NAMES)}"),
        ([OPTIONS[0]], f"there is no data set {OPTIONS[0]!r}"),
        ([], "the following arguments are required: NAME"),
        (["--seed", "glas", "a", "b"], "unrecognized arguments: --seed"),
    ],
)
def test_a_name_that_is_none(words: list[str], message: str) -> None:
    finished = run(PREPARE, *words)
    assert finished.returncode == 2
    assert finished.stderr.splitlines()[-1].startswith(f"prepare.py: error: {message}")


def test_an_own_data_set_is_one_module(tmp_path: Path) -> None:
    """Nothing else has to know its name."""
    (tmp_path / "scripts/preparation").mkdir(parents=True)
    (tmp_path / "shared").symlink_to(PREPARE.parents[1] / "shared")
    script = shutil.copy(PREPARE, tmp_path / "scripts")
    (tmp_path / "scripts/preparation/own.py").write_text(OWN)
    assert "own       Prepare what is our own." in run(script, "--help").stdout
    assert run(script, "own", "2").stdout == "0\n1\n"
    finished = run(script, "own", "3")
    assert (finished.returncode, finished.stdout, finished.stderr) == (1, "0\n1\n", "error: 2 is too many\n")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("regions", ["images.csv", "images.csv", "--size_px", "64"]),
        ("patches", ["images.csv", "images.csv"]),
        ("consensus", ["images.csv", "second.csv", "."]),
        ("tcga", ["images.csv", "--table", "images.csv"]),
    ],
)
def test_a_manifest_is_not_replaced_by_what_is_made_of_it(
    name: str, words: list[str], prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images.csv").write_text("image,label\na.tif,1\n")
    error, _ = prepare(name, *words)
    assert "images.csv is a file to read, and images.csv, which is to be written" in error
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("images.csv", "image,label\na.tif,1\n")]
