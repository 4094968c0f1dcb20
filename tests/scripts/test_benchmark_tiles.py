"""`scripts/benchmark.py tiles` as a user starts it."""

import json
from pathlib import Path

import pytest

from shared.synthetic import DemoPlan, SlidePlan, write_demo

ROOT = Path(__file__).resolve().parents[2]


def test_tiles_are_counted_alone_and_together(run_python, tmp_path):
    slides = [SlidePlan("train", 0.3, (600, 700)), SlidePlan("train", 0.0, (620, 640))]
    folder = write_demo(tmp_path / "slides", DemoPlan(images={}, slides=slides))
    options = {"manifest": folder / "slides.csv", "tissue_dir": tmp_path / "tissue", "backbone": "resnet10", "tile_size_px": 32}
    options |= {"tiles_per_slide": 6, "num_workers": 1, "threads": 1, "device": "cpu", "steps": 2, "rounds": 2}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = ["scripts/benchmark.py", "--json", tmp_path / "result.json", "tiles", *arguments]
    process = run_python(*command)
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "result.json").read_text())["results"]
    assert results["tiles_per_s"].keys() == {"loader", "one_by_one", "model", "both"}
    assert all(speed > 0 for speed in results["tiles_per_s"].values())
    assert results["both_of_model"] == pytest.approx(results["tiles_per_s"]["both"] / results["tiles_per_s"]["model"])
    assert len(list((tmp_path / "tissue").glob("*.png"))) == 2


def test_reading_is_compared_with_openslide_alone(run_python, tmp_path):
    folder = write_demo(tmp_path / "slides", DemoPlan(images={}, slides=[SlidePlan("train", 0.3, (600, 700))]))
    (slide,) = folder.rglob("*.tif")
    options = ["--slide", slide, "--tile_size_px", 32, "--tiles_per_slide", 5, "--rounds", 1]
    process = run_python("scripts/benchmark.py", "--json", tmp_path / "result.json", "tiles", *map(str, options))
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "result.json").read_text())["results"]
    speeds = results["tiles_per_cpu_s"]
    assert results["of_openslide"] == pytest.approx(speeds["ours"] / speeds["openslide"])
