"""The command as a user starts it, with real trainings as processes of their own."""

import csv
import json
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from scripts import compare
from scripts.comparison.trainings.attempts import last_line, mean_seconds
from shared.data import load_manifest, write_manifest
from shared.engines.folder_lock import FolderLock

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 1800

# Says who it is and waits for a file, then fails.
BROKEN = {
    "imports": ["$import os", "$import pathlib", "$import time"],
    "bundle_root": ".",
    "output_dir": None,
    "manifest": None,
    "seed": 0,
    "tracking_uri": None,
    "tracking": {"experiment": None},
    "learned_columns": ["label"],
    "train_records": [],
    "go": None,
    "folder": "$pathlib.Path(@output_dir)",
    "run": [
        "$(@folder / 'pid').write_text(str(os.getpid()))",
        "$time.sleep(0 if os.path.exists(@go) else 1000)",
        "$[][len(@folder.parts)]",
    ],
}


@pytest.fixture
def bundles(tmp_path):
    """A bundle that fails, one of slides and one that learns."""
    configs = tmp_path / "bundles" / "broken" / "configs"
    configs.mkdir(parents=True)
    supervision = {"you_have": "labels", "unit": "images", "learns_from": ["label"], "of_some": [], "chooses_by": []}
    (configs / "metadata.json").write_text(json.dumps({"name": "Broken", "supervision": supervision}))
    (configs / "inference.json").write_text("{}")
    (configs / "train.json").write_text(json.dumps(BROKEN | {"go": str(tmp_path / "go")}))
    for name in ("alpha_beta_mil", "cdws_mil"):
        (tmp_path / "bundles" / name).symlink_to(ROOT / "bundles" / name)
    return tmp_path / "bundles"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a killed comparison leaves its training behind")
