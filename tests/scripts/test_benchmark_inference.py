"""`scripts/benchmark.py inference` as a user starts it, on a slide of a few tiles."""

import json
from pathlib import Path

import numpy as np
import pytest

from scripts.benchmarks.repeated_slide import write_repeated_slide
from shared.wsi import Slide, tissue_mask

ROOT = Path(__file__).resolve().parents[2]


def test_the_map_is_timed_beside_the_network_alone(run_python, tmp_path):
    options = {
        "tiles": 64,
        "backbone": "resnet10",
        "batch_size": 8,
        "threads": 1,
        "device": "cpu",
        "pauses": 2,
        "pause_batches": 1,
    }
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = ["scripts/benchmark.py", "--json", tmp_path / "result.json", "inference", *arguments]
    command += ["--no_compile", "--size_px", "4096", "2304"]
    process = run_python(*command)
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "result.json").read_text())["results"]
    # The patch has 64; tissue found a little beyond its border adds tiles next to it.
    assert 60 <= results["tiles"] <= 64 + 3 * 9
    rates = results["pure_tiles_per_s"]
    assert "fp32 NCHW" in rates
    assert len(rates) == 2
    assert results["of_best_pure"] == pytest.approx(results["tiles_per_s"] / max(rates.values()))
    assert results["startup_s"].keys() == {"import", "first batch", "first slide"}
    assert results["stages_s"].keys() == {"overview and tissue", "waiting for tiles", "network", "storing", "results"}
    assert all(seconds >= 0 for seconds in results["stages_s"].values())
    assert 0.1 < results["peak_gib"] < 8
    assert "end to end" in process.stdout


def test_slides_of_repeated_tiles_are_what_they_say(run_python, tmp_path):
    path = tmp_path / "slide.tif"
    # 3 x 2 patches, of which two hold tissue.
    assert write_repeated_slide(path, (6400, 4200), num_tissue_tiles=100) == 128
    with Slide(path) as slide:
        assert (slide.size_px, slide.mpp) == ((6400, 4200), 0.5)
        assert [round(downsample) for downsample in slide.level_downsamples] == [1, 8, 64]
        thumbnail = slide.thumbnail(800)
        corner = slide.read_region((6000, 4000), 200, 0.5)
        centre = slide.read_region((2048 + 512, 512), 256, 0.5)
        repeated = [slide.read_region((2048 + 512, y + 512), 256, 0.5) for y in (0, 2048)]
    share = tissue_mask(thumbnail).mean()
    assert share == pytest.approx(2 * 2048**2 / (6400 * 4200), rel=0.1)
    assert (corner > 250).all()
    assert centre.std() > 10
    np.testing.assert_array_equal(*repeated)
