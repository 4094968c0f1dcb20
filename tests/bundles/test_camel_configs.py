"""What CAMEL's configurations say before anything is trained: MONAI's properties, refusals."""

from collections import Counter

import pandas as pd
import pytest
from PIL import Image

from .runs import messages_of


def test_training_has_the_properties_that_monai_asks_for(camel, trained):
    options = {**trained.options, "output_dir": str(trained.folder), "tracking::enabled": False}
    workflow = camel.workflow("train", **options)
    assert workflow.check_properties() == []
    assert workflow.max_epochs == trained.options["num_epochs"]
    assert len(workflow.train_dataset) == 16


@pytest.mark.parametrize(
    ("overlays", "balanced"), [((), True), (("retrain_unconstrained", "instance_fsb"), True), (("oversampled_picks",), False)]
)
def test_picks_and_instances_are_balanced(camel, trained, overlays, balanced):
    workflow = camel.workflow("train", *overlays, **{**trained.options, "output_dir": str(trained.folder)})
    loader = workflow.parser.get_parsed_content("retrain::instances")
    counts = Counter(record["label"] for record in workflow.parser.get_parsed_content("retrain::dataset::data"))
    assert loader.num_samples == (2 * max(counts.values()) if balanced else sum(counts.values()))


def test_inference_has_the_properties_that_monai_asks_for(camel, trained):
    options = {"checkpoint": str(trained.folder / "model.pt"), "segmentation_backbone": "resnet10"}
    workflow = camel.workflow("inference", workflow_type="infer", **options)
    assert workflow.check_properties() == []
    evaluator = workflow.evaluator
    evaluator.run()
    (output,) = evaluator.state.output
    assert evaluator.state.iteration == len(workflow.dataset) == 8
    assert output["pred"].shape == (2, 64, 64)
    assert output["pred"].sum(0).allclose(output["pred"].new_ones(64, 64))


def test_masks_that_a_run_would_miss_later_are_missed_at_once(camel, tmp_path):
    table = pd.read_csv(camel.data / "images.csv").drop(columns="mask")
    manifest = camel.data / "without_masks.csv"
    table.to_csv(manifest, index=False)
    missed = {"val": ("train",), "test": ("train", "image_fsb"), "train": ("train", "pixel_fsb")}
    for split, names in missed.items():
        workflow = camel.workflow(*names, manifest=str(manifest), output_dir=str(tmp_path))
        with pytest.raises(RuntimeError) as caught:
            workflow.parser.get_parsed_content(f"{split}_records")
        row = 2 + table.index[(table["split"] == split) & (table["label"] == 1)][0]
        assert f"{manifest}, row {row}: the column 'mask' is empty" in str(caught.value.__cause__)
    for truth in (None, "label"):
        workflow = camel.workflow("train", manifest=str(manifest), output_dir=str(tmp_path), truth=truth)
        assert len(workflow.parser.get_parsed_content("test_records")) == 8


@pytest.mark.parametrize(
    ("overlays", "options", "starts"),
    [
        ((), {}, True),
        ((), {"backbone": "resnet10"}, False),
        ((), {"backbone": "resnet10", "segmentation_backbone": "resnet10"}, True),
        ((), {"warm_start": False}, False),
        (("camelyon16",), {"warm_start": True}, False),
        (("unet",), {}, False),
    ],
)
def test_the_segmentation_starts_from_a_resnet_of_its_own_kind(camel, tmp_path, overlays, options, starts):
    workflow = camel.workflow("train", *overlays, output_dir=str(tmp_path), **options)
    first = workflow.parser.get_parsed_content("initial_weights")
    assert first == (f"{tmp_path}/max_max/model.pt" if starts else None)


@pytest.mark.parametrize("overlays", [("n8", "cascade"), ("n8", "cascade", "features"), ("n8", "features", "cascade")])
def test_a_cascade_enlarges_picks_as_it_does_their_images(camel, tmp_path, overlays):
    """On features of 16 px images of 320 px become 8 * 48 px, and picks of a quarter of their side 2 * 48 px."""
    Image.new("RGB", (320, 320)).save(tmp_path / "image.png")
    whole = {"image": str(tmp_path / "image.png"), "mpp": 0.5, "label": 1}
    parser = camel.configuration("train", *overlays, output_dir=str(tmp_path))
    parser["train_records"], parser["inner_records"] = [whole], [whole | {"x": 80, "y": 80, "width_px": 80, "height_px": 80}]
    sizes = [parser.get_parsed_content(name).image_size(0)[0] for name in ("train_images", "inner_images")]
    sizes.append(parser.get_parsed_content("inner_bags::dataset").image_size(0)[0])
    assert sizes == ([384, 96, 96] if "features" in overlays else [320, 80, 80])


