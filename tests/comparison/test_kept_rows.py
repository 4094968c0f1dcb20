"""What an earlier call has left in a folder is kept next to what is compared now, if it is of the same data and options."""

import json
import logging
import re
import sys
from pathlib import Path

import pytest

from scripts import compare
from scripts.comparison.kept_rows import DATA_OPTIONS, check_folder, keep_row, kept_rows, note_folder
from scripts.comparison.method_row import DONE, MethodRow

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("normal", "tumour")
OPTIONS = {
    "region_size_px": 320,
    "region_mpp": 0.5,
    "tile_mpp": None,
    "mpp": 1.0,
    "tumour_classes": None,
    "annotation_frame": None,
    "select": "own",
    "truth": None,
}


@pytest.mark.parametrize(
    ("name", "value", "expected", "found"),
    [
        ("region_size_px", 256, "--region_size_px 320", "--region_size_px 256"),
        ("region_mpp", 1.0, "--region_mpp 0.5", "--region_mpp 1.0"),
        ("tile_mpp", 0.25, "no --tile_mpp", "--tile_mpp 0.25"),
        ("mpp", 2.0, "--mpp 1.0", "--mpp 2.0"),
        ("tumour_classes", ["tumour", "in situ"], "no --tumour_classes", "--tumour_classes tumour 'in situ'"),
        ("annotation_frame", "level0", "no --annotation_frame", "--annotation_frame level0"),
        ("select", "labels", "--select own", "--select labels"),
        ("truth", "masks_only", "no --truth", "--truth masks_only"),
    ],
)
def test_other_options_are_refused(images_csv, tmp_path, name, value, expected, found):
    note_folder(tmp_path, images_csv, NAMES, OPTIONS | {"seeds": 3})
    # Of the same data, and whatever does not decide what is compared.
    check_folder(tmp_path, images_csv, NAMES, OPTIONS | {"seeds": 5})
    message = f"{tmp_path} holds a comparison of the same data with other options: expected {expected}; found {found}. Give"
    with pytest.raises(ValueError, match=re.escape(message)):
        check_folder(tmp_path, images_csv, NAMES, OPTIONS | {name: value})


def test_options_are_those_of_the_command(images_csv, monkeypatch):
    assert set(OPTIONS) == set(DATA_OPTIONS)
    monkeypatch.setattr(sys, "argv", ["compare.py", "--manifest", str(images_csv), "--out", "out"])
    assert vars(compare.parsed()) | OPTIONS == vars(compare.parsed())


def test_an_older_note_is_of_masks_where_given(images_csv, tmp_path):
    """Version 0.7.0 scored slides with label 0 whatever an overlay said."""
    note_folder(tmp_path, images_csv, NAMES, OPTIONS)
    note = json.loads((tmp_path / "comparison.json").read_text())
    del note["options"]["truth"]
    (tmp_path / "comparison.json").write_text(json.dumps(note))
    check_folder(tmp_path, images_csv, NAMES, OPTIONS | {"truth": "masks_where_given"})
    with pytest.raises(ValueError, match=r"expected --truth masks_where_given; found --truth masks_only\. Give the same"):
        check_folder(tmp_path, images_csv, NAMES, OPTIONS | {"truth": "masks_only"})


def test_a_note_without_options_is_told(images_csv, tmp_path, caplog):
    note_folder(tmp_path, images_csv, NAMES, OPTIONS)
    text = (tmp_path / "comparison.json").read_text()
    (tmp_path / "comparison.json").write_text(re.sub(r',\s*"options": {.*?}', "", text, flags=re.DOTALL))
    with caplog.at_level(logging.WARNING):
        check_folder(tmp_path, images_csv, NAMES, OPTIONS)
    assert "comparison.json does not record the options with which its rows were made" in caplog.text


def test_a_row_of_0_7_0_gets_the_lists_and_nulls_of_its_training(tmp_path):
    """Its note had neither, and published numbers depend on them."""
    recorded = {"etas": [1, 2], "num_folds": "$None", "lr": 0.1, "network_def": {"_target_": "UNet"}, "_desc_lr": "The rate."}
    config = tmp_path / "runs" / "camel" / "seed=1" / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps(recorded))
    for key, seeds in (("camel", [1, 2]), ("colour_only", [0])):
        keep_row(MethodRow(key, key, seeds=seeds, settings={"area": None}, config={"mode": "S", "lr": 0.1}), tmp_path)
    trained, baseline = kept_rows(tmp_path, [])
    assert trained.config == {"mode": "S", "lr": 0.1, "etas": [1, 2], "num_folds": None, "area": None}
    assert baseline.config == {"mode": "S", "lr": 0.1, "area": None}


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("wildcat", "every method was skipped"),
        ("camel", "error: --reference camel: expected one of the compared methods: alpha_beta_mil, wildcat"),
    ],
)
def test_a_method_of_an_earlier_call_is_a_reference(images_csv, tracked_folder, monkeypatch, capsys, reference, said):
    keep_row(MethodRow("wildcat", "WILDCAT", status=DONE, seeds=[0]), tracked_folder)
    options = ["--manifest", images_csv, "--methods", "alpha_beta_mil", "--no_baselines", "--out", tracked_folder]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, options), "--reference", reference])
    with pytest.raises(SystemExit) as stop:
        compare.main()
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
