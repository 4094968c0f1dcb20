"""The command line."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "pack.py"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the script with these arguments: its exit status or error, and what it printed."""

    def run_script(*arguments):
        monkeypatch.setattr(sys, "argv", ["pack.py", *map(str, arguments)])
        code = None
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run_script


def test_every_bundle_without_weights_is_named(run, tmp_path):
    error, _ = run("--out", tmp_path / "dist", "--weights", tmp_path / "{name}", "--model_info", tmp_path / "model_info.json")
    assert f"camel has no weights: {tmp_path}/camel/model.pt does not exist" in error
    assert f"alpha_beta_mil has no weights: {tmp_path}/alpha_beta_mil/model.pt" in error
    assert not (tmp_path / "dist").exists()


def test_one_folder_is_not_the_weights_of_two_bundles(run, tmp_path):
    error, _ = run("camel", "cdws_mil", "--out", tmp_path, "--weights", tmp_path / "run")
    assert "is one folder for 2 bundles: write {name} where their names differ" in error


def test_an_unknown_bundle_and_another_form_of_release_are_errors(run, tmp_path):
    assert "has no bundle dromedary" in run("dromedary", "--out", tmp_path)[0]
    assert "--release must be owner/repository/tag" in run("camel", "--out", tmp_path, "--release", "someone")[0]


def test_verifying_says_what_failed(run, tmp_path):
    damaged = tmp_path / "camel_v0.1.0.zip"
    damaged.write_bytes(b"PK")
    status, printed = run("--verify", damaged, tmp_path / "none_v1.zip", "--model_info", tmp_path / "model_info.json")
    assert status == 1
    assert printed.count("archive") == 4
    assert "is not a complete zip file" in printed
    assert "none_v1.zip does not exist" in printed
