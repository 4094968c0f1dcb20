"""What every evaluation of images does: shares of processes, batches, files, MLflow and figure, by one that counts red."""

import json
from dataclasses import dataclass
from functools import partial

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
    """Counts the red of every image."""

    def count(self, batch):
        for position, image in enumerate(self.on_device(batch["image"])):
            row = {"image": f"{int(batch['index'][position])}.png", "label": int(batch["label"][position])}
            yield row, float(image[0].double().mean())

    def metrics(self, rows, counts):
        for row, count in zip(rows, counts, strict=True):
            row["red"] = count
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


def evaluation(folder, records, **options):
    options = {"method": "Red", "device": "cpu", "batch_size": 3, "num_examples": 3} | options
    return Redness(folder=folder, dataset=RegionDataset(records), **options)


def red_of(record):
    return np.asarray(Image.open(record["image"]))[..., 0].mean()


def test_numbers_rows_and_figure(tmp_path, records, capsys):
    made = evaluation(tmp_path / "out", records)
    metrics = made.run()
    assert metrics == json.loads((tmp_path / "out/metrics.json").read_text())
    reds = [red_of(record) for record in records]
    assert metrics["images"]["Mean (red)"]["mean"] == pytest.approx(np.mean(reds))
    table = pd.read_csv(tmp_path / "out/images.csv")
    assert table["image"].tolist() == [f"{index}.png" for index in range(7)]
    assert table["red"].tolist() == pytest.approx(reds)
    assert capsys.readouterr().out.splitlines()[-1] == "7 images"
    examples = made.examples(table.to_dict("records"), reds)
    assert [row.title for row in examples] == ["1\nlabel 1", "5\nlabel 1", "4\nlabel 0"]
    for row, index in zip(examples, (1, 5, 4), strict=True):
        np.testing.assert_array_equal(row.image, np.asarray(Image.open(records[index]["image"])))
        assert row.panels["red"][0, 0] == pytest.approx(reds[index] / 255)
    with Image.open(tmp_path / "out/examples.png") as figure:
        # Image and picture, 2.6 inch each; three rows.
        assert figure.size == pytest.approx((2 * 2.6 * 110, (3 * 2.6 + 0.5) * 110), abs=2)


def test_no_figure(tmp_path, records):
    evaluation(tmp_path / "out", records, num_examples=0).run()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["images.csv", "metrics.json"]


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 64}, {"num_workers": 2}], ids=str)
def test_batches_and_workers_change_nothing(tmp_path, records, options):
    evaluation(tmp_path / "a", records).run()
    evaluation(tmp_path / "b", records, **options).run()
    for name in ("metrics.json", "images.csv"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()


def test_two_processes_score_as_one(tmp_path, records, capfd):
    def work(_rank, folder):
        metrics = evaluation(folder, records).run()
        # Every process has all scores, and may read the files.
        assert metrics == json.loads((folder / "metrics.json").read_text())

    work(0, tmp_path / "one")
    in_processes(partial(work, folder=tmp_path / "two"))
    for name in ("metrics.json", "images.csv"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()
    assert capfd.readouterr().out.count("7 images") == 2


def test_mlflow_has_the_scores(tracked_folder, records):
    tracking = Tracking(tracked_folder, "red")
    metrics = evaluation(tracked_folder / "evaluation", records, tracking=tracking).run()
    client = MlflowClient(tracking.uri)
    run = client.get_run(tracking.stage_run("evaluation"))
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"images.mean_red.mean": metrics["images"]["Mean (red)"]["mean"]}
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"metrics.json", "images.csv", "examples.png"}
