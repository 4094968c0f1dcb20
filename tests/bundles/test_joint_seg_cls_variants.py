"""Joint segmentation and classification with other settings and other data: every mode, other classes, what is refused."""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from .conftest import CLASS_NAMES
from .runs import Bundle, counts_of, files_of, history_of, messages_of, metrics_of, weights_of

pytestmark = pytest.mark.slow


# Mode and masked share: how many masks and labels of 8 and 8 are used.
SMALL_TILES = {"image_size_px": 64, "margin_px": 8}
MODES = {
    ("S", 1.0): (8, 0),
    ("S", 0.1): (4, 0),
    ("S+C", 0.5): (4, 4),
    ("S+C", 0.0): (0, 8),
    ("S+C*", 0.1): (4, 8),
    ("S+C*", 0.0): (0, 8),
}


@pytest.mark.parametrize("head", ["paper", "released"])
@pytest.mark.parametrize(("mode", "share"), MODES)
def test_a_mode_trains_to_its_end(joint, tmp_path, mode, share, head, capsys):
    joint.train_here(output_dir=tmp_path, mode=mode, masked_share=share, head=head, num_epochs=1, steps_per_epoch=2)
    metrics, counts = metrics_of(tmp_path), counts_of(tmp_path)
    num_masked, num_labelled = MODES[mode, share]
    assert (counts["num_masked"], counts["num_labelled"]) == (num_masked, num_labelled)
    assert (counts["pixels"] is None) == (num_masked == 0)
    assert (counts["images"] is None) == (num_labelled == 0)
    assert ("image_classes" in metrics) == (num_labelled > 0)
    assert mode in metrics["class_pixels"]
    assert f"{mode}: examples" not in capsys.readouterr().err
    assert np.isfinite(history_of(tmp_path, "joint")["train_loss"]).all()
    has_classifier = any(name.startswith("classifier") for name in weights_of(tmp_path / "model.pt"))
    assert has_classifier == (head == "paper")


def test_the_paper_s_epoch_is_a_pass_over_the_larger_kind(joint, tmp_path):
    """8 labelled and 4 masked images in halves of 4: two steps and one, so two."""
    workflow = joint.workflow("train", **joint.tiny | {"steps_per_epoch": "$None", "output_dir": str(tmp_path)})
    assert len(workflow.parser.get_parsed_content("train::dataloader")) == 2


def test_the_best_epoch_is_kept(joint, tmp_path):
    """The learning rate grows until nothing is left of what was learned, and no lesion is found any more."""
    wild = {"masked_share": 1.0, "num_epochs": 4, "lr": 0.003, "final_lr_share": 1000.0}
    scores = {}
    for keep_best in ("val_pixel_foreground_accuracy", "$None"):
        folder = tmp_path / keep_best.strip("$")
        joint.train_here(output_dir=folder, keep_best=keep_best, **wild)
        again = {"image_size_px": 64, "output_dir": str(folder), "split": "val", "num_workers": 0}
        joint.workflow("evaluate", workflow_type="infer", **again).run()
        metrics = metrics_of(folder, "evaluation_val")
        assert metrics["split"] == "val"
        scores[keep_best] = metrics["class_pixels"]["S+C*"]["foreground_accuracy"]
        history = history_of(folder, "joint")["val_pixel_foreground_accuracy"].tolist()
    assert scores["val_pixel_foreground_accuracy"] == pytest.approx(max(history), abs=1e-9)
    assert scores["$None"] == pytest.approx(history[-1], abs=1e-9)
    assert max(history) > history[-1], "the last epoch is the best, which proves nothing"


