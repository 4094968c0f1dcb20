"""The command lines as a user starts them."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from shared.data import load_manifest
from shared.synthetic import DemoPlan, SlidePlan, write_demo

RunPython = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def slides_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = DemoPlan(images={"train": 0, "val": 0, "test": 0}, slides=(SlidePlan("train", 0.3, (900, 1100)),))
    return write_demo(tmp_path_factory.mktemp("demo") / "slides", plan) / "slides.csv"


def test_prepare_regions_writes_a_manifest(run_python: RunPython, slides_csv: Path, tmp_path: Path) -> None:
    finished = run_python("scripts/prepare.py", "regions", slides_csv, tmp_path / "regions.csv", "--size_px", 160)
    assert finished.returncode == 0, finished.stderr
    records = load_manifest(tmp_path / "regions.csv")
    assert f"{len(records)} regions" in finished.stdout
    assert {record["label"] for record in records} == {0, 1}


def test_prepare_regions_says_what_is_wrong(run_script: Callable[..., tuple[str, str]], slides_csv: Path, tmp_path: Path) -> None:
    missing = slides_csv.with_name("none.csv")
    error, _ = run_script("prepare.py", "regions", missing, tmp_path / "regions.csv", "--size_px", 160)
    assert "none.csv does not exist" in error
    assert not (tmp_path / "regions.csv").exists()


def test_benchmark_compares_both_kinds_of_step(run_python: RunPython, tmp_path: Path) -> None:
    result = tmp_path / "cmil.json"
    options = ["--backbone", "resnet10", "--image_size_px", 64, "--batch_size", 2, "--repeats", 1, "--threads", 1]
    finished = run_python("scripts/benchmark.py", "--json", result, "cmil", "--instances_per_side", 2, *options)
    assert finished.returncode == 0, finished.stderr
    row = json.loads(result.read_text())["results"]["N=2"]
    assert row["speedup"] == pytest.approx(row["naive"]["seconds"] / row["ours"]["seconds"])
