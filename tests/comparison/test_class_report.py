"""The report of three classes: what is said of classes stands first, and their colours have names."""

import csv
import json
import shutil

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from scripts.comparison.data import prepare_data
from scripts.comparison.reporting.report import Report
from scripts.comparison.rows.method_row import MethodRow
from scripts.comparison.runs import Comparison, Tracker
from scripts.comparison.scores.intervals import draw, score_names
from scripts.comparison.scores.scoring import MapScorer
from shared.data import TissueCache
from shared.writers import write_rows
from shared.writers.ome_tiff import write_ome_tiff_channels
from shared.writers.palette import class_colour

from .test_scoring import Rows

NAMES = ("normal", "benign", "invasive")


@pytest.fixture
def report(tmp_path, migrated_database):
    """Two test images of two cases, and maps that are right in half of the pixels; the page, the table and what was said."""
    rng = np.random.default_rng(0)
    lines, truths, answers = ["image,label,mask,case_id,split,mpp"], [], []
    for name, split in (("a", "test"), ("b", "test"), ("c", "train")):
        truth = rng.integers(0, 3, (40, 40)).astype(np.uint8)
        Image.fromarray(rng.integers(0, 200, (40, 40, 3)).astype(np.uint8)).save(tmp_path / f"{name}.png")
        Image.fromarray(truth).save(tmp_path / f"{name}_mask.png")
        lines.append(f"{name}.png,2,{name}_mask.png,{name},{split},1")
        if split == "test":
            answer = np.where(rng.random((40, 40)) < 0.5, truth, rng.integers(0, 3, (40, 40)))
            sources = {label: Rows((255 * (answer == index)).astype(np.uint8)) for index, label in enumerate(NAMES)}
            write_ome_tiff_channels(tmp_path / f"{name}.ome.tif", sources, 1.0)
            truths.append(truth)
            answers.append(answer)
    (tmp_path / "images.csv").write_text("\n".join(lines) + "\n")
    size = {"width_px": 40, "height_px": 40, "mpp": 1.0, "map_mpp": 1.0}
    write_rows(tmp_path / "slides.csv", [{"slide": name, "status": "ok", "fingerprint": "f", **size} for name in "ab"])
    (tmp_path / "settings.json").write_text(json.dumps({"threshold": 0.5}))
    data = prepare_data(tmp_path / "images.csv", tmp_path / "data", class_names=NAMES)
    scores = MapScorer(data, 1.0, TissueCache(tmp_path / "tissue")).score(tmp_path, tmp_path / "scores.npz")
    drawn = draw([scores], 20)
    row = MethodRow(
        "joint", "Joint", seeds=[0], draws=drawn, maps=[tmp_path], mlflow_runs=[""], confusion=scores.confusion.sum(0)
    )
    row.scores = {name: drawn.interval(name) for name in drawn.trainings}
    shutil.copy(migrated_database, tmp_path / "mlruns.db")
    made = Report(
        data, 1.0, {"labels": 5, "areas": 10, "masks": 240}, None, f"sqlite:///{tmp_path}/mlruns.db", None, 2, "comparison"
    )
    made.write(tmp_path, [row])
    return tmp_path, np.stack(truths).ravel(), np.stack(answers).ravel()


def test_classes_come_first(report):
    folder, truth, answer = report
    with (folder / "table.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    per_class = f1_score(truth, answer, average=None)
    expected = {"class_accuracy": accuracy_score(truth, answer), "macro_f1": per_class.mean()}
    expected |= {f"f1_{index}": value for index, value in enumerate(per_class)}
    expected["mean_iou"] = jaccard_score(truth, answer, average="macro")
    columns = [name for name in row if name in expected]
    assert columns == list(expected)
    assert [float(row[name]) for name in columns] == pytest.approx(list(expected.values()), abs=1e-5)
    # Of tumour against the rest all that was there before, behind them and called so; nobody said that classes are ordered.
    assert 0 < float(row["iou"]) < 1
    text = (folder / "table.md").read_text()
    head = next(line for line in text.splitlines() if line.startswith("| method"))
    first = ("Accuracy", "Macro F1", "F1, normal", "F1, benign", "F1, invasive", "Mean IoU", "Macro F1, mean of cases")
    assert " | ".join(["overlays", *first, "Sensitivity, not normal"]) in head
    assert "BACH" not in text
    assert "bach_score" not in row
    confusion = np.array([[((truth == true) & (answer == said)).sum() for said in range(3)] for true in range(3)])
    shares = 100 * confusion[1] / confusion[1].sum()
    assert "| benign | " + " | ".join(f"{share:.1f}" for share in shares) + " |" in text
    page = (folder / "report.html").read_text()
    assert all(f"{share:.1f}</td>" in page for share in shares)
    for index, name in ((1, "benign"), (2, "invasive")):
        red, green, blue = class_colour(index)
        assert f'<i style="background:#{red:02x}{green:02x}{blue:02x}"></i>{name}' in page


@pytest.mark.parametrize("ordered", [False, True])
def test_mlflow_gets_the_scores_that_the_table_has(report, tracked_folder, ordered):
    """BACH's score has no meaning where classes are unordered."""
    folder, _, _ = report
    data = prepare_data(folder / "images.csv", folder / "data", class_names=NAMES)
    scores = MapScorer(data, 1.0, TissueCache(folder / "tissue")).score(folder, folder / "scores.npz")
    names = score_names(NAMES, ordered)
    uri = f"sqlite:///{tracked_folder}/mlruns.db"
    comparison = Comparison(data, tracked_folder, [], [0], 1.0, {}, Tracker(uri, "comparison", names))
    comparison._log(tracked_folder / "runs" / "joint" / "seed=0", scores)
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("comparison").experiment_id])
    (logged,) = (run.data.metrics for run in runs if run.data.metrics)
    assert {"class_accuracy", "macro_f1"} <= logged.keys() <= names.keys()
    assert ("bach_score" in logged) == ordered