def test_a_mask_file_of_a_normal_image_changes_nothing(joint, tmp_path):
    """Every image is masked; the masks of normal ones are empty, which their label says too."""
    table = joint.manifest()
    table = table[table["mask"].notna()]
    weights = []
    for name, kept in (("with", table["mask"]), ("without", table["mask"].where(table["label"] > 0))):
        table.assign(mask=kept).to_csv(tmp_path / "images.csv", index=False)
        options = {"manifest": str(tmp_path / "images.csv"), "labelled": "all", "masked_share": 0.5, "num_epochs": 1}
        joint.train_here(output_dir=tmp_path / name, steps_per_epoch=2, **options)
        weights.append(weights_of(tmp_path / name / "model.pt"))
    assert counts_of(tmp_path / "with") == counts_of(tmp_path / "without")
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


def test_without_masks_to_score_the_last_epoch_is_kept(joint, tmp_path):
    """Labelled images alone, also to validate and to test."""
    table = joint.manifest()
    table = table[(table["split"] != "train") | table["mask"].isna()].drop(columns="mask")
    table.to_csv(tmp_path / "images.csv", index=False)
    options = {"manifest": str(tmp_path / "images.csv"), "truth": "$None", "num_epochs": 1, "steps_per_epoch": 2}
    options |= {"masked_share": 0.0}
    workflow = joint.train_here(output_dir=tmp_path / "run", **options)
    assert workflow.parser.get_parsed_content("keep_best") is None
    metrics = metrics_of(tmp_path / "run")
    assert "class_pixels" not in metrics
    assert metrics["image_classes"].keys() == {"S+C*"}
    assert list(history_of(tmp_path / "run", "joint")) == ["epoch", "train_loss"]


def test_two_classes_of_tiles_at_half_their_size(joint, tmp_path):
    """EBHI-Seg's overlay: every tile has a label, those with a mask too; the BACH score is the IoU of tumour."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for index, split in enumerate(["train"] * 8 + ["val"] * 4 + ["test"] * 4):
        pixels = rng.integers(150, 220, (128, 128, 3), dtype=np.uint8)
        mask = np.zeros((128, 128), np.uint8)
        if index % 2:
            mask[20:90, 30 : 60 + 4 * index] = 255
        pixels[mask > 0] = (70, 30, 120)
        Image.fromarray(pixels).save(tmp_path / f"images/{index}.png")
        Image.fromarray(mask).save(tmp_path / f"masks/{index}.png")
        rows.append((f"images/{index}.png", index % 2, f"masks/{index}.png", f"case_{index}", split))
    pd.DataFrame(rows, columns=["image", "label", "mask", "case_id", "split"]).to_csv(tmp_path / "manifest.csv", index=False)
    ebhi = Bundle(joint.name, tmp_path, joint.tiny)
    run = tmp_path / "run"
    ebhi.train_here("ebhi_seg", output_dir=run, masked_share=0.5, num_epochs=1)
    metrics, counts = metrics_of(run), counts_of(run)
    assert (counts["num_masked"], counts["num_labelled"], counts["images"]) == (4, 8, [4, 4])
    assert sum(counts["pixels"]) == 4 * 64 * 64
    assert metrics["class_names"] == ["normal", "tumour"]
    assert metrics["class_pixels"]["S+C*"]["bach_score"] == pytest.approx(metrics["classes"]["tumour"]["iou"])
    again = {"output_dir": run, "evaluation_dir": tmp_path / "again", "image_size_px": 64}
    assert ebhi.evaluate_here("ebhi_seg", **again) == metrics
    # One class in addition to the background: a map of tumour with a threshold.
    maps = {"checkpoint": str(run / "model.pt"), "output_dir": str(tmp_path / "maps"), "num_workers": 1, **SMALL_TILES}
    workflow = ebhi.workflow("inference", "ebhi_seg", workflow_type="infer", **maps)
    mapper = workflow.parser.get_parsed_content("slide_mapper")
    (row,) = mapper.run(tmp_path / "images/15.png", tmp_path / "maps")
    assert "tumour_area_mm2" in row
    assert mapper.mpp == 0.5


def test_the_numbers_of_bach(joint, tmp_path):
    """The paper's settings; photos are brought to the size of a patch."""
    table = joint.manifest()
    smaller = table["mask"].isna()
    for index, image in table[smaller]["image"].items():
        path = tmp_path / Path(image).name
        Image.open(image).resize((96, 80)).save(path)
        table.loc[index, "image"] = str(path)
    # Patches are cut at about 8 um, and read as they are.
    table.drop(columns="mpp").to_csv(tmp_path / "patches.csv", index=False)
    bach = Bundle(joint.name, tmp_path, {})
    options = {"pretrained": False, "image_size_px": 64, "num_workers": 0, "output_dir": str(tmp_path / "run")}
    parsed = bach.workflow("train", "bach", **options).parser.get_parsed_content
    assert (parsed("lr"), parsed("final_lr_share"), parsed("num_epochs")) == (1e-4, 1.0, 100)
    assert (parsed("batch_size"), parsed("masked_share"), parsed("mode")) == (20, 1.0, "S+C*")
    assert parsed("class_names") == CLASS_NAMES
    assert parsed("mpp") == pytest.approx(7.472)
    assert [len(records) for records in parsed("supervision")] == [8, 8]
    masked, labelled = (parsed(f"train::{kind}_images") for kind in ("masked", "labelled"))
    assert masked[0]["image"].shape == (3, 64, 64)
    assert {labelled[index]["image"].shape for index in range(8)} == {(3, 128, 128)}
    assert parsed("preprocessing").keywords["stain_reference"] == "monai"
    # Eight of each are fewer than half of a step's 20.
    batch = next(iter(parsed("train::dataloader")))
    assert {name: len(part["image"]) for name, part in batch.items()} == {"masked": 10, "labelled": 10}
    on_features = bach.workflow("train", "bach", "features", **options).parser
    images = on_features["train::labelled_images::images"]
    assert on_features.get_parsed_content("stretch_labelled")
    assert (images["size_px"], images["stretch"]) == ("@labelled_size_px", "@stretch_labelled")


