"""WILDCAT's configurations, to their end on tiny data: trained on image labels, evaluated, in use."""

import pandas as pd
import pytest
import torch

from shared.networks import Wildcat

from .conftest import IMAGE_SIZE_PX
from .runs import Bundle, files_of, files_of_training, history_of, metrics_of, train_once, weights_of

TINY = {
    "image_size_px": IMAGE_SIZE_PX,
    "backbone": "resnet10",
    "amp_dtype": "$None",
    "num_workers": 0,
    "num_epochs": 2,
    "batch_size": 4,
    "lr": 0.003,
}
RESULTS = files_of_training("segmentation")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wildcat(easy_data):
    return Bundle("wildcat", easy_data, TINY)


@pytest.fixture(scope="module")
def trained(wildcat, tmp_path_factory):
    """The whole train.json, once, as a user starts it."""
    return train_once(wildcat, TINY | {"num_epochs": 6}, tmp_path_factory.mktemp("trained_wildcat"))


def test_the_training_leaves_its_files_and_its_table(trained):
    assert files_of(trained.folder) == RESULTS
    metrics = metrics_of(trained.folder)
    assert list(metrics["pixels"]) == ["WILDCAT", "Everything is tumour"]
    assert list(metrics["images"]) == list(metrics["regions"]) == ["WILDCAT"]
    history = history_of(trained.folder, "segmentation")
    assert {"train_loss", "val_image_accuracy", "val_pixel_iou"} <= set(history)
    # Tumour is painted in its own colour.
    assert history["train_loss"].iloc[-1] < 0.5 * history["train_loss"].iloc[0]


@torch.no_grad()
def test_an_image_is_judged_by_its_pooled_scores(wildcat, trained, tmp_path):
    """And not by its map's generalised mean: images.csv has the softmax of what was trained."""
    network = Wildcat("resnet10", output_stride=16).eval()
    network.load_state_dict(weights_of(trained.folder / "model.pt"))
    parser = wildcat.workflow("train", **trained.options, output_dir=str(tmp_path)).parser
    images = torch.stack([item["image"] for item in parser.get_parsed_content("test_images")])
    expected = network.image_scores(images).softmax(dim=1)[:, 1]
    rows = pd.read_csv(trained.folder / "evaluation/images.csv")
    # Evaluations compute in bfloat16 where that is faster.
    assert rows["image_probability"].tolist() == pytest.approx(expected.tolist(), abs=5e-3)
    assert rows["max_probability"].tolist() == pytest.approx(network(images).softmax(1)[:, 1].amax(dim=(1, 2)).tolist(), abs=5e-3)


def test_evaluate_repeats_the_numbers_and_inference_maps_a_slide(wildcat, trained, tmp_path):
    options = {name: TINY[name] for name in ("image_size_px", "backbone")}
    trained.assert_evaluated_the_same(tmp_path / "again", **options)
    options = {"checkpoint": trained.folder / "model.pt", "backbone": "resnet10", "tile_size_px": 128}
    wildcat.map_slide(slide="slide_00", output_dir=tmp_path / "maps", **options)


def test_training_and_inference_have_the_properties_that_monai_asks_for(wildcat, trained):
    assert trained.workflow().check_properties() == []
    prediction = wildcat.infer_here(checkpoint=str(trained.folder / "model.pt"), backbone="resnet10")
    torch.testing.assert_close(prediction.sum(0), torch.ones(IMAGE_SIZE_PX, IMAGE_SIZE_PX))


def test_image_labels_alone_are_enough(wildcat, tmp_path):
    wildcat.manifest().drop(columns=["mask", "area"]).to_csv(tmp_path / "images.csv", index=False)
    wildcat.train_here(
        output_dir=tmp_path / "run", manifest=str(tmp_path / "images.csv"), truth=None, keep_best="val_image_accuracy"
    )
    metrics = metrics_of(tmp_path / "run")
    assert metrics.keys() == {"split", "num_images", "images"}
    history = history_of(tmp_path / "run", "segmentation")
    assert "val_image_accuracy" in history
    assert "val_pixel_iou" not in history


def test_what_was_trained_with_other_settings_is_not_used(wildcat, trained, tmp_path):
    options = {"output_dir": str(trained.folder), "evaluation_dir": str(tmp_path), "image_size_px": IMAGE_SIZE_PX}
    workflow = wildcat.workflow("evaluate", workflow_type="infer", backbone="resnet10", alpha=0.5, **options)
    with pytest.raises(RuntimeError) as caught:
        workflow.run()
    assert "alpha: 0.7 before, 0.5 now" in str(caught.value.__cause__)