def test_a_killed_comparison_goes_on(bundles, images_csv, tracked_folder, tmp_path, monkeypatch, capsys):
    """Killed in its first training, it goes on; one method fails, one lacks a label, and the third is scored."""
    arguments = ["--manifest", images_csv, "--bundles", bundles, "--out", tracked_folder, "--seeds", 1, "--no_baselines"]
    arguments += ["--mpp", 0.5, "--examples", 2, "--set", "all", "num_workers", 0]
    arguments += ["--set", "cdws_mil", "num_epochs", 1, "--set", "cdws_mil", "num_stages", 1]
    command = [str(ROOT / "scripts" / "compare.py"), *map(str, arguments)]
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    broken = tracked_folder / "runs" / "broken" / "seed=0"
    deadline = time.monotonic() + DEADLINE_S
    while not ((broken / "pid").is_file() and (broken / "pid").read_text()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    training = int((broken / "pid").read_text())
    process.send_signal(signal.SIGKILL)
    process.wait(DEADLINE_S)
    while _is_alive(training):
        assert time.monotonic() < deadline
        time.sleep(0.02)

    (tmp_path / "go").touch()
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stop:
        compare.main()
    assert stop.value.code == 1
    with (tracked_folder / "table.csv").open(newline="") as file:
        table = {row["method"]: row for row in csv.DictReader(file)}
    statuses = {name: row["status"] for name, row in table.items()}
    assert statuses == {"alpha_beta_mil": "skipped", "broken": "failed", "cdws_mil": "ok"}
    assert "needs whole slides" in table["alpha_beta_mil"]["reason"]
    assert table["broken"]["reason"] == "seed 0: IndexError: list index out of range"
    row = table["cdws_mil"]
    assert all(0 <= float(row[name]) <= 1 for name in ("f1", "iou", "region_f", "auc_all"))
    assert float(row["training_minutes"]) > 0
    assert float(row["peak_gib"]) > 0.1
    assert (row["labels"], row["areas"], row["masks"]) == ("4", "2", "0")
    # Both attempts at the broken one are on record.
    assert [attempt["status"] for attempt in json.loads((broken / "usage.json").read_text())] == [None, 1]
    assert "report.html" in capsys.readouterr().out
    assert "IndexError: list index out of range" in (tracked_folder / "report.html").read_text()

    client = MlflowClient(f"sqlite:///{tracked_folder}/mlruns.db")
    experiment = client.get_experiment_by_name("comparison")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {"cdws_mil", "seed=0", "seed=0/comparison"} <= runs.keys()
    assert runs["seed=0/comparison"].data.metrics["iou"] == pytest.approx(float(row["iou"]), abs=1e-6)

    kept = (tracked_folder / "rows" / "cdws_mil.json").read_text()
    ((origin,),) = json.loads(kept)["origins"]
    assert origin["command"] == shlex.join(["python", "scripts/compare.py", *command[1:]])
    assert origin["code"].startswith("version ")

    # Once more: nothing is trained, mapped or scored again.
    before = {path: path.stat().st_mtime_ns for path in tracked_folder.glob("[rms]*/cdws_mil/seed=0*/*") if path.is_file()}
    shutil.rmtree(bundles / "broken")
    with pytest.raises(SystemExit) as stop:
        compare.main()
    assert stop.value.code == 0
    made = ("model.pt", "usage.json", "inference_usage.json", "i4.ome.tif")
    assert {path.name for path in before} >= set(made)
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items() if path.name in made)

    # With other settings the folder is not touched: the row stays as it was and says so.
    place = command.index("num_epochs") + 1
    monkeypatch.setattr(sys, "argv", [*command[:place], "2", *command[place + 1 :]])
    with pytest.raises(SystemExit) as stop:
        compare.main()
    assert stop.value.code == 1
    assert re.search(
        r"- CDWS-MIL as before: this row is of an earlier call; .* it is failed: .* contains a run of another sweep "
        r"\(num_epochs: 1 before, 2 now\)\. Give another --out, or delete \S+/runs/cdws_mil to train again",
        (tracked_folder / "table.md").read_text(),
    )
    with (tracked_folder / "table.csv").open(newline="") as file:
        again = {found["method"]: found for found in csv.DictReader(file)}
    assert again["cdws_mil"] | {"reason": ""} == row
    assert (tracked_folder / "rows" / "cdws_mil.json").read_text() == kept

    # Nor with another manifest: a test image that was trained on would be scored.
    records = load_manifest(images_csv)
    for record in records:
        record["split"] = {"train": "test", "test": "train"}.get(record["split"], record["split"])
    write_manifest(records, tmp_path / "swapped.csv")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "swapped.csv") if part == str(images_csv) else part for part in command])
    before = (tracked_folder / "data" / "images.csv").read_bytes()
    with pytest.raises(SystemExit) as stop:
        compare.main()
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert f"error: {tracked_folder} holds a comparison on {images_csv} (sha256 " in said
    assert f"found {tmp_path}/swapped.csv (sha256 " in said
    assert (tracked_folder / "data" / "images.csv").read_bytes() == before

    # Other methods into the same folder: the rows of before stay, scored as they were.
    options = ["--methods", "alpha_beta_mil", "--no_baselines", "--seeds", "1", "--mpp", "0.5", "--examples", "0"]
    options += ["--manifest", str(images_csv), "--bundles", str(bundles), "--out", str(tracked_folder)]
    monkeypatch.setattr(sys, "argv", [command[0], *options])
    with pytest.raises(SystemExit) as stop:
        compare.main()
    with (tracked_folder / "table.csv").open(newline="") as file:
        again = {found["method"]: found for found in csv.DictReader(file)}
    assert list(again) == ["alpha_beta_mil", "cdws_mil"]
    assert again["cdws_mil"] == row
    # They are of the call that made them.
    text = (tracked_folder / "table.md").read_text()
    assert f"- Made by `{origin['command']}` (" in text
    assert "--methods" not in text


