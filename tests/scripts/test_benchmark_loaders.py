"""`scripts/benchmark.py loaders` as a user starts it."""

import json

import pytest


def test_every_kind_of_sample_is_measured_in_both_ways(run_python, tmp_path):
    command = ("scripts/benchmark.py", "--json", tmp_path / "result.json", "loaders", "--samples", "2", "--shrink", "10")
    process = run_python(*command)
    assert process.returncode == 0, process.stderr
    rows = json.loads((tmp_path / "result.json").read_text())["results"]
    assert len(rows) == 8
    for name, row in rows.items():
        assert row["before"] > 0
        assert row["ratio"] == pytest.approx(row["before"] / row["now"])
        assert ("with_gpu" in row) == (not name.startswith("alpha/beta"))
        assert name in process.stdout
