"""`scripts/doctor.py`: it runs anywhere, and what is wrong is one line with a remedy."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.diagnosis import machine, software
from scripts.diagnosis.finding import Finding, Level, findings_of
from scripts.doctor import CHECKS

ROOT = Path(__file__).resolve().parents[2]


def doctor(*python: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*python, ROOT / "scripts/doctor.py"], capture_output=True, text=True, cwd=ROOT)


def lines(process: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What it printed of each thing that it looked at."""
    return {line[9:30].strip(): line for line in process.stdout.splitlines()[:-1]}


def test_it_finds_this_machine_well():
    process = doctor(sys.executable)
    assert process.stderr == ""
    assert process.returncode == int("PROBLEM" in process.stdout)
    found = lines(process)
    assert {"Python", "packages", "CPU", "OpenSlide", "memory", "disk", "current folder"} <= found.keys()
    assert found["Python"].startswith("ok")
    assert sys.executable in found["Python"]


def test_it_runs_without_any_package():
    process = doctor(sys.executable, "-S", "-I")
    assert process.stderr == ""
    assert process.returncode == 1
    found = lines(process)
    assert "missing torch, monai, " in found["packages"]
    assert found["packages"].endswith("pip install -r requirements.txt -c constraints.txt")
    assert "not checked, because torch is missing" in found["gpus"]
    assert "disk" in found


def test_a_broken_check_does_not_end_the_others():
    def slide_readers() -> Iterator[Finding]:
        yield Finding("first", Level.OK, "there")
        raise OSError("libcudart.so.13: cannot open shared object file")

    first, broken = findings_of(slide_readers)
    assert first.level is Level.OK
    assert str(broken).startswith("PROBLEM  slide readers ")
    assert "libcudart.so.13" in broken.found


def test_versions_that_were_not_tried_are_named(tmp_path):
    (tmp_path / "core.txt").write_text("numpy>=2.1,<3  # arrays\npillow>=900\n")
    (tmp_path / "all.txt").write_text('-r core.txt\nno-such-package==1\nfor-others; platform_system == "Windows"\n--no-deps\n')
    requirements = software.requirements_of(tmp_path / "all.txt")
    assert requirements == {"numpy": "numpy>=2.1,<3", "pillow": "pillow>=900", "no-such-package": "no-such-package==1"}
    assert software.requirements_of(tmp_path / "all.txt", with_included=False).keys() == {"no-such-package"}
    problem = software.unfit(requirements)
    assert problem.startswith("missing no-such-package; pillow is ")
    assert problem.endswith(", expected >=900")


@pytest.mark.parametrize(
    ("check", "limit", "said"),
    [
        (machine.disk, "LEAST_DISK_GIB", "free some space"),
        (machine.memory, "LEAST_MEMORY_GIB", "are needed for training"),
        (machine.memory, "LEAST_SHARED_GIB", "--shm-size"),
    ],
)
def test_too_little_is_a_problem_with_a_remedy(monkeypatch, check, limit, said):
    monkeypatch.setattr(machine, limit, 10**9)
    assert any(one.level is Level.PROBLEM and said in one.remedy for one in check())


@pytest.mark.parametrize(("load", "noted"), [(0.0, False), (1e6, True)])
def test_other_work_on_the_cores_is_noted_with_what_helps(monkeypatch, load, noted):
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    notes = [finding for finding in machine.processor() if finding.level is Level.NOTE]
    assert ["OMP_NUM_THREADS=1" in note.remedy for note in notes] == [True] * noted


def test_a_home_that_cannot_be_written_to(monkeypatch):
    monkeypatch.setenv("HOME", "/nonexistent")
    found = {one.name: one for one in machine.rights()}
    assert found["home folder"].level is Level.PROBLEM
    assert "export HOME=" in found["home folder"].remedy


def test_every_file_of_optional_requirements_is_looked_at():
    others = {"requirements-core.txt", "requirements-cuda12.txt", "requirements-dev.txt"}
    named = {path.name for path in ROOT.glob("requirements-*.txt")} - others
    assert {name for name in named if not name.endswith(("-test.txt", "-no-deps.txt"))} == set(software.OPTIONAL)


def test_every_check_is_called():
    written = {check for module in (machine, software) for check in vars(module).values() if hasattr(check, "__annotations__")}
    assert {check for check in written if check.__annotations__.get("return") == "Iterator[Finding]"} == set(CHECKS)