def test_labelled_images_of_another_size_train(joint, tmp_path):
    """The network pools each image's map, whatever its size."""
    table = joint.manifest()
    for index, image in table[table["mask"].isna()]["image"].items():
        path = tmp_path / Path(image).name
        Image.open(image).resize((96, 96)).save(path)
        table.loc[index, "image"] = str(path)
    table.to_csv(tmp_path / "patches.csv", index=False)
    bach = Bundle(joint.name, tmp_path, joint.tiny)
    tiny = {
        "pretrained": False,
        "labelled_size_px": "$None",
        "stretch_labelled": False,
        "num_epochs": 1,
        "steps_per_epoch": 2,
        "mpp": 8.0,
    }
    bach.train_here("bach", output_dir=tmp_path / "run", **tiny)
    assert counts_of(tmp_path / "run")["num_labelled"] == 8
    assert json.loads((tmp_path / "run/config.json").read_text())["stain_reference"] == "monai"


def test_the_choices_of_the_released_code(joint, tmp_path):
    """Its head, the training data's own colours, stains of labelled images alone, whole batches; evaluated as it was trained."""
    options = {"pretrained": False, "masked_share": 0.5, "num_epochs": 1, "steps_per_epoch": 2, "mpp": 8.0, "batch_size": 12}
    run = tmp_path / "run"
    manifest = {"manifest": str(joint.data / "images.csv")}
    workflow = joint.train_here("bach", "released", output_dir=run, labelled_size_px=64, **manifest, **options)
    statistics = json.loads((run / "pixel_statistics.json").read_text())
    state = weights_of(run / "model.pt")
    torch.testing.assert_close(state["normalization.mean"].flatten(), torch.tensor(statistics["mean"]))
    assert not any(name.startswith("classifier") for name in state)
    parsed = workflow.parser.get_parsed_content
    assert (parsed("map_stain_reference"), parsed("stain_reference")) == (None, "monai")
    # Of half a step's six masked images there are only four; of the eight labelled ones a second step has six too.
    for batch in parsed("train::dataloader"):
        assert {name: len(part["image"]) for name, part in batch.items()} == {"masked": 6, "labelled": 6}
        assert len(set(batch["masked"]["index"].tolist())) == 4
    again = {"output_dir": run, "evaluation_dir": tmp_path / "again", "image_size_px": 64, "mpp": 8.0, **manifest}
    assert joint.evaluate_here("bach", "released", **again) == metrics_of(run)


