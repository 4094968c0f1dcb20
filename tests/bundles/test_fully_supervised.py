"""The fully supervised baselines' configurations, to their end on tiny data: trained, evaluated, in use, every network."""

import csv
import json
from collections import Counter

import pytest
import torch

from .conftest import IMAGE_SIZE_PX, SMALL_UNET
from .runs import Bundle, files_of, files_of_training, metrics_of, train_once

TINY = {
    "image_size_px": IMAGE_SIZE_PX,
    "backbone": "resnet10",
    "head_channels": 16,
    "atrous_rates": [1, 2, 3, 4],
    "amp_dtype": "$None",
    "num_workers": 0,
    "num_epochs": 1,
    "batch_size": 4,
    "lr": 0.003,
}
RESULTS = files_of_training("segmentation")
NETWORK_KEYS = ("image_size_px", "backbone", "head_channels")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def supervised(easy_data):
    return Bundle("fully_supervised", easy_data, TINY)


@pytest.fixture(scope="module")
def trained(supervised, tmp_path_factory):
    """The whole train.json, once, as a user starts it."""
    return train_once(supervised, TINY | {"num_epochs": 4}, tmp_path_factory.mktemp("trained_supervised"))


def test_the_training_leaves_its_files_and_its_table(trained):
    assert files_of(trained.folder) == RESULTS
    metrics = metrics_of(trained.folder)
    assert list(metrics["pixels"]) == ["Pixel-level FSB", "Everything is tumour"]
    assert list(metrics["regions"]) == list(metrics["boundaries"]) == ["Pixel-level FSB"]
    # Tumour is painted in its own colour.
    assert metrics["pixels"]["Pixel-level FSB"]["iou"] > metrics["pixels"]["Everything is tumour"]["iou"]
    rows = list(csv.DictReader((trained.folder / "segmentation/history.csv").open()))
    assert [float(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])


def test_evaluate_repeats_the_numbers_and_inference_maps_a_slide(supervised, trained, tmp_path):
    options = {name: TINY[name] for name in NETWORK_KEYS}
    trained.assert_evaluated_the_same(tmp_path / "again", **options)
    options |= {"checkpoint": trained.folder / "model.pt", "tile_size_px": 128}
    supervised.map_slide(slide="slide_00", output_dir=tmp_path / "maps", **options)


def test_training_and_inference_have_the_properties_that_monai_asks_for(supervised, trained):
    workflow = trained.workflow()
    assert workflow.check_properties() == []
    assert workflow.max_epochs == 4
    options = {name: TINY[name] for name in NETWORK_KEYS} | {"margin_px": 8}
    prediction = supervised.infer_here(checkpoint=str(trained.folder / "model.pt"), **options)
    torch.testing.assert_close(prediction.sum(0), torch.ones(IMAGE_SIZE_PX, IMAGE_SIZE_PX))


