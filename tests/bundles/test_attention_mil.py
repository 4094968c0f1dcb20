"""Attention MIL's configurations, to their end on tiny slides: embedded, trained, killed, evaluated, variants, in use."""

import json

import h5py
import pandas as pd
import pytest
import torch

from .conftest import TINY_ATTENTION as TINY
from .runs import Bundle, files_of, history_of, messages_of, metrics_of, train_once, weights_of

OF_NETWORK = ("mpp", "smoothing", "feature_stride_px", "tile_size_px", "margin_px")
METHOD = "Attention MIL"
TEST_SLIDES = ["slide_08", "slide_09", "slide_10"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def attention(easy_slides):
    return Bundle("attention_mil", easy_slides, TINY)


@pytest.fixture(scope="module")
def trained(attention, tmp_path_factory):
    """The whole train.json, once, as a user starts it."""
    return train_once(attention, TINY, tmp_path_factory.mktemp("trained_attention"))


def of_network(tiny=TINY):
    return {name: tiny[name] for name in OF_NETWORK}


def test_slides_are_embedded_once(attention, trained):
    key = bytes(weights_of(trained.folder / "model.pt")["encoder_key"].tolist()).hex()
    folder = attention.data / f"features/slides_{key}_0.5um"
    slides = sorted(path.stem for path in (attention.data / "slides").glob("*.tif"))
    assert sorted(path.stem for path in folder.glob("*.h5")) == slides
    with h5py.File(folder / "slide_08.h5") as file:
        assert file["features"].shape == (len(file["coords"]), 1280)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.h5")}
    attention.workflow("train", **TINY, output_dir=str(trained.folder)).parser.get_parsed_content("run_embed")
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.h5")} == before


def test_the_training_leaves_its_files(trained):
    results = {name for name in files_of(trained.folder) if "/maps/" not in name}
    assert results == {
        *("calibration.json", "config.json", "mlflow.json", "model.pt", "attention/history.csv", "attention/model.pt"),
        *("evaluation/examples.png", "evaluation/metrics.json", "evaluation/slides.csv"),
    }
    history = history_of(trained.folder, "attention")
    # Six slides an epoch, one a step: 20 epochs are 120 steps.
    assert history["epoch"].tolist() == list(range(1, 21))
    assert {"train_loss", "val_slide_auc", "val_slide_accuracy", "val_tile_auc"} <= set(history)


def test_pixels_are_scored_by_the_map_and_slides_by_themselves(attention, trained):
    metrics = metrics_of(trained.folder)
    assert metrics["threshold"] == json.loads((trained.folder / "calibration.json").read_text())["threshold"]
    # Tumour has a colour of its own in these slides.
    assert metrics["pixels_tissue"][METHOD]["auc"] > 0.8
    assert metrics["slides"][METHOD]["auc"] == 1
    parser = attention.workflow("train", **trained.options, output_dir=str(trained.folder)).parser
    network = parser.get_parsed_content("map_network").eval()
    with torch.inference_mode():
        bags = [parser.get_parsed_content("test_slides").all_of(index)[0][None] for index in range(3)]
        expected = [network(bag)["slide_logits"].sigmoid().item() for bag in bags]
    rows = pd.read_csv(trained.folder / "evaluation/slides.csv")
    assert rows["slide"].tolist() == TEST_SLIDES
    assert rows["score"].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_checkpoint_is_the_head_alone(trained):
    weights = weights_of(trained.folder / "model.pt")
    assert not [name for name in weights if name.startswith("encoder.")]
    # From the features of the training slides.
    assert weights["std"].min() > 0
    assert not torch.equal(weights["std"], torch.ones_like(weights["std"]))
    assert weights["attention_scale.running_var"] != 1


def test_killed_it_ends_with_the_same_numbers(trained, tmp_path):
    folder = tmp_path / "killed"
    said = trained.killed(folder, {"attention/resume.pt": "attention/model.pt"})
    assert "attention: resumes after epoch" in said
    assert metrics_of(folder) == metrics_of(trained.folder)
    assert (folder / "attention/history.csv").read_text() == (trained.folder / "attention/history.csv").read_text()
    torch.testing.assert_close(weights_of(folder / "model.pt"), weights_of(trained.folder / "model.pt"), rtol=0, atol=0)


VARIANTS = {
    "CLAM": {"instance_loss": "svm", "hidden_channels": 16, "dropout": 0.25, "attention_channels": 8, "num_instances": 4},
    "cross entropy": {"instance_loss": "cross_entropy", "slides_per_step": 3},
    "all features, attention": {"features_per_slide": None, "map_shows": "attention", "gated": False},
    "instance": {"map_shows": "instance", "keep_best": None},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_a_variant_trains_to_its_end_and_is_evaluated_the_same(attention, tmp_path, options):
    attention.train_here(output_dir=tmp_path / "run", **{"min_steps": 0, "num_epochs": 1} | options)
    metrics = metrics_of(tmp_path / "run")
    assert metrics["pixels_tissue"][METHOD]["auc"] is not None
    names = ("hidden_channels", "attention_channels", "instance_loss", "map_shows", "gated")
    same = of_network() | {name: options[name] for name in names if name in options}
    again = attention.evaluate_here(
        output_dir=tmp_path / "run", evaluation_dir=tmp_path / "again", num_workers=0, tissue_mpp=4.0, **same
    )
    assert again == metrics


def test_evaluation_with_another_encoder_says_so(attention, trained, tmp_path):
    options = of_network() | {"smoothing": 3, "tissue_mpp": 4.0, "checked_keys": []}
    with pytest.raises(RuntimeError) as caught:
        attention.evaluate_here(output_dir=trained.folder, evaluation_dir=tmp_path, **options)
    assert "they were trained on features of another encoder" in messages_of(caught.value)


def test_an_ensemble_answers_for_slides_and_pixels(attention, trained, tmp_path):
    """Twice the same network answers like one."""
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        for file in ("model.pt", "calibration.json"):
            (tmp_path / "runs" / name / file).symlink_to(trained.folder / file)
    alone = metrics_of(trained.folder)
    options = of_network() | {"runs": f"{tmp_path}/runs/*/model.pt", "threshold": alone["threshold"], "tissue_mpp": 4.0}
    together = attention.evaluate_here("ensemble", output_dir=tmp_path, evaluation_dir=tmp_path / "two", num_workers=0, **options)
    assert together["slides"] == alone["slides"]
    assert together["pixels_tissue"][METHOD]["auc"] == pytest.approx(alone["pixels_tissue"][METHOD]["auc"], abs=1e-3)


def test_inference_maps_a_slide_and_has_the_properties_that_monai_asks_for(attention, trained, tmp_path):
    checkpoints = f"['{trained.folder}/model.pt']"
    attention.map_slide(slide="slide_08", output_dir=tmp_path / "maps", checkpoints=checkpoints, **of_network())
    assert trained.workflow().check_properties() == []
    prediction = attention.infer_here(checkpoints=[str(trained.folder / "model.pt")], **of_network())
    assert prediction.shape == (24,)
    assert 0 <= prediction.min() <= prediction.max() <= 1


def test_slide_labels_alone_are_enough(attention, tmp_path):
    attention.manifest("slides.csv").drop(columns=["mask", "area"]).to_csv(tmp_path / "slides.csv", index=False)
    options = {"manifest": str(tmp_path / "slides.csv"), "min_steps": 0, "num_epochs": 1}
    attention.train_here(output_dir=tmp_path / "run", truth=None, **options)
    assert metrics_of(tmp_path / "run").keys() == {"split", "num_slides", "threshold", "slides"}


def test_what_is_wrong_with_a_manifest_is_said_before_slides_are_embedded(attention, tmp_path):
    table = attention.manifest("slides.csv")
    table[table["label"] == 1].to_csv(tmp_path / "slides.csv", index=False)
    options = {"manifest": str(tmp_path / "slides.csv"), "features_dir": str(tmp_path / "features")}
    with pytest.raises(RuntimeError) as caught:
        attention.train_here(output_dir=tmp_path / "run", **options)
    assert "only one class" in messages_of(caught.value)
    assert not (tmp_path / "features").exists()
