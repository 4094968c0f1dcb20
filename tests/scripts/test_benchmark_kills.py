"""`scripts/benchmark.py kills` as a user starts it, with one kill; and that it would see a difference."""

import json

import h5py
import numpy as np
import pytest
import tifffile
import torch

from scripts.benchmarks.kills import differences


def test_a_killed_cohort_ends_as_an_undisturbed_one(run_python, tmp_path):
    command = ["scripts/benchmark.py", "--json", tmp_path / "result.json", "kills", "--workflows", "cohort", "--kills", "1"]
    process = run_python(*command, "--folder", tmp_path / "kills")
    assert process.returncode == 0, process.stderr
    found = json.loads((tmp_path / "result.json").read_text())["results"]["cohort"]
    assert (found["kills"], found["differences"]) == (1, [])
    assert found["runs"] >= 1
    # Map, outlines and picture of each slide, and the table.
    assert found["files"] >= 3 * 30 + 1


@pytest.fixture
def folders(tmp_path):
    """Two folders of the same results."""
    for name in ("a", "b"):
        folder = tmp_path / name / "out"
        (folder / "stage").mkdir(parents=True)
        torch.save({"weight": torch.zeros(3)}, folder / "stage/model.pt")
        tifffile.imwrite(folder / "map.ome.tif", np.zeros((8, 8), np.uint8))
        with h5py.File(folder / "features.h5", "w") as file:
            file["features"] = np.zeros((2, 3), np.float32)
        (folder / "slides.csv").write_text(f"slide,seconds\nx,{len(name)}\n")
        (folder / "metrics.json").write_text(json.dumps({"iou": 0.5, "folder": str(folder)}))
    return tmp_path / "a/out", tmp_path / "b/out"


def test_the_same_results_are_the_same(folders):
    (folders[1] / "slides.csv").write_text("slide,seconds\nx,9\n")
    # Of a process that was killed while it wrote its settings.
    (folders[1] / "settings.json.0123456789ab.part").write_text("{")
    assert list(differences(*folders)) == []


@pytest.mark.parametrize("name", ["stage/model.pt", "map.ome.tif", "features.h5", "slides.csv", "metrics.json", "new.csv"])
def test_a_difference_is_seen(folders, name):
    path = folders[1] / name
    if name.endswith(".pt"):
        torch.save({"weight": torch.tensor([0.0, 0.0, 1e-9])}, path)
    elif name.endswith(".tif"):
        tifffile.imwrite(path, np.eye(8, dtype=np.uint8))
    elif name.endswith(".h5"):
        with h5py.File(path, "a") as file:
            file["features"][0, 0] = 1
    else:
        path.write_text("slide,seconds\ny,1\n" if name.endswith(".csv") else '{"iou": 0.6}')
    (found,) = differences(*folders)
    assert found.startswith(name)
