"""What every evaluation of images does, by one that measures red: shares of processes, batches, files, figure and MLflow."""

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image

from shared.data import RegionDataset
from shared.evaluation.image_evaluation import ImageEvaluation
from shared.handlers import Tracking
from tests.engines.conftest import in_processes


@dataclass(kw_only=True, eq=False)
class Redness(ImageEvaluation):
    def count(self, batch):
        for index, label, image in zip(batch["index"].tolist(), batch["label"].tolist(), batch["image"], strict=True):
            yield {"image": f"{index}.png", "label": label}, float(image[0].double().mean())

    def metrics(self, rows, counts):
        return {"num_images": len(rows), "images": {"Mean (red)": {"mean": float(np.mean(counts)), "none": None}}}

    def panels(self, example, row, counts):
        return {"red": np.full(example["image"].shape[1:], counts / 255)}

    def text(self, metrics):
        return f"{metrics['num_images']} images"


@pytest.fixture
def records(tmp_path):
    """Seven images, every second one with tumour."""
    rng = np.random.default_rng(5)
    made = [{"image": str(tmp_path / f"{index}.png"), "label": index % 2, "row": index + 2} for index in range(7)]
    for record in made:
        Image.fromarray(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)).save(record["image"])
    return made


def evaluate(folder, records, **options):
    options = {"method": "Red", "device": "cpu", "batch_size": 3, "num_examples": 3} | options
    metrics = Redness(folder=folder, dataset=RegionDataset(records), **options).run()
    # Every process has all scores, and may read the files.
    assert metrics == json.loads((folder / "metrics.json").read_text())
    return metrics


def assert_same_files(one, other):
    for name in ("metrics.json", "images.csv"):
        assert (one / name).read_text() == (other / name).read_text()


def test_numbers_and_a_row_per_image(tmp_path, records, capsys):
    metrics = evaluate(tmp_path / "out", records, num_examples=0)
    reds = [np.asarray(Image.open(record["image"]))[..., 0].mean() for record in records]
    assert metrics["images"]["Mean (red)"]["mean"] == pytest.approx(np.mean(reds))
    assert pd.read_csv(tmp_path / "out/images.csv")["image"].tolist() == [f"{index}.png" for index in range(7)]
    assert capsys.readouterr().out.splitlines()[-1] == "7 images"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["images.csv", "metrics.json"]


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 64}, {"num_workers": 2}], ids=str)
def test_batches_and_workers_change_nothing(tmp_path, records, options):
    evaluate(tmp_path / "a", records)
    evaluate(tmp_path / "b", records, **options)
    assert_same_files(tmp_path / "a", tmp_path / "b")


def test_two_processes_score_as_one(tmp_path, records, capfd):
    evaluate(tmp_path / "one", records)
    in_processes(lambda _: evaluate(tmp_path / "two", records))
    assert_same_files(tmp_path / "one", tmp_path / "two")
    assert capfd.readouterr().out.count("7 images") == 2


def test_mlflow_has_the_scores(tracked_folder, records):
    tracking = Tracking(tracked_folder, "red")
    metrics = evaluate(tracked_folder / "evaluation", records, tracking=tracking)
    client = MlflowClient(tracking.uri)
    run = client.get_run(tracking.stage_run("evaluation"))
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"images.mean_red.mean": metrics["images"]["Mean (red)"]["mean"]}
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"metrics.json", "images.csv", "examples.png"}