def test_a_refused_run_leaves_a_folder_as_it_was(joint, tmp_path):
    """The statistics of its images belong into a folder of its own."""
    joint.train_here(output_dir=tmp_path / "run", run=["$@run_folder.open()", "$@run_folder.close()"])
    before = files_of(tmp_path / "run")
    with pytest.raises(RuntimeError) as caught:
        joint.train_here(output_dir=tmp_path / "run", pixel_normalization="training")
    assert "pixel_normalization: 'imagenet' before, 'training' now" in messages_of(caught.value)
    assert files_of(tmp_path / "run") == before


@pytest.mark.parametrize("overlay", ["features", "finetune"])
def test_an_encoder_normalises_colours_as_it_was_trained(joint, tmp_path, overlay):
    with pytest.raises(RuntimeError) as caught:
        joint.train_here(overlay, output_dir=tmp_path / "run", pixel_normalization="training")
    assert "pixel_normalization must be imagenet" in messages_of(caught.value)
    assert not (tmp_path / "run").exists()


def test_stains_of_labelled_images_are_not_forgotten_on_features(joint, tmp_path):
    stains = {"stain_reference": "monai", "normalized_images": "labelled"}
    with pytest.raises(RuntimeError) as caught:
        joint.train_here("features", output_dir=tmp_path / "run", **stains)
    assert "features are computed from unchanged images" in messages_of(caught.value)
    assert not (tmp_path / "run").exists()


