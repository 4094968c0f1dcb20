"""Manifests are read with the keys of the user: what annotation files mean, and how their rows are divided."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(path for name in ("train", "evaluate") for path in (ROOT / "bundles").glob(f"*/configs/{name}.json"))


def loaders(node: Any) -> Iterator[dict[str, Any]]:
    """What in a configuration reads a manifest."""
    if isinstance(node, dict) and node.get("_target_") == "shared.data.load_manifest":
        yield node
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from loaders(part)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_manifests_are_read_with_the_keys(path: Path) -> None:
    config = json.loads(path.read_text())
    # The class names of joint_seg_cls say it.
    keys = ["annotation_frame"] + ["tumour_classes"] * ("class_names" not in config)
    found = list(loaders(config))
    assert found
    for key in keys:
        assert config[key] is None
        assert all(loader[key] == f"@{key}" for loader in found)


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.stem == "evaluate"], ids=lambda path: path.parts[-3])
def test_an_evaluation_divides_the_rows_as_its_training_did(path: Path) -> None:
    """Or images that it learned from would be scored as others."""
    (training,), (evaluation,) = (
        [{name for loader in loaders(json.loads(file.read_text())) for name in loader}]
        for file in (path.with_name("train.json"), path)
    )
    dividing = training & {"num_folds", "fold", "validation_fold", "validation_case", "split_seed"}
    assert dividing <= evaluation
    config = json.loads(path.read_text())
    checked = config["check_training"]["keys"]
    assert dividing <= set(config[checked[1:]] if isinstance(checked, str) else checked)


def test_a_key_reaches_the_rows(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif", "a.geojson", "b.geojson"):
        (tmp_path / name).touch()
    manifest = tmp_path / "images.csv"
    manifest.write_text("image,label,mask,split\na.tif,1,a.geojson,train\nb.tif,0,b.geojson,train\n")
    config = json.loads((ROOT / "bundles/camel/configs/train.json").read_text())
    config |= {"manifest_file": str(manifest), "tumour_classes": ["Tumor", "DCIS"], "annotation_frame": "level0"}
    records = ConfigParser(config).get_parsed_content("train_records")
    assert [(row["tumour_classes"], row["annotation_frame"]) for row in records] == [("Tumor|DCIS", "level0")] * 2
