"""What an earlier call has left in a folder is kept next to what is compared now, if it is of the same data and options."""

import hashlib
import json
import logging
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from scripts import compare
from scripts.comparison.data import files_key
from scripts.comparison.planning.methods import find_methods
from scripts.comparison.rows.kept_rows import DATA_OPTIONS, check_folder, keep_row, kept_row, kept_rows, note_folder
from scripts.comparison.rows.method_row import DONE, FAILED, SKIPPED, MethodRow
from scripts.comparison.runs import Comparison, NothingMade, Tracker, _has_all_maps
from scripts.comparison.trainings.origin import Origin
from shared.data import load_manifest

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


CALLS = [Origin("python scripts/compare.py --seeds 2", "version 0.9.0, commit a", "2 CPU cores", "2026-11-30 08:00"), None]


def test_a_row_keeps_its_origins_and_one_of_an_older_version_has_none(tmp_path):
    keep_row(MethodRow("camel", "CAMEL", seeds=[0, 1], origins=[CALLS[:1], CALLS], refused="other settings"), tmp_path)
    keep_row(MethodRow("wildcat", "WILDCAT", seeds=[0]), tmp_path)
    older = tmp_path / "rows" / "wildcat.json"
    older.write_text(json.dumps({name: value for name, value in json.loads(older.read_text()).items() if name != "origins"}))
    rows = kept_rows(tmp_path)
    assert [row.origins for row in rows] == [[CALLS[:1], CALLS], []]
    # Of the call that was refused, not of the row.
    assert [row.refused for row in rows] == ["", ""]
    assert kept_row(tmp_path, "camel") == rows[0]
    assert kept_row(tmp_path, "joint_seg_cls") is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            '{"bad',
            r"expected a JSON object with the entries key, title; found text that is not JSON \(.*\)\. Delete the file: the same",
        ),
        ("[1, 2]", r"expected a JSON object with the entries key, title; found \[1, 2\]\. Delete the file"),
        ('{"key": "camel"}', r"expected a JSON object with the entries key, title; found no title\. Delete the file"),
        (
            '{"key": "camel", "title": "CAMEL", "status": "ok", "fairness": 1, "carbon": 2}',
            r"expected a row of version [\d.]+; found carbon, fairness, which it does not know\. A newer version may have "
            r"written it: continue with that one, or give another --out",
        ),
        ('{"key": "camel", "title": "CAMEL", "origins": [3]}', r"expected as origins a list for each seed; found \[3\]\. Delete"),
        (
            '{"key": "camel", "title": "CAMEL", "seeds": [0, 1], "origins": [[]]}',
            r"expected origins of each of the 2 seeds; found 1\. Delete the file",
        ),
    ],
)
def test_a_row_that_cannot_be_read(tmp_path, content, problem):
    file = tmp_path / "rows" / "camel.json"
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}: {problem}"):
        kept_rows(tmp_path)


