"""A new bundle is one folder: it is found, trained and scored together with another, and no other file has to know its name."""

import csv
import sys

import pytest

from scripts import compare
from tests.bundles.newcomer import ROOT, add_newcomer


@pytest.mark.slow
def test_a_new_bundle_is_compared(images_csv, tracked_folder, tmp_path, monkeypatch):
    add_newcomer(tmp_path, "cdws_mil", "newcomer", num_stages=1)
    bundles = add_newcomer(tmp_path, "mil_boosting", "another")
    options = ["--manifest", images_csv, "--bundles", bundles, "--out", tracked_folder, "--seeds", 1, "--mpp", 0.5]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, options), "--examples", "1", "--no_baselines"])
    with pytest.raises(SystemExit) as stop:
        compare.main()
    with (tracked_folder / "table.csv").open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert {name: (row["status"], row["reason"]) for name, row in rows.items()} == {"another": ("ok", ""), "newcomer": ("ok", "")}
    assert stop.value.code == 0
    assert [rows["newcomer"][name] for name in ("labels", "areas", "masks")] == ["4", "2", "0"]
    assert [rows["another"][name] for name in ("labels", "areas", "masks")] == ["4", "0", "0"]
    assert all(0 <= float(row["iou"]) <= 1 for row in rows.values())
