"""Every bundle of images that can keep its last epoch, on a manifest of training and test images alone: tiny trainings."""

from typing import Any

import pytest

from .conftest import IMAGE_SIZE_PX, TINY, TINY_CDWS, TINY_JOINT
from .runs import Bundle, history_of, metrics_of

SIZES: dict[str, Any] = {"image_size_px": IMAGE_SIZE_PX, "num_workers": 0}
ONE_EPOCH: dict[str, Any] = {"num_epochs": 1, "keep_best": None}
SMALL = {**SIZES, **ONE_EPOCH, "backbone": "resnet10", "amp_dtype": TINY["amp_dtype"], "batch_size": 4}
TREES = {**SIZES, "mpp": 0.5, "num_trees": 4, "rounds_per_epoch": 2}
ON_FEATURES = TINY_CDWS | {"num_epochs": 1}
RUNS: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
    ("mil_boosting", (), TREES | {"patch_size_px": 16, "patches_per_image": 20}),
    ("cdws_mil", (), TINY_CDWS | ONE_EPOCH),
    ("fully_supervised", (), SMALL),
    ("fully_supervised", ("instance_fsb",), SMALL),
    ("wildcat", (), SMALL),
    ("joint_seg_cls", (), TINY_JOINT | ONE_EPOCH),
    ("mil_boosting", ("features",), TREES),
    ("cdws_mil", ("features",), ON_FEATURES),
    ("fully_supervised", ("features",), ON_FEATURES),
    ("wildcat", ("features",), ON_FEATURES),
    ("joint_seg_cls", ("features",), TINY_JOINT | ONE_EPOCH | {"feature_stride_px": 8}),
]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("name", "overlays", "options"), RUNS, ids=["+".join([name, *overlays]) for name, overlays, _ in RUNS])
def test_it_trains_without_validation_images(request, tmp_path, name, overlays, options):
    folder = request.getfixturevalue("easy_breast" if name == "joint_seg_cls" else "easy_data")
    if "features" in overlays:
        options = options | {"features_dir": str(tmp_path / "features")}
    bundle = Bundle(name, folder, options)
    table = bundle.manifest()
    table[table["split"] != "val"].to_csv(tmp_path / "images.csv", index=False)
    bundle.train_here(*overlays, output_dir=tmp_path / "run", manifest=str(tmp_path / "images.csv"))
    assert metrics_of(tmp_path / "run")["num_images"] == (table["split"] == "test").sum()
    (history,) = (history_of(tmp_path / "run", file.parent.name) for file in (tmp_path / "run").glob("*/history.csv"))
    assert not [column for column in history if column.startswith("val_")]
