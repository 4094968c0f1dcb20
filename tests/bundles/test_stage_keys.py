"""Keys that every training by gradients has, and by what it chooses its epoch."""

import pytest

from .conftest import TINY, TINY_ATTENTION, TINY_CDWS, TINY_JOINT, TINY_SLIDES
from .runs import Bundle

LABELS_ALONE = {"truth": "$None"}
SEGMENTATION = {
    name: TINY[name] for name in ("image_size_px", "backbone", "amp_dtype", "num_workers", "num_epochs", "batch_size")
}
CAMEL = {"max_max": "val_image_auc", "max_min": "val_image_auc"}
CASES = {
    "alpha_beta_mil": [((), {}, {"train": "val_slide_auc"}), (("tcga",), {}, {"train": None})],
    "attention_mil": [((), {}, {"train": "val_slide_auc"}), (("small",), LABELS_ALONE, {"train": "val_slide_auc"})],
    "camel": [
        ((), {}, CAMEL),
        ((), LABELS_ALONE, CAMEL),
        (("camelyon16",), {}, dict.fromkeys(CAMEL)),
        (("n8", "cascade"), {}, {"outer_max_max": "val_image_auc", "outer_max_min": "val_image_auc"}),
    ],
    "cdws_mil": [
        ((), {}, {"train": "val_image_auc"}),
        (("dataset_a",), {"pretrained": False}, {"train": None}),
        (("camelyon16", "resnet50"), {"pretrained": False}, {"train": None}),
    ],
    "fully_supervised": [
        ((), {}, {"train": "val_pixel_iou"}),
        ((), LABELS_ALONE, {"train": "val_image_auc"}),
        (("image_fsb",), {}, {"train": "val_image_auc"}),
        (("instance_fsb",), {}, {"train": "val_instance_auc"}),
        (("camelyon16",), {}, {"train": None}),
        (("camelyon16", "instance_fsb"), {}, {"train": None}),
    ],
    "joint_seg_cls": [((), {}, {"train": "val_pixel_macro_f1"}), ((), LABELS_ALONE, {"train": None})],
    "wildcat": [((), {}, {"train": "val_image_auc"}), (("camelyon16",), {"pretrained": False}, {"train": None})],
}
SETTINGS = {
    "alpha_beta_mil": ("easy_slides", TINY_SLIDES | {"pretrained": False}),
    "attention_mil": ("easy_slides", TINY_ATTENTION),
    "camel": ("easy_data", TINY),
    "cdws_mil": ("easy_data", TINY_CDWS),
    "fully_supervised": ("easy_data", SEGMENTATION),
    "joint_seg_cls": ("easy_breast", TINY_JOINT),
    "wildcat": ("easy_data", SEGMENTATION),
}

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "overlays", "options", "chosen_by"),
    [pytest.param(name, *case, id="+".join([name, *case[0], *case[1]])) for name, cases in CASES.items() for case in cases],
)
def test_what_a_stage_takes_and_keeps(request, tmp_path, name, overlays, options, chosen_by):
    """A metric that chooses an epoch is one that the validation gives, and needs no mask unless masks are learned from."""
    data, tiny = SETTINGS[name]
    bundle = Bundle(name, request.getfixturevalue(data), tiny)
    keys = {"min_steps": 50, "ema_decay": 0.9, "output_dir": str(tmp_path), "tracking::enabled": False}
    manifest = "slides.csv" if data == "easy_slides" else "images.csv"
    parser = bundle.workflow("train", *overlays, **{**tiny, **options, **keys, "manifest": str(bundle.data / manifest)}).parser
    if "instance_fsb" in overlays:
        parser.get_parsed_content("construct").run()
    for stage, metric in chosen_by.items():
        trainer = parser.get_parsed_content(f"{stage}::trainer")
        assert (trainer.weights.keep_best, trainer.weights.ema_decay) == (metric, 0.9)
        assert trainer.state.max_epochs * len(trainer.data_loader) >= trainer.steps.min_steps == 50
        if metric is not None:
            trainer.validator.run()
            assert metric in trainer.validator.state.metrics


@pytest.mark.parametrize(("overlays", "retrain"), [((), "val_image_auc"), (("adenoma",), None), (("camelyon16",), None)])
def test_camels_later_stages(camel, tmp_path, overlays, retrain):
    """They need what the earlier ones write; of the segmentation the last epoch is kept, as in the paper."""
    parser = camel.workflow("train", *overlays, **{**TINY, "output_dir": str(tmp_path)}).parser
    weights = [parser.get_parsed_content(f"{stage}::trainer::weights") for stage in ("retrain", "train")]
    assert [one.keep_best for one in weights] == [retrain, None]