def test_each_slide_may_validate(joint, tmp_path):
    outside = sorted(set(joint.manifest().query("split != 'train'")["case_id"]))
    parsed = joint.workflow("train", validation_case=outside[0], output_dir=str(tmp_path), **joint.tiny).parser.get_parsed_content
    for name, cases in (("val", outside[:1]), ("test", outside[1:])):
        assert sorted({record["case_id"] for record in parsed(f"{name}_records")}) == cases


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"mode": "Z"}, "mode must be one of S, S+C, S+C*; got 'Z'"),
        ({"masked_share": 2}, "masked_share must be in [0, 1]; got 2"),
        ({"mode": "S", "masked_share": 0}, "mode S with masked_share 0 has no masked images to train with"),
        ({"labelled": "masked"}, "labelled must be one of unmasked, all, unmasked_or_all; got 'masked'"),
        ({"pixel_normalization": "mine"}, "pixel_normalization must be imagenet or training; got 'mine'"),
        ({"head": "other"}, "head must be one of paper, released; got 'other'"),
        ({"class_names": ["normal", "tumour"]}, "row 4: label must be one of 0..1, got 2"),
        ({"image_size_px": 96}, "the image is 64 x 64 px at 8 um per pixel, expected 96 x 96"),
        ({"labelled_size_px": 32}, "the image is 64 x 64 px at 8 um per pixel, expected 32 x 32"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_said_before_anything_is_written(joint, tmp_path, options, problem):
    with pytest.raises(RuntimeError) as caught:
        joint.train_here(output_dir=tmp_path / "run", **options)
    assert problem in messages_of(caught.value)
    assert not (tmp_path / "run").exists()


def with_label(table: pd.DataFrame, row: int, label: int | None) -> None:
    table["label"] = table["label"].astype("Int64")
    table.loc[row, "label"] = pd.NA if label is None else label


def with_mask_of_9(table: pd.DataFrame, row: int, folder: Path) -> None:
    mask = np.array(Image.open(table.loc[row, "mask"]))
    mask[3, 5] = 9
    table.loc[row, "mask"] = str(folder / "nine.png")
    Image.fromarray(mask).save(folder / "nine.png")


# Row of the table, as the manifest counts them from 2 on, and split.
BROKEN = {
    "a label of 7": (lambda table, row, folder: with_label(table, row, 7), "label must be one of 0..3, got 7"),
    "no label": (lambda table, row, folder: with_label(table, row, None), "the column 'label' is empty"),
    "a mask of 9": (with_mask_of_9, "has a pixel of value 9: with 4 classes a pixel's value must be its class index, 0..3"),
}


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_row_is_named_before_anything_is_written(joint, tmp_path, what, split):
    table = joint.manifest()
    row = table.index[(table["split"] == split) & table["mask"].notna()][2]
    damage, problem = BROKEN[what]
    damage(table, row, tmp_path)
    manifest = tmp_path / "broken.csv"
    table.to_csv(manifest, index=False)
    with pytest.raises(RuntimeError) as caught:
        joint.train_here(output_dir=tmp_path / "run", manifest=str(manifest), masked_share=1.0)
    said = messages_of(caught.value)
    assert problem in said
    assert f"{manifest}, row {row + 2}" in said
    assert not (tmp_path / "run").exists()


def test_more_classes_by_their_names(joint, tmp_path):
    """Necrosis, as a fifth class of some masks and of one label."""
    table = joint.manifest()
    rows = [
        table.index[(table["split"] == split) & (table["label"] == 3) & table["mask"].notna()][0] for split in ("train", "test")
    ]
    for row in rows:
        mask = np.array(Image.open(table.loc[row, "mask"]))
        mask[40:, 40:] = 4
        table.loc[row, "mask"] = str(tmp_path / f"mask_{row}.png")
        Image.fromarray(mask).save(table.loc[row, "mask"])
    table.loc[rows[0], "label"] = 4
    table.to_csv(tmp_path / "images.csv", index=False)
    names = [*CLASS_NAMES, "necrosis"]
    options = {"manifest": str(tmp_path / "images.csv"), "class_names": names, "num_epochs": 1, "masked_share": 1.0}
    joint.train_here(output_dir=tmp_path / "run", **options)
    metrics, counts = metrics_of(tmp_path / "run"), counts_of(tmp_path / "run")
    assert metrics["class_names"] == list(metrics["classes"]) == names
    assert np.shape(metrics["confusion"]) == (5, 5)
    assert counts["pixels"][4] == 24 * 24
    assert metrics["classes"]["necrosis"]["true_share"] == pytest.approx(24 * 24 / (4 * 64 * 64))
    maps = {"checkpoint": str(tmp_path / "run/model.pt"), "output_dir": str(tmp_path / "maps"), "num_workers": 1, **SMALL_TILES}
    workflow = joint.workflow("inference", workflow_type="infer", class_names=names, **maps)
    source = joint.data / "slides/slide_00.tif"
    (row,) = workflow.parser.get_parsed_content("slide_mapper").run(source, tmp_path / "maps")
    assert {"area_mm2_in_situ", "area_mm2_necrosis"} <= row.keys()


def test_every_mode_begins_with_the_same_network_and_masks(joint, tmp_path):
    chosen = []
    for mode, head in itertools.product(("S", "S+C", "S+C*"), ("paper", "released")):
        workflow = joint.workflow("train", **joint.tiny | {"mode": mode, "head": head, "output_dir": str(tmp_path)})
        network, supervision = (workflow.parser.get_parsed_content(name) for name in ("network_def", "supervision"))
        weights = next(network.decoder.parameters()).detach()
        chosen.append(([record["image"] for record in supervision[0]], weights))
    for images, weights in chosen[1:]:
        assert images == chosen[0][0]
        assert weights.equal(chosen[0][1])
