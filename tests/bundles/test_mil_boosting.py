"""MIL-Boosting's configurations, to their end on tiny data: whole, killed, evaluated, in use."""

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ckpt_export, verify_net_in_out

from shared.networks import BoostedPatches

from .conftest import IMAGE_SIZE_PX
from .runs import (
    Bundle,
    Training,
    assert_same_results,
    files_of,
    files_of_training,
    history_of,
    metrics_of,
    train_once,
)

RESULTS = files_of_training("boosting") | {"boosting/features.csv"}
TINY: dict[str, Any] = {
    "image_size_px": IMAGE_SIZE_PX,
    "mpp": 0.5,
    "num_workers": 0,
    "patch_size_px": 16,
    "patches_per_image": 40,
    "num_trees": 8,
    "rounds_per_epoch": 2,
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def boosting(easy_data: Path) -> Bundle:
    return Bundle("mil_boosting", easy_data, TINY)


@pytest.fixture(scope="module")
def trained_boosting(boosting: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Its train.json, once, as a user starts it."""
    return train_once(boosting, boosting.tiny, tmp_path_factory.mktemp("trained_boosting"))


def test_the_whole_training_leaves_its_files(trained_boosting):
    assert files_of(trained_boosting.folder) == RESULTS
    history = history_of(trained_boosting.folder, "boosting")
    assert history["num_trees"].tolist() == [2, 4, 6, 8]
    assert {"train_loss", "val_pixel_iou"} <= set(history)
    metrics = metrics_of(trained_boosting.folder)
    assert list(metrics["regions"]) == list(metrics["boundaries"]) == ["MIL-Boosting"]
    assert list(metrics["pixels"]) == ["MIL-Boosting", "Everything is tumour"]
    # Painted tumour is easy.
    assert metrics["pixels"]["MIL-Boosting"]["iou"] > 0.5
    assert sum(line.startswith("MIL-Boosting ") for line in trained_boosting.process.stdout.splitlines()) == 4


def test_mlflow_has_the_training_and_its_evaluation(trained_boosting):
    client, by_name = trained_boosting.tracked_runs()
    assert by_name.keys() == {"run", "run/boosting", "run/evaluation"}
    assert by_name["run"].data.params["num_trees"] == "8"
    for metric in ("train_loss", "val_pixel_iou"):
        points = client.get_metric_history(by_name["run/boosting"].info.run_id, metric)
        assert [point.step for point in points] == [1, 2, 3, 4], metric
    assert "regions.mil_boosting.f_all" in by_name["run/evaluation"].data.metrics


def test_killed_it_ends_with_the_same_numbers(trained_boosting, tmp_path):
    trained_boosting.assert_same_when_killed(tmp_path / "killed", ["boosting"], RESULTS)


def test_evaluate_repeats_the_numbers_of_the_training(boosting, trained_boosting, tmp_path):
    options = {
        name: value for name, value in TINY.items() if name not in ("num_workers", "patches_per_image", "rounds_per_epoch")
    }
    options |= {"output_dir": trained_boosting.folder, "evaluation_dir": tmp_path}
    assert boosting.evaluate_here(**options) == metrics_of(trained_boosting.folder)
    with pytest.raises(RuntimeError) as caught:
        boosting.evaluate_here(**options | {"num_trees": 9})
    assert "num_trees: 8 before, 9 now" in str(caught.value.__cause__)


def test_two_processes_grow_the_trees_of_one(trained_boosting, tmp_path):
    trained_boosting.by_two_processes(tmp_path / "two", "Regions (%)", **trained_boosting.options)
    assert_same_results(tmp_path / "two", trained_boosting.folder, RESULTS)


def test_inference_maps_a_slide(boosting, trained_boosting, tmp_path):
    options = {"checkpoint": trained_boosting.folder / "model.pt", "mpp": 0.5, "num_trees": 8, "patch_size_px": 16}
    boosting.map_slide(slide="slide_00", output_dir=tmp_path, **options)


def test_training_and_inference_have_the_properties_that_monai_asks_for(boosting, trained_boosting):
    assert trained_boosting.workflow().check_properties() == []
    options = {"checkpoint": str(trained_boosting.folder / "model.pt"), "num_trees": 8, "patch_size_px": 16, "mpp": 0.5}
    prediction = boosting.infer_here(**options)
    assert prediction.shape == (1, IMAGE_SIZE_PX, IMAGE_SIZE_PX)
    assert 0 <= prediction.min() <= prediction.max() <= 1


def test_monai_verifies_and_exports_the_network(boosting, trained_boosting, tmp_path):
    configs = boosting.root / "configs"
    files = {"config_file": str(configs / "inference.json"), "meta_file": str(configs / "metadata.json")}
    trees = {"num_trees": 8, "patch_size_px": 16, "bundle_root": str(boosting.root)}
    verify_net_in_out("network_def", device="cpu", **files, **trees)
    export = {"filepath": str(tmp_path / "model.ts"), "ckpt_file": str(trained_boosting.folder / "model.pt")}
    ckpt_export("network_def", **export, **files, **trees)
    network = BoostedPatches(8, patch_size_px=16)
    network.load_state_dict(torch.load(export["ckpt_file"], weights_only=True))
    images = 255 * torch.rand(1, 3, 64, 80, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.jit.load(export["filepath"])(images), network(images))


def test_an_overlay_trains_to_its_end(boosting, tmp_path):
    """EBHI-Seg's settings with the tiny images: stain jitter in two passes."""
    manifest = str(boosting.data / "images.csv")
    options = {"manifest": manifest, "mpp": 0.5, "truth": "$None", "num_trees": 4}
    boosting.train_here("ebhi_seg", output_dir=tmp_path / "run", **options)
    metrics = metrics_of(tmp_path / "run")
    assert metrics["num_images"] == 8
    assert "pixels" not in metrics


@pytest.mark.parametrize("overlays", [("dataset_a",), ("dataset_a", "features")], ids="+".join)
def test_dataset_a_has_no_validation_images(boosting, tmp_path, overlays):
    manifest = tmp_path / "images.csv"
    table = boosting.manifest()
    table[table["split"] != "val"].to_csv(manifest, index=False)
    size = {"image_size_px": IMAGE_SIZE_PX, "mpp": 0.5, "tile_mpp": 0.5, "num_trees": 4, "patch_size_px": 16}
    options = size | {"manifest": str(manifest), "output_dir": tmp_path / "run"}
    features = {"features_dir": str(tmp_path / "features")} if "features" in overlays else {}
    boosting.train_here(*overlays, **options, **features)
    assert metrics_of(tmp_path / "run")["num_images"] == 8
    assert boosting.evaluate_here(*overlays, **options, evaluation_dir=tmp_path / "again") == metrics_of(tmp_path / "run")


def test_four_folds_of_dataset_b_train(boosting, tmp_path):
    options = {"manifest": str(boosting.data / "images.csv"), "fold": 2, "output_dir": str(tmp_path), "tracking::enabled": False}
    parser = boosting.workflow("train", "dataset_b", **options).parser
    train, val, test = (parser.get_parsed_content(f"{split}_records") for split in ("train", "val", "test"))
    # Of the 24 images of cases that the manifest does not test, in 5 folds by case.
    assert (len(train) + len(test), val) == (24, [])
    assert len(test) in (4, 8)


@pytest.mark.parametrize("patch_size_px", [16, 64])
def test_the_margin_of_inference_leaves_no_seams(boosting, patch_size_px):
    """The middle of a tile is what the network says of a larger image there."""
    margin = boosting.configuration("inference", patch_size_px=patch_size_px).get_parsed_content("margin_px")
    assert margin % 4 == 0
    network = BoostedPatches(6, patch_size_px=patch_size_px)
    generator = torch.Generator().manual_seed(0)
    # Of every kind of feature; thresholds at a median, where the most patches are near.
    chosen = torch.tensor([[3], [40], [80], [101], [112], [117]])
    tile_px = 16 + 2 * margin
    image = (255 * torch.rand(1, 3, tile_px + 32, tile_px + 48, generator=generator)).floor()
    medians = network.features(image).flatten(2)[0].median(dim=1).values
    network.set_trees(chosen, medians[chosen], torch.rand(6, 2, generator=generator) - 0.5)
    whole, tile = network(image), network(image[:, :, 16 : 16 + tile_px, 24 : 24 + tile_px])
    inner = slice(margin, margin + 16)
    expected = whole[:, :, 16 + margin : 32 + margin, 24 + margin : 40 + margin]
    assert expected.std() > 0
    torch.testing.assert_close(tile[:, :, inner, inner], expected, rtol=0, atol=1e-5)