@pytest.mark.parametrize(
    ("name", "expected", "remedy"),
    [
        (
            "comparison.json",
            "manifest, sha256, class_names",
            "Give another --out. If the folder holds a comparison of this manifest",
        ),
        ("rows/camel.json", "key, title", "Delete the file: the same command writes it again, and repeats no training"),
    ],
)
def test_a_damaged_file_ends_the_command_with_its_name(images_csv, tmp_path, monkeypatch, capsys, name, expected, remedy):
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_text('{"bad')
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["compare.py", "--manifest", str(images_csv), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        compare.main()
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert f"error: {file}: expected a JSON object with the entries {expected}; found text that is not JSON (" in said
    assert remedy in said
    assert file.read_text() == '{"bad'


def test_a_damaged_configuration_of_a_bundle_is_named(tmp_path):
    configs = tmp_path / "bundles" / "mine" / "configs"
    configs.mkdir(parents=True)
    for name, read in (("metadata", "title"), ("train", "training"), ("inference", "inference")):
        for other in ("metadata", "train", "inference"):
            (configs / f"{other}.json").write_text("{" if other == name else '{"name": "Mine"}')
        (found,) = find_methods(tmp_path / "bundles", ["mine"])
        with pytest.raises(ValueError, match=rf"{name}\.json: expected a JSON object.*Correct this configuration"):
            getattr(found, read)


@pytest.fixture
def comparison(data, tmp_path):
    """A comparison of some seeds with scores that need no maps."""

    def make(*seeds):
        made = Comparison(data, tmp_path, [], list(seeds), 1.0, {}, Tracker("sqlite://", "comparison"))
        made._keep = lambda row: True
        return made

    return make


def finish(folder, key, seeds, name="evaluation/metrics.json"):
    for seed in seeds:
        file = folder / "runs" / key / f"seed={seed}" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")


def test_fewer_seeds_keep_those_that_are_finished(comparison, tmp_path, caplog):
    keep_row(MethodRow("camel", "CAMEL", seeds=[0, 1, 2]), tmp_path)
    keep_row(MethodRow("colour_only", "Colour only", seeds=[0, 1]), tmp_path)
    finish(tmp_path, "camel", [0, 1])
    finish(tmp_path, "colour_only", [0, 1], "training.json")
    with caplog.at_level(logging.INFO):
        # The training of seed 2 is gone.
        assert comparison(0)._all_seeds("camel") == [0, 1]
    assert "camel: an earlier call has finished the seeds 1 too, and they stay in its row" in caplog.text
    assert comparison(0, 1, 2, 3)._all_seeds("camel") == [0, 1, 2, 3]
    assert comparison(0)._all_seeds("colour_only") == [0, 1]
    assert comparison(0)._all_seeds("wildcat") == [0]


@pytest.mark.parametrize("status", [SKIPPED, FAILED])
def test_a_finished_row_stays_where_nothing_was_made(comparison, tmp_path, status):
    keep_row(MethodRow("camel", "CAMEL", seeds=[0, 1], settings={"mpp": 0.5}), tmp_path)
    before = (tmp_path / "rows" / "camel.json").read_text()
    made = comparison(0)
    row = made._as_before(MethodRow("camel", "CAMEL"), NothingMade(status, "needs something else"))
    assert (row.status, row.seeds, row.settings) == (DONE, [0, 1], {"mpp": 0.5})
    assert row.refused == row.reason
    assert row.reason.endswith(f"with the settings of this one it is {status}: needs something else")
    assert (tmp_path / "rows" / "camel.json").read_text() == before
    new = made._as_before(MethodRow("wildcat", "WILDCAT"), NothingMade(status, "needs something else"))
    assert (new.status, new.reason, new.refused) == (status, "needs something else", "")


def test_a_failure_replaces_no_finished_row(comparison, tmp_path):
    """A method whose maps are gone fails now, and the call after the next finds its seeds again."""
    keep_row(MethodRow("everything_is_tumour", "Everything is tumour", seeds=[0]), tmp_path)
    before = (tmp_path / "rows" / "everything_is_tumour.json").read_text()
    made = comparison(0)
    made._baseline = made._ceiling = lambda *arguments: (_ for _ in ()).throw(OSError("no space left"))
    rows = {row.key: row for row in made.run()}
    assert (rows["everything_is_tumour"].status, rows["colour_only"].status) == (FAILED, FAILED)
    assert (tmp_path / "rows" / "everything_is_tumour.json").read_text() == before
    assert [path.name for path in (tmp_path / "rows").iterdir()] == ["everything_is_tumour.json"]


def test_a_row_whose_maps_were_made_anew_is_left_out(data, tmp_path, caplog):
    """As after a kill between new maps and the new row: old settings would stand beside scores of new maps."""
    made = Comparison(data, tmp_path, [], [0], 1.0, {}, Tracker("sqlite://", "comparison"))
    note = tmp_path / "runs" / "camel" / "seed=0" / "mapped.json"
    note.parent.mkdir(parents=True)
    note.write_text("{}")
    row = MethodRow("camel", "CAMEL", seeds=[0], mapped=[hashlib.sha256(b"{}").hexdigest()])
    keep_row(row, tmp_path)
    assert kept_row(tmp_path, "camel").mapped == row.mapped
    made._scores = lambda key, seed: (_ for _ in ()).throw(ValueError("scored"))
    assert not made._keep(row)
    assert "left out: ValueError: scored" in caplog.text
    note.write_text('{"command": []}')
    assert not made._keep(row)
    assert "CAMEL of an earlier call is left out: its maps have been made anew since." in caplog.text


@pytest.mark.parametrize(
    ("split", "name", "left_out"), [("test", "image", True), ("test", "mask", False), ("train", "mask", True)]
)
def test_a_row_of_files_that_were_changed_in_place_is_left_out(data, tmp_path, caplog, split, name, left_out):
    """Its maps would stand beside those of other images; a test mask that was corrected is scored with, whoever made the maps."""
    rows = [{**row, **{kind: row[kind] and shutil.copy(row[kind], tmp_path) for kind in ("image", "mask")}} for row in data.rows]

    def comparison():
        made = Comparison(replace(data, rows=rows), tmp_path / "out", [], [0], 1.0, {}, Tracker("sqlite://", "comparison"))
        made._scores = lambda key, seed: (_ for _ in ()).throw(ValueError("scored"))
        return made

    row = MethodRow("camel", "CAMEL", seeds=[0], files=comparison()._files)
    keep_row(row, tmp_path / "out")
    assert not comparison()._keep(kept_row(tmp_path / "out", "camel"))
    assert "left out: ValueError: scored" in caplog.text
    changed = next(row[name] for row in rows if row["split"] == split and row[name])
    Path(changed).write_bytes(Path(changed).read_bytes() + b" ")
    assert [row.key for row in comparison().run(baselines=False)] == []
    assert ("have been changed, moved or copied since. Compare it again" in caplog.text) == left_out


def test_files_that_were_changed_in_place_are_others(changed_csv, tmp_path):
    path = changed_csv()
    records = load_manifest(path)
    for record in records:
        for name in ("image", "mask"):
            record[name] = shutil.copy(record[name], tmp_path)
    before = files_key(records)
    assert files_key(records[::-1]) == before
    Path(records[0]["mask"]).write_bytes(Path(records[1]["mask"]).read_bytes())
    assert files_key(records) != before


def test_maps_are_finished_while_they_are_there(maps, tmp_path):
    shutil.copytree(maps, tmp_path / "maps")
    assert _has_all_maps(tmp_path / "maps")
    next((tmp_path / "maps").glob("*.ome.tif")).unlink()
    assert not _has_all_maps(tmp_path / "maps")
    assert not _has_all_maps(tmp_path)


def test_a_damaged_configuration_of_one_method_stops_no_other(comparison, tmp_path):
    keep_row(MethodRow("camel", "CAMEL", seeds=[0]), tmp_path)
    keep_row(MethodRow("wildcat", "WILDCAT", seeds=[0]), tmp_path)
    config = tmp_path / "runs" / "camel" / "seed=0" / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text('{"bad')
    made = comparison(0)
    assert made._as_before(MethodRow("wildcat", "WILDCAT"), NothingMade(SKIPPED, "needs masks")).refused
    row = made._as_before(MethodRow("camel", "CAMEL"), NothingMade(SKIPPED, "needs masks"))
    assert row.status == SKIPPED
    assert row.reason.startswith(f"needs masks; {config}: expected a JSON object; found text that is not JSON")


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