def test_a_cascade_without_its_lattice_is_refused_before_anything_is_done(camel, tmp_path):
    workflow = camel.workflow("train", "cascade", output_dir=str(tmp_path / "run"))
    with pytest.raises(RuntimeError) as caught:
        workflow.run()
    assert "got 4 * 2 and 4: put n8.json before cascade.json" in messages_of(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("evaluate", {"image_size_px": 32}, "image_size_px: 64 before, 32 now"),
        ("evaluate", {"instances_per_side": 8}, "instances_per_side: 4 before, 8 now"),
        ("evaluate", {"backbone": "resnet18"}, "backbone: 'resnet10' before, 'resnet18' now"),
        ("inference", {"mpp": 1.0}, "mpp: 0.5 before, 1.0 now"),
        ("inference", {"norm": "frozen"}, "norm: 'batch' before, 'frozen' now"),
    ],
)
def test_what_was_trained_with_other_settings_is_not_used(camel, trained, tmp_path, name, changes, named):
    options = {"segmentation_backbone": "resnet10", "output_dir": str(tmp_path), "checkpoint": str(trained.folder / "model.pt")}
    if name == "evaluate":
        options |= {
            "output_dir": str(trained.folder),
            "backbone": "resnet10",
            "image_size_px": 64,
            "evaluation_dir": str(tmp_path),
        }
    with pytest.raises(RuntimeError) as caught:
        camel.workflow(name, workflow_type="infer", **options | changes).run()
    message = messages_of(caught.value)
    assert f"was trained with other settings ({named})" in message
    remedy = "unless_null" if named.startswith("mpp") else "keys"
    assert f"to continue anyway: --check_training::{remedy} '[]'" in message
    assert not list(tmp_path.iterdir())


def test_another_split_has_a_folder_of_its_own(camel):
    folders = [
        camel.workflow("evaluate", workflow_type="infer", output_dir="out", split=split).parser.get_parsed_content(
            "evaluation_dir"
        )
        for split in ("test", "val")
    ]
    assert folders == ["out/evaluation", "out/evaluation_val"]


def test_a_manifest_that_has_changed_is_another_run(camel, trained):
    options = trained.options | {"output_dir": str(trained.folder), "tracking::enabled": False}
    manifest = camel.data / "images.csv"
    content = manifest.read_bytes()
    try:
        manifest.write_bytes(content + b"\n")
        with pytest.raises(RuntimeError) as caught:
            camel.workflow("train", **options).run()
    finally:
        manifest.write_bytes(content)
    assert f"the content of {manifest} has changed" in messages_of(caught.value)


@pytest.mark.slow
def test_a_wrong_manifest_is_refused_before_anything_is_done(camel, tmp_path):
    """Even where it is wrong in the split that is read last."""
    table = camel.manifest()
    last = len(table) - 1
    assert table.loc[last, "split"] == "test"
    table["label"] = table["label"].astype("Int64")
    table.loc[last, "label"] = None
    manifest, output_dir = tmp_path / "images.csv", tmp_path / "run"
    table.to_csv(manifest, index=False)
    process = camel.run(camel.command("train", output_dir=output_dir, manifest=manifest))
    assert process.returncode != 0
    assert f"error: {manifest}, row {last + 2}: the column 'label' is empty" in process.stderr
    assert not output_dir.exists()


def test_a_training_is_not_continued_with_another_configuration(camel, trained):
    before = {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*")}
    options = trained.options | {"output_dir": str(trained.folder), "manifest": str(camel.data / "images.csv")}
    other = camel.workflow("train", **options | {"retrain::num_epochs": 7, "tracking::enabled": False})
    with pytest.raises(RuntimeError) as caught:
        other.run()
    message = str(caught.value.__cause__)
    assert "contains a run with another configuration" in message
    assert "retrain::num_epochs: 4 before, 7 now" in message
    assert {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*")} == before
