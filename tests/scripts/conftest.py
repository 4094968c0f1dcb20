"""Scripts run in the tests' own process, which saves the seconds that torch takes to import."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Run a script of this name with these arguments: its error, or nothing, and what it printed."""

    def run(name: str, *arguments: object) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        error = ""
        try:
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        except SystemExit as stop:
            error = str(stop.code)
        return error, capsys.readouterr().out

    return run