@pytest.mark.parametrize(
    ("overlays", "network", "method"),
    [
        (("image_fsb",), "DeepLabV2", "Image-level FSB"),
        (("unet",), "UNet", "Pixel-level FSB"),
        (("fcn8s",), "FCN", "Pixel-level FSB"),
        (("fcn16s",), "FCN", "Pixel-level FSB"),
        (("image_fsb", "fcn32s"), "FCN", "Image-level FSB"),
        (("dcan",), "DCAN", "Pixel-level FSB"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else None,
)
def test_a_network_trains_and_is_evaluated_behind_its_overlays(supervised, tmp_path, overlays, network, method):
    small = SMALL_UNET if "unet" in overlays else {}
    workflow = supervised.train_here(*overlays, output_dir=tmp_path, **small)
    assert type(workflow.parser.get_parsed_content("network_def")).__name__ == network
    before = metrics_of(tmp_path)
    assert method in before["pixels"]
    options = {name: TINY[name] for name in NETWORK_KEYS} | small
    again = supervised.evaluate_here(*overlays, output_dir=tmp_path, evaluation_dir=tmp_path / "again", **options)
    assert again == before


def test_no_mask_trains_the_image_level_baseline(supervised, tmp_path):
    workflow = supervised.workflow("train", "image_fsb", **TINY, output_dir=str(tmp_path))
    dataset = workflow.parser.get_parsed_content("train::dataset")
    for record in dataset.data:
        record["mask"] = None
    for index in range(len(dataset)):
        assert dataset[index]["mask"].unique().tolist() == [dataset.data[index]["label"]]


def test_the_weight_of_dcans_levels_fades(supervised, tmp_path):
    # 16 images in batches of 4: steps 1 to 4, of which the last two have a tenth of the weight.
    workflow = supervised.train_here("dcan", output_dir=tmp_path, auxiliary_steps=2)
    trainer, loss = (workflow.parser.get_parsed_content(name) for name in ("train::trainer", "loss_function"))
    assert trainer.loss_function.function is loss
    assert loss.auxiliary_weight == pytest.approx(0.1)


def test_instances_are_learnt_scored_and_mapped(supervised, tmp_path):
    options = TINY | {"batch_size": 40, "num_epochs": 2}
    workflow = supervised.train_here("instance_fsb", output_dir=tmp_path / "run", **options)
    # Every instance of every training image.
    instances = workflow.parser.get_parsed_content("train::dataset")
    assert len(instances) == 16 * 4 * 4
    counts = Counter(record["label"] for record in instances.data)
    assert counts[0] != counts[1]
    assert workflow.parser.get_parsed_content("train::dataloader").num_samples == 2 * max(counts.values())
    metrics = metrics_of(tmp_path / "run")
    assert list(metrics["instances"]) == ["FSB"]
    assert list(metrics["pixels"]) == ["Instance-level FSB", "Everything is tumour"]
    again = {"output_dir": tmp_path / "run", "evaluation_dir": tmp_path / "again", "image_size_px": IMAGE_SIZE_PX}
    assert supervised.evaluate_here("instance_fsb", backbone="resnet10", **again) == metrics
    options = {"checkpoint": tmp_path / "run/model.pt", "image_size_px": 128, "backbone": "resnet10", "head_channels": 16}
    supervised.map_slide("instance_fsb", slide="slide_00", output_dir=tmp_path / "maps", **options)
    settings = json.loads((tmp_path / "maps/settings.json").read_text())
    assert (settings["network"], settings["tile_size_px"], settings["margin_px"]) == ("InstanceClassifier", 32, 0)


def test_another_network_than_the_trained_one_is_refused(supervised, trained, tmp_path):
    options = {"output_dir": str(trained.folder), "evaluation_dir": str(tmp_path), "image_size_px": IMAGE_SIZE_PX}
    workflow = supervised.workflow("evaluate", "fcn8s", workflow_type="infer", backbone="resnet10", **options)
    with pytest.raises(RuntimeError) as caught:
        workflow.run()
    assert "network_def::_target_: 'shared.networks.DeepLabV2' before, 'shared.networks.FCN' now" in str(caught.value.__cause__)
    assert not list(tmp_path.iterdir())


def test_masks_that_are_missing_are_missed_at_once(supervised, tmp_path):
    manifest = tmp_path / "images.csv"
    supervised.manifest().drop(columns="mask").to_csv(manifest, index=False)
    workflow = supervised.workflow(
        "train", **TINY | {"manifest": str(manifest), "output_dir": str(tmp_path / "run"), "truth": None}
    )
    with pytest.raises(RuntimeError) as caught:
        workflow.run()
    assert f"{manifest}, row " in str(caught.value.__cause__)
    assert "the column 'mask' is empty" in str(caught.value.__cause__)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "overlays", [("camelyon16",), ("dataset_a", "fcn8s"), ("ebhi_seg", "unet"), ("camelyon16", "instance_fsb", "n8")]
)
def test_the_numbers_of_a_data_set_build_a_training(supervised, tmp_path, overlays):
    data = {"manifest": str(supervised.data / "images.csv"), "tracking::enabled": False, "output_dir": str(tmp_path)}
    parser = supervised.workflow("train", *overlays, **data).parser
    assert parser.get_parsed_content("validate::evaluator") is not None


@pytest.mark.parametrize(
    ("overlays", "lr"), [(("unet",), 1e-4), (("fcn32s", "vgg_imagenet"), 1e-4), (("dcan", "vgg_imagenet"), 1e-3)]
)
def test_dataset_a_is_learnt_at_the_constant_rates_of_cdws_mil(supervised, tmp_path, overlays, lr):
    options = {"output_dir": str(tmp_path), "pretrained": False, "head_channels": 16, "tracking::enabled": False}
    parser = supervised.workflow("train", "dataset_a", *overlays, **options).parser
    assert parser.get_parsed_content("optimizer").defaults["lr"] == lr
    assert parser.get_parsed_content("final_lr_share") == 1


@pytest.mark.parametrize("overlay", ["unet", "features"])
def test_dataset_a_has_no_validation_images(supervised, tmp_path, overlay):
    manifest = tmp_path / "images.csv"
    table = supervised.manifest()
    table[table["split"] != "val"].to_csv(manifest, index=False)
    small = {"manifest": str(manifest), "mpp": 0.5, "tile_mpp": 0.5, "crop_size_px": IMAGE_SIZE_PX}
    of_overlay = {"unet": SMALL_UNET, "features": {"features_dir": str(tmp_path / "features")}}[overlay]
    supervised.train_here("dataset_a", overlay, output_dir=tmp_path / "run", **small, **of_overlay)
    assert metrics_of(tmp_path / "run")["num_images"] == 8


def test_vgg_as_published_is_tuned_by_sgd(supervised, tmp_path):
    data = {"manifest": str(supervised.data / "images.csv"), "tracking::enabled": False, "output_dir": str(tmp_path)}
    parser = supervised.workflow("train", "fcn8s", "vgg_imagenet", **data, pretrained=False, head_channels=16).parser
    network, optimizer = (parser.get_parsed_content(name) for name in ("network_def", "optimizer"))
    assert not [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["lr"] == 0.0001