@pytest.mark.slow
def test_fewer_and_more_seeds_into_one_folder(images_csv, tracked_folder, monkeypatch):
    """Of two versions of the code: fewer seeds keep those that are there, and each seed is of the version that made it."""
    arguments = ["--manifest", images_csv, "--methods", "alpha_beta_mil", "--out", tracked_folder, "--mpp", 0.5, "--examples", 0]
    monkeypatch.chdir(ROOT)
    tables = []
    for seeds, code in ((2, "version 1"), (1, "version 2"), (3, "version 3")):
        monkeypatch.setattr("scripts.comparison.trainings.origin.code_text", lambda folder, code=code: code)
        monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, arguments), "--seeds", str(seeds)])
        with pytest.raises(SystemExit):
            compare.main()
        with (tracked_folder / "table.csv").open(newline="") as file:
            tables.append({row["method"]: row for row in csv.DictReader(file)}["colour_only"])
    assert [table["seeds"] for table in tables] == ["0 1", "0 1", "0 1 2"]
    assert tables[0] == tables[1]
    text = (tracked_folder / "table.md").read_text()
    made = re.findall(r"- Made by `python scripts/compare.py .* --seeds (\d)` \(.*(version \d).*\): (.*)", text)
    assert made == [
        ("2", "version 1", "Everything is tumour, Colour only (seed 0, seed 1)"),
        ("3", "version 3", "Colour only (seed 2)"),
    ]


def test_what_cannot_be_started(images_csv, tmp_path, monkeypatch, capsys):
    for options, problem in (
        (["--manifest", tmp_path / "none.csv"], "none.csv does not exist"),
        (["--manifest", images_csv, "--methods", "resnet"], "there is no bundle 'resnet'"),
        (["--manifest", images_csv, "--methods", "camel", "--set", "camle", "seed", 1], "--set names camle"),
        (
            ["--manifest", images_csv, "--methods", "camel", "--reference", "wildcat"],
            "--reference wildcat: expected one of the compared methods: camel, everything_is_tumour, colour_only, true_labels",
        ),
    ):
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, options), "--out", str(tmp_path / "out")])
        with pytest.raises(SystemExit) as stop:
            compare.main()
        assert stop.value.code == 2
        assert problem in capsys.readouterr().err


def _hold(folder, says):
    with FolderLock(folder):
        says.send(os.getpid())
        time.sleep(1000)


@pytest.mark.slow
def test_two_comparisons_in_one_folder(images_csv, tmp_path, monkeypatch, capsys):
    fork = multiprocessing.get_context("fork")
    hears, says = fork.Pipe(duplex=False)
    other = fork.Process(target=_hold, args=(tmp_path / "out", says))
    other.start()
    hears.recv()
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["compare.py", "--manifest", str(images_csv), "--out", str(tmp_path / "out")])
    try:
        with pytest.raises(SystemExit) as stop:
            compare.main()
    finally:
        other.kill()
        other.join()
    assert stop.value.code == 2
    assert f"error: {tmp_path}/out is in use: process {other.pid} on " in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".lock", ".holder.json"}


def test_a_comparison_in_which_every_method_is_skipped(images_csv, tracked_folder, tmp_path, monkeypatch, capsys):
    """Labels alone to train on, of rectangular images: there is nothing to cut squares by."""
    records = load_manifest(images_csv)
    for record in records:
        name = Path(record["image"]).name
        Image.open(record["image"]).crop((0, 0, 96, 64)).save(tmp_path / name)
        record["image"] = str(tmp_path / name)
        if record["split"] == "test":
            Image.open(record["mask"]).crop((0, 0, 96, 64)).save(tmp_path / Path(record["mask"]).name)
        record["mask"] = str(tmp_path / Path(record["mask"]).name) if record["split"] == "test" else None
    write_manifest(records, tmp_path / "rectangles.csv")
    arguments = ["--manifest", tmp_path / "rectangles.csv", "--methods", "camel", "alpha_beta_mil", "--no_baselines"]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, arguments), "--out", str(tracked_folder)])
    with pytest.raises(SystemExit) as stop:
        compare.main()
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert f"error: every method was skipped, so nothing was compared on {tmp_path}/rectangles.csv:" in said
    assert "  camel needs square images of one size, and these are 10 of 96 x 64 px; " in said
    assert "  alpha_beta_mil needs whole slides" in said
    assert "10 of 96 x 64 px" in (tracked_folder / "table.md").read_text()


