"""The command lines as a user starts them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from shared.data import load_manifest
from shared.synthetic import DemoPlan, SlidePlan, write_demo

ROOT = Path(__file__).resolve().parents[2]


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.fixture(scope="module")
def slides_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = DemoPlan(images={"train": 0, "val": 0, "test": 0}, slides=(SlidePlan("train", 0.3, (900, 1100)),))
    return write_demo(tmp_path_factory.mktemp("demo") / "slides", plan) / "slides.csv"


def test_prepare_regions_writes_a_manifest(slides_csv: Path, tmp_path: Path) -> None:
    finished = run("prepare.py", "regions", slides_csv, tmp_path / "regions.csv", "--size_px", 160)
    assert finished.returncode == 0, finished.stderr
    records = load_manifest(tmp_path / "regions.csv")
    assert f"{len(records)} regions" in finished.stdout
    assert {record["label"] for record in records} == {0, 1}


def test_prepare_regions_says_what_is_wrong(slides_csv: Path, tmp_path: Path) -> None:
    finished = run("prepare.py", "regions", slides_csv.with_name("none.csv"), tmp_path / "regions.csv", "--size_px", 160)
    assert finished.returncode != 0
    assert "none.csv does not exist" in finished.stderr
    assert not (tmp_path / "regions.csv").exists()


def test_benchmark_compares_both_kinds_of_step(tmp_path: Path) -> None:
    result = tmp_path / "cmil.json"
    options = ["--backbone", "resnet10", "--image_size_px", 64, "--batch_size", 2, "--repeats", 1, "--threads", 1]
    finished = run("benchmark.py", "--json", result, "cmil", "--instances_per_side", 2, *options)
    assert finished.returncode == 0, finished.stderr
    row = json.loads(result.read_text())["results"]["N=2"]
    assert row["speedup"] == pytest.approx(row["naive"]["seconds"] / row["ours"]["seconds"])
