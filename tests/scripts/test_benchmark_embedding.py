"""`scripts/benchmark.py embedding` as a user starts it, on a slide of a few tiles."""

import json

import pytest


def test_the_features_are_timed_beside_the_encoder_alone(run_python, tmp_path):
    options = {"tiles": 64, "tile_size_px": 256, "margin_px": 0, "batch_size": 8, "threads": 1, "device": "cpu"}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = ["scripts/benchmark.py", "--json", tmp_path / "result.json", "embedding", *arguments]
    process = run_python(*command, "--pauses", 2, "--pause_batches", 1, "--size_px", 4096, 2304)
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "result.json").read_text())["results"]
    # The patch has 64 tiles of 64 cells; tissue found a little beyond its border adds some.
    assert 60 <= results["tiles"] <= 64 + 3 * 9
    assert 64 * 60 <= results["features"] <= 64 * results["tiles"]
    assert results["of_best_pure"] == pytest.approx(results["tiles_per_s"] / max(results["pure_tiles_per_s"].values()))
    assert results["stages_s"].keys() == {"tissue", "waiting for tiles", "network", "storing"}
    assert all(seconds >= 0 for seconds in results["stages_s"].values())
    assert "end to end" in process.stdout