@pytest.mark.slow
def test_rectangular_images_are_compared(images_csv, tracked_folder, tmp_path, monkeypatch):
    """Of 96 x 64 px: squares of 64 px train, whole images are scored."""
    records = load_manifest(images_csv)
    for record in records:
        for name in ("image", "mask"):
            path = tmp_path / Path(record[name]).name
            Image.open(record[name]).crop((0, 0, 96, 64)).save(path)
            record[name] = str(path)
    write_manifest(records, tmp_path / "rectangles.csv")
    arguments = ["--manifest", tmp_path / "rectangles.csv", "--methods", "cdws_mil", "--seeds", 1, "--mpp", 0.5, "--no_baselines"]
    arguments += ["--set", "all", "num_workers", 0, "--set", "all", "num_epochs", 1, "--set", "all", "num_stages", 1]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, arguments), "--out", str(tracked_folder)])
    with pytest.raises(SystemExit) as stop:
        compare.main()
    assert stop.value.code == 0
    with (tracked_folder / "table.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["method"], row["status"], row["labels"], row["areas"]) == ("cdws_mil", "ok", "8", "4")
    with np.load(tracked_folder / "scores/cdws_mil/seed=0.npz") as scores:
        assert scores["counts"].sum(1).tolist() == [96 * 64] * 4


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("epoch 1\nTraceback (most recent call last):\n  File x\nValueError: no tiles\n", "ValueError: no tiles"),
        ("KeyError: 'a'\n\nThe above\nRuntimeError: Failed to instantiate shared.x\n", "KeyError: 'a'"),
        ("a\nerror: num_workers must be at least 1\nsome library says goodbye\n", "error: num_workers must be at least 1"),
        ("mlflow.exceptions.MlflowException: no such run\n", "mlflow.exceptions.MlflowException: no such run"),
        ("Killed\n", "Killed"),
        ("", "it printed no message"),
    ],
)
def test_why_a_process_failed(tmp_path, log, line):
    (tmp_path / "log.txt").write_text(log)
    assert last_line(tmp_path / "log.txt") == line
    assert last_line(tmp_path / "none.txt") == "it left no log"


@pytest.mark.parametrize(
    ("process", "expected"),
    [
        ([30.0], 10.0),  # written one after another: its start is on top
        ([16.0], 8.0),  # written while the next one was computed
        ([10.0, 7.0], 8.5),  # in two attempts
        ([3.0], 10.0),  # made no map
        (None, 10.0),
    ],
)
def test_seconds_an_image(tmp_path, process, expected):
    (tmp_path / "slides.csv").write_text("slide,status,seconds\na,ok,12\nb,ok,8\nc,failed,100\n")
    if process is not None:
        (tmp_path / "usage.json").write_text(json.dumps([{"seconds": seconds} for seconds in process]))
    assert mean_seconds([tmp_path], [tmp_path / "usage.json"]) == expected


def test_seconds_an_image_count_its_embedding(tmp_path):
    """Once for each head, whoever embedded it; not of images that are not mapped."""
    for name, rows in (("maps", "a,ok,2\nb,ok,4\n"), ("features", "a,ok,10\nb,ok,20\nother,ok,500\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "slides.csv").write_text(f"slide,status,seconds\n{rows}")
    assert mean_seconds([tmp_path / "maps"], [tmp_path / "usage.json"]) == 3
    (tmp_path / "maps" / "embedded.json").write_text(json.dumps({"folder": str(tmp_path / "features")}))
    assert mean_seconds([tmp_path / "maps"], [tmp_path / "usage.json"]) == 18


def _is_alive(pid):
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
