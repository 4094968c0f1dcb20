"""The trained network in use: evaluate.json from the bundle's own folder, inference.json on everything that it takes."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from shared.inference import InferenceFailures

from .conftest import SMALL_UNET
from .runs import metrics_of

pytestmark = pytest.mark.slow

RESULTS = (".ome.tif", ".geojson", ".png")


def options_of(trained, output_dir: Path, **more: Any) -> dict[str, Any]:
    """What inference must know of the training."""
    return {
        "checkpoint": str(trained.folder / "model.pt"),
        "segmentation_backbone": trained.options["segmentation_backbone"],
        "output_dir": str(output_dir),
        **more,
    }


def map_here(camel, trained, source: Path, output_dir: Path, split: str | None = None, **more: Any) -> list[dict[str, Any]]:
    """What inference.json runs, within this process and without MONAI's wrapping of errors; the rows that it computed now."""
    workflow = camel.workflow("inference", workflow_type="infer", **options_of(trained, output_dir, **more))
    return workflow.parser.get_parsed_content("slide_mapper").run(source, output_dir, split)


def table_of(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "slides.csv").open() as file:
        return {row["slide"]: row for row in csv.DictReader(file)}


def test_evaluate_repeats_the_numbers_of_the_training(camel, trained, tmp_path):
    """Started from the bundle's own folder, where `shared` is reached through its link."""
    names = ("image_size_px", "backbone", "segmentation_backbone")
    options = {name: trained.options[name] for name in names}
    command = trained.assert_evaluated_the_same(tmp_path, cwd=camel.root, **options)
    assert "configs/evaluate.json" in command


@pytest.mark.parametrize("name", ["inference", "evaluate"])
@pytest.mark.parametrize(("written", "given", "expected"), [(0.3, {}, 0.3), (None, {}, 0.5), (0.3, {"threshold": 0.4}, 0.4)])
def test_the_threshold_is_that_of_the_training(camel, trained, tmp_path, caplog, name, written, given, expected):
    """Of weights without any, from a training that chose none, it is 0.5, and the log says so."""
    # The tensors alone: the weights of the training carry its threshold.
    torch.save(dict(torch.load(trained.folder / "model.pt", weights_only=True)), tmp_path / "model.pt")
    if written is not None:
        (tmp_path / "calibration.json").write_text(json.dumps({"threshold": written}))
    options = {**options_of(trained, tmp_path), "checkpoint": str(tmp_path / "model.pt"), **given}
    workflow = camel.workflow(name, **({"workflow_type": "infer"} if name == "inference" else {}), **options)
    part = "slide_mapper" if name == "inference" else "evaluator"
    assert workflow.parser.get_parsed_content(part).threshold == expected
    assert ("calibration.json does not exist" in caplog.text) == (written is None)


def test_evaluate_of_another_network_after_its_overlay(camel, tmp_path):
    """The overlays of training that change a network or its lattice stand after evaluate.json and inference.json too."""
    training = camel.train_here("pixel_fsb", "n8", "unet", output_dir=tmp_path, **SMALL_UNET)
    assert training.parser.get_parsed_content("train::trainer").is_finished
    names = {"image_size_px": 64, "backbone": "resnet10", "segmentation_backbone": "resnet10", "method": "Pixel-level FSB"}
    again = camel.evaluate_here("n8", "unet", output_dir=tmp_path, evaluation_dir=tmp_path / "again", **names, **SMALL_UNET)
    before = metrics_of(tmp_path)
    # Not the classifiers: evaluate.json scores Max-Max too, which ran for the warm start only.
    assert again["pixels"] == before["pixels"]
    assert again["images"]["Pixel-level FSB"] == before["images"]["Pixel-level FSB"]
    options = {"checkpoint": str(tmp_path / "model.pt"), "output_dir": str(tmp_path / "maps"), **SMALL_UNET}
    options["segmentation_backbone"] = "resnet10"
    source = str(camel.data / "images" / "case_006_1.png")
    # Those of the classifiers change nothing here.
    overlays = ("retrain_unconstrained", "oversampled_picks", "unet")
    assert len(camel.workflow("inference", *overlays, workflow_type="infer", source=source, **options).run()[-1]) == 1


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("images/case_006_1.png", ["case_006_1"]),
        ("slides/slide_00.tif", ["slide_00"]),
        ("slides", ["slide_00", "slide_01"]),
    ],
)
def test_inference_of_an_image_a_slide_and_a_folder(camel, trained, tmp_path, source, names):
    rows = map_here(camel, trained, camel.data / source, tmp_path)
    assert [row["slide"] for row in rows] == names
    table = table_of(tmp_path)
    assert list(table) == names
    assert {row["status"] for row in table.values()} == {"ok"}
    expected = {"slides.csv", "settings.json", "rows", *(f"{name}{suffix}" for name in names for suffix in RESULTS)}
    assert {path.name for path in tmp_path.iterdir()} == expected
    assert map_here(camel, trained, camel.data / source, tmp_path) == [], "a finished image is computed again"


def test_inference_of_a_split_of_a_manifest(camel, trained, tmp_path):
    rows = map_here(camel, trained, camel.data / "slides.csv", tmp_path, split="test")
    assert [row["slide"] for row in rows] == ["slide_00"]
    assert float(table_of(tmp_path)["slide_00"]["mpp"]) == 0.5


def test_a_broken_slide_fails_the_run_but_not_the_others(camel, trained, tmp_path):
    folder, output_dir = tmp_path / "mixed", tmp_path / "maps"
    folder.mkdir()
    (folder / "broken.svs").write_bytes(b"no slide at all" * 100)
    (folder / "a.png").write_bytes((camel.data / "images" / "case_006_1.png").read_bytes())
    (folder / "z.png").write_bytes((camel.data / "images" / "case_006_2.png").read_bytes())
    command = camel.command("inference", source=folder, **options_of(trained, output_dir))
    process = camel.run(command)
    assert process.returncode != 0
    assert "1 of 3 images failed" in process.stderr
    table = table_of(output_dir)
    assert {name: row["status"] for name, row in table.items()} == {"a": "ok", "broken": "failed", "z": "ok"}
    assert "broken.svs" in table["broken"]["reason"]
    assert not list(output_dir.glob("broken.*"))
    assert not list(output_dir.glob("*.part"))

    (folder / "broken.svs").unlink()
    assert map_here(camel, trained, folder, output_dir) == []


def test_real_slides_with_and_without_their_resolution(camel, trained, tmp_path, wsi_test_data):
    """A broken slide and one without mpp are rows with a reason; a resolution given by hand finishes the latter, coarsely."""
    names = {"broken.svs": "broken", "tcga-cr-7395-01a-01-ts1.svs": "tcga-cr-7395-01a-01-ts1"}
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(wsi_test_data / "slides" / name)
    with pytest.raises(InferenceFailures, match="2 of 2 images failed"):
        map_here(camel, trained, folder, tmp_path / "maps")
    table = table_of(tmp_path / "maps")
    assert {row["status"] for row in table.values()} == {"failed"}
    assert "has no mpp: give slide_mpp" in table[names["tcga-cr-7395-01a-01-ts1.svs"]]["reason"]
    with pytest.raises(InferenceFailures, match="1 of 2 images failed"):
        map_here(camel, trained, folder, tmp_path / "maps", slide_mpp=0.5, mpp=2.0, **{"check_training::unless_null": []})
    table = table_of(tmp_path / "maps")
    assert {name: row["status"] for name, row in table.items()} == {"broken": "failed", "tcga-cr-7395-01a-01-ts1": "ok"}
