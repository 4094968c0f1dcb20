"""How the real bundles are trained on manifests that have the labels that they need, or lack them."""

import csv
import itertools
import re
from pathlib import Path

import pytest
from PIL import Image
from torch import nn

from scripts.comparison.data import prepare_data
from scripts.comparison.planning.methods import dataset_of, find_methods, with_dataset
from scripts.comparison.planning.plan import NotComparable, plan
from shared.data import RegionDataset, check_images, load_manifest, write_manifest
from shared.synthetic import DemoPlan, SlidePlan, write_demo

from .conftest import BUNDLES, method


@pytest.mark.parametrize(
    ("name", "column", "reason"),
    [
        ("cdws_mil", "area", "needs label 'area': 2 of 2 training images with tumour have none"),
        ("camel+pixel_fsb", "mask", "needs label 'mask': 2 of 2 training images with tumour have none"),
        ("joint_seg_cls", "mask", "needs label 'mask': 2 of 2"),
        ("camel", "label", "needs label 'label': 4 of 4 training images have none"),
    ],
)
def test_a_method_whose_label_is_missing(changed, tmp_path, name, column, reason):
    # Where there is a mask it stands in for an area.
    empty = {"area", "mask"} if column == "area" else {column}
    data = changed(**{column: lambda index, cell: "" if index < 4 else cell for column in empty})
    with pytest.raises(NotComparable, match=reason):
        plan(method(name), data, tmp_path, {})


def test_a_test_row_without_a_mask_changes_no_choice(changed, data, tmp_path):
    """It is not scored, and what a method chooses by is of the validation split."""
    without = changed(mask=lambda index, cell: "" if index == 5 else cell)
    assert [Path(record["image"]).stem for record in without.records] == ["i4", "i6", "i7"]
    for name in ("joint_seg_cls", "fully_supervised"):
        whole, less = (plan(method(name), one, tmp_path, {}) for one in (data, without))
        assert less.selection == whole.selection
        assert less.selection["masks"]
        assert less.settings.keys() == whole.settings.keys()


def test_a_method_of_slides_and_one_of_two_classes(data, images_csv, tmp_path):
    with pytest.raises(NotComparable, match="needs whole slides, and these are images"):
        plan(method("alpha_beta_mil"), data, tmp_path, {})
    several = prepare_data(images_csv, tmp_path, class_names=["normal", "benign", "invasive"])
    with pytest.raises(NotComparable, match="needs two classes, and these data have 3"):
        plan(method("camel"), several, tmp_path, {})


def test_settings_follow_the_data(data, tmp_path):
    """96 px at 0.5 um: coarser they would be smaller than what a network can see in."""
    camel = plan(method("camel"), data, tmp_path, {"cmil::num_epochs": 3, "nonsense": 1})
    assert {"mpp": 0.5, "image_size_px": 96, "cmil::num_epochs": 3}.items() <= camel.settings.items()
    assert "nonsense" not in camel.settings
    assert camel.inference == {"mpp": 0.5, "image_size_px": 96}
    assert camel.effort == {"labels": 4, "areas": 0, "masks": 0}
    cdws = plan(method("cdws_mil"), data, tmp_path, {"mpp": 1.0, "num_workers": 0})
    assert {"mpp": 1.0, "image_size_px": 48}.items() <= cdws.settings.items()
    # Its tiles are no training images: the same key means nothing in its inference.
    assert cdws.inference == {"mpp": 1.0, "num_workers": 1}
    assert cdws.effort == {"labels": 4, "areas": 2, "masks": 0}
    assert plan(method("camel+pixel_fsb"), data, tmp_path, {}).effort == {"labels": 2, "areas": 0, "masks": 2}


def test_the_overlay_of_a_data_set(images_csv, tmp_path):
    """By the folder of the manifest; the bundles' own pixel sizes are read then, of 224 px at 0.25 um."""
    folder = tmp_path / "ebhi_seg"
    folder.mkdir()
    lines = images_csv.read_text().splitlines()
    for name in [part for line in lines[1:] for part in (line.split(",")[0], line.split(",")[3])]:
        Image.open(images_csv.parent / name).resize((224, 224)).save(folder / name)
    (folder / "manifest.csv").write_text("\n".join([lines[0], *(line.replace(",0.5", ",0.25") for line in lines[1:])]) + "\n")
    assert dataset_of(BUNDLES, folder / "manifest.csv") == "ebhi_seg"
    assert dataset_of(BUNDLES, images_csv) is None
    data = prepare_data(folder / "manifest.csv", tmp_path / "data")
    for name, key, size, mpp in (
        ("camel", "camel+ebhi_seg", 224, 0.25),
        ("camel+unet", "camel+ebhi_seg+unet", 224, 0.25),
        ("cdws_mil+ebhi_seg", "cdws_mil+ebhi_seg", 56, 1.0),
    ):
        found = with_dataset(method(name), "ebhi_seg")
        planned = plan(found, data, tmp_path, {})
        assert (found.key, planned.settings["image_size_px"], planned.mpp) == (key, size, mpp)
    assert with_dataset(method("attention_mil"), "ebhi_seg").key == "attention_mil"
    assert with_dataset(method("cdws_mil"), "superpixels").key == "cdws_mil"
    # Without the overlay images are no smaller than the bundle says that it can see in.
    assert [
        plan(method(name), data, tmp_path, {}).settings["image_size_px"] for name in ("camel", "cdws_mil", "mil_boosting")
    ] == [
        224,
        56,
        112,
    ]


def test_a_manifest_of_train_and_test_alone(changed, tmp_path):
    """It will do where nothing is chosen, and the configuration knows."""
    data = changed(split=lambda index, cell: "train" if cell == "val" else cell)
    found = method("cdws_mil+dataset_a")
    planned = plan(found, data, tmp_path, {"pretrained": False})
    assert planned.selection == {"labels": 0, "areas": 0, "masks": 0}
    assert found.parser(planned.settings).get_parsed_content("validate::evaluator") is None
    for name, given in (
        ("cdws_mil", {}),
        ("camel", {}),
        ("fully_supervised", {}),
        ("joint_seg_cls", {}),
        ("wildcat+features", {"keep_best": "val_image_auc"}),
        ("cdws_mil+dataset_a", {"keep_best": "val_image_auc", "pretrained": False}),
    ):
        with pytest.raises(NotComparable, match="needs images of the split 'val'"):
            plan(method(name), data, tmp_path, given)


LAST_EPOCH = {"keep_best": None}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("mil_boosting", {}),
        *((f"{name}+features", {}) for name in ("mil_boosting", "cdws_mil", "fully_supervised", "wildcat")),
        *((name, LAST_EPOCH) for name in ("cdws_mil", "fully_supervised", "fully_supervised+instance_fsb", "wildcat")),
        *((name, LAST_EPOCH) for name in ("joint_seg_cls", "joint_seg_cls+features")),
    ],
)
def test_what_chooses_nothing_needs_no_validation_images(changed, tmp_path, name, given):
    data = changed(split=lambda index, cell: "train" if cell == "val" else cell)
    found = method(name)
    planned = plan(found, data, tmp_path, given)
    assert planned.selection == {"labels": 0, "areas": 0, "masks": 0}
    parser = found.parser(planned.settings)
    assert [parser.get_parsed_content(item) for item in ("val_records", "val_images", "validate::evaluator")] == [[], None, None]
    assert len(parser.get_parsed_content("train_records")) == 6


def test_a_plan_builds_no_network_and_loads_no_weights(data, tmp_path, monkeypatch):
    """Offline, the pretrained weights of Dataset A's overlay cannot be had."""

    def build(*arguments, **options):
        raise AssertionError("a network was built")

    monkeypatch.setattr(nn.Module, "__init__", build)
    planned = plan(method("cdws_mil+dataset_a"), data, tmp_path, {})
    assert (planned.effort, planned.settings.get("pretrained")) == ({"labels": 4, "areas": 2, "masks": 0}, None)
    assert plan(method("cdws_mil+dws"), data, tmp_path, {}).effort == {"labels": 4, "areas": 0, "masks": 0}
    for found in find_methods(BUNDLES):
        if found.kind == "images":
            plan(found, data, tmp_path, {})


def test_supervision_by_some_masks(data, tmp_path):
    joint = plan(method("joint_seg_cls"), data, tmp_path, {"masked_share": 0.5})
    assert joint.settings["class_names"] == ["normal", "tumour"]
    # One mask of a tumour image; the other three images are known by their labels.
    assert joint.effort == {"labels": 3, "areas": 0, "masks": 1}


JOINT_MODES = [("joint_seg_cls", {"mode": mode, "masked_share": 1.0}) for mode in ("S", "S+C", "S+C*")]


@pytest.mark.parametrize(
    ("name", "given"),
    [*((found.key, {}) for found in find_methods(BUNDLES) if found.kind == "images"), ("camel+pixel_fsb", {}), *JOINT_MODES],
)
def test_normal_images_need_no_mask_file(data, changed, tmp_path, name, given):
    """Every method learns from the same images, by the same labels, and is scored by the same masks."""
    found = method(name)
    plans = [plan(found, part, tmp_path, given) for part in (data, changed(mask=lambda index, cell: cell if index % 2 else ""))]
    with_files, without = ({**planned.settings, "manifest": None} for planned in plans)
    assert without == with_files
    assert plans[0].effort == plans[1].effort
    if "supervision" in found.training:
        parsed = [found.parser(planned.settings).get_parsed_content("supervision") for planned in plans]
        images = [[[Path(record["image"]).name for record in part] for part in pair] for pair in parsed]
        assert images[0] == images[1]
        # The share that is drawn has images of both labels, whichever have files.
        assert {record["label"] for record in parsed[1][0]} == {0, 1}


def test_masks_that_only_some_images_have_do_not_validate(changed, tmp_path):
    data = changed(mask=lambda index, cell: "" if index == 9 else cell)
    assert plan(method("camel"), data, tmp_path, {}).settings["truth"] is None


@pytest.fixture
def cropped(images_csv, tmp_path):
    """The images cut to other sizes: a size for each row, and whether the masks are kept; the manifest."""

    def write(sizes, masks=True):
        folder = tmp_path / "x".join(str(side) for size in sizes for side in size)
        folder.mkdir(exist_ok=True)
        with images_csv.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row, size in zip(rows, itertools.cycle(sizes), strict=False):
            for name in ("image", "mask"):
                Image.open(images_csv.parent / row[name]).crop((0, 0, *size)).save(folder / row[name])
            row["mask"] = row["mask"] if masks else ""
        with (folder / "cropped.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return folder / "cropped.csv"

    return write


@pytest.mark.parametrize(
    ("sizes", "side_um", "num_squares"),
    # Two squares in an image that is at least 1.5 times as long.
    [([(96, 64)], 32.0, 8), ([(96, 96), (96, 48)], 24.0, 12), ([(90, 90), (60, 60)], 30.0, 10)],
)
def test_images_that_are_not_squares_of_one_size_are_cut(cropped, tmp_path, sizes, side_um, num_squares):
    data = prepare_data(cropped(sizes), tmp_path / "data")
    assert data.region_size_um == (side_um, side_um)
    assert len(data.training["images"]) == num_squares
    planned = plan(method("camel+pixel_fsb"), data, tmp_path, {})
    assert planned.settings["image_size_px"] == side_um / 0.5
    # Every image is read as a configured square, and its label is that of its mask.
    records = load_manifest(data.manifests["images"])
    dataset = RegionDataset(records, planned.settings["image_size_px"], 0.5, pixel_labels="mask")
    check_images([dataset])
    assert [bool(item["mask"].any()) for item in dataset] == [record["label"] == 1 for record in records]
    # Images are scored whole, once.
    assert [Path(record["image"]).name for record in data.records] == ["i4.png", "i5.png", "i6.png", "i7.png"]
    assert all(record["x"] is None for record in [*data.records, *load_manifest(data.test_manifest, require=())])
    # Again: the same; and whole squares in the same folder are not taken for it.
    again = prepare_data(data.manifest, tmp_path / "data")
    assert len(again.training["images"]) == num_squares
    assert len(prepare_data(cropped([(64, 64)]), tmp_path / "data").training["images"]) == 4
    assert len(prepare_data(data.manifest, tmp_path / "data").training["images"]) == num_squares


@pytest.mark.parametrize(
    ("sizes", "masks", "problem"),
    [
        ([(96, 64)], False, "10 of 96 x 64 px; squares cut .* no labels, because 2 training images have neither a mask nor"),
        ([(96, 96), (64, 64)], False, "5 of 96 x 96 px, 5 of 64 x 64 px; squares cut"),
        ([(96, 96), (96, 24)], True, "5 of 96 x 96 px, 5 of 96 x 24 px; squares with their smallest side, 12 um, .* under 32"),
    ],
)
def test_images_that_cannot_be_cut(cropped, tmp_path, sizes, masks, problem):
    manifest = cropped(sizes, masks)
    data = prepare_data(manifest, tmp_path / "data")
    for name in ("camel", "cdws_mil", "wildcat"):
        with pytest.raises(NotComparable, match=f"needs square images of one size, and these are {problem}"):
            plan(method(name), data, tmp_path, {})
    assert plan(method("camel"), data, tmp_path, {"image_size_px": 96}).settings["image_size_px"] == 96


@pytest.mark.parametrize(
    ("name", "given", "size_px", "checked"),
    [
        # Of 48 um: an overlay of features leaves the pixel size to the data, which is then 0.5 um, not the bundle's 8 um.
        ("joint_seg_cls+features", {}, 96, (None, 16)),
        # 96 px do not divide into 4 x 4 instances of whole features.
        ("camel+features", {}, 128, (4, 16)),
        ("camel+features", {"feature_stride_px": 8}, 96, (4, 8)),
        ("camel+features", {"instances_per_side": 5}, 80, (5, 16)),
        ("camel", {"instances_per_side": 5}, 95, (5, 1)),
        ("wildcat+features", {"feature_stride_px": 32}, 96, (None, 32)),
    ],
)
def test_images_are_read_so_that_they_divide_into_instances_and_features(images_csv, tmp_path, name, given, size_px, checked):
    data = prepare_data(images_csv, tmp_path / "data")
    planned = plan(method(name), data, tmp_path, given)
    assert planned.settings["image_size_px"] == size_px
    assert planned.mpp == pytest.approx(48 / size_px)
    check_images([RegionDataset(load_manifest(data.manifests["images"]), size_px, planned.mpp)], *checked)


def test_a_pixel_of_rounding_is_no_other_size(cropped, tmp_path):
    data = prepare_data(cropped([(96, 96), (95, 96)], masks=False), tmp_path / "data")
    assert len(data.training["images"]) == 4
    assert plan(method("camel"), data, tmp_path, {}).settings["image_size_px"] in (95, 96)


def test_an_image_without_pixel_size(images_csv, tmp_path, changed):
    with pytest.raises(ValueError, match=r"row 2, .*i0\.png: .* fill the column 'mpp', or give --tile_mpp"):
        changed(mpp=lambda index, cell: "")
    data = prepare_data(tmp_path / "changed.csv", tmp_path / "data", tile_mpp=0.25)
    assert data.region_size_um == (24.0, 24.0)


def test_an_overlay_says_which_slides_masks_are_used(tmp_path):
    """One of two tumour slides of the test split has no mask: a bundle does not get it, and its overlay asks for masks alone."""
    sizes = [(split, share) for split in ("train", "val", "test") for share in (0.3, 0.0)] + [("test", 0.3)]
    slides = tuple(SlidePlan(split, share, (420, 500)) for split, share in sizes)
    folder = write_demo(tmp_path / "demo", DemoPlan(images={}, slides=slides))
    records = load_manifest(folder / "slides.csv")
    records[-1]["mask"] = None
    write_manifest(records, folder / "some.csv")
    data = prepare_data(folder / "some.csv", tmp_path / "data", truth="masks_only")
    assert [record["label"] for record in data.records] == [1, 0]
    for name, truth in (("alpha_beta_mil", "mask"), ("alpha_beta_mil+tcga", "masks_only")):
        planned = plan(method(name), data, tmp_path, {})
        assert method(name).parser(planned.settings).get_parsed_content("truth") == truth


def test_test_slides_that_are_too_coarse_to_map(tmp_path):
    """Said before hours of training on slides that are fine enough, not at the maps."""
    sizes = [(split, share) for split in ("train", "val", "test") for share in (0.3, 0.0)]
    folder = write_demo(tmp_path / "demo", DemoPlan(images={}, slides=tuple(SlidePlan(*size, (420, 500)) for size in sizes)))
    records = load_manifest(folder / "slides.csv")
    records[-1]["mpp"] = 1.3  # in place of the slide's own 0.5
    write_manifest(records, folder / "coarse.csv")
    data = prepare_data(folder / "coarse.csv", tmp_path / "data")
    name = re.escape(Path(records[-1]["image"]).name)
    with pytest.raises(NotComparable, match=rf"at 1 um per pixel: 1 of 2 test slides are coarser .* such as {name} \(1\.3 um\)"):
        plan(method("alpha_beta_mil"), data, tmp_path, {"mpp": 1.0})
    assert plan(method("alpha_beta_mil"), data, tmp_path, {"mpp": 1.1}).mpp == 1.1


@pytest.fixture
def slides_csv(tmp_path):
    """Two slides of each split, one with tumour; the training slides are smaller where a function says how large."""

    def write(of_training=(700, 700)):
        sizes = {"train": of_training, "val": (700, 700), "test": (700, 700)}
        slides = tuple(SlidePlan(split, share, sizes[split]) for split in sizes for share in (0.3, 0.0))
        return write_demo(tmp_path / "demo", DemoPlan(images={}, slides=slides)) / "slides.csv"

    return write


@pytest.mark.parametrize(("size_px", "of_training"), [(100_000, (700, 700)), (256, (250, 250))])
def test_regions_that_fit_in_no_tissue(slides_csv, tmp_path, size_px, of_training):
    """All slides have masks: it is the size that is wrong, of any slide or of the training slides."""
    data = prepare_data(slides_csv(of_training), tmp_path / "data", region_size_px=size_px)
    size = rf"{size_px / 2:g} um \({size_px} px at 0\.5 um per pixel\)"
    problem = (
        rf"needs labels of images: no region of {size} fits in the tissue of any training slide: give a smaller --region_size_px"
    )
    for name in ("camel", "wildcat"):
        with pytest.raises(NotComparable, match=problem):
            plan(method(name), data, tmp_path, {})
    assert plan(method("alpha_beta_mil"), data, tmp_path, {}).effort["labels"] == 2


def test_slides_without_masks_are_not_cut(slides_csv, tmp_path):
    records = load_manifest(slides_csv())
    for record in records:
        record["mask"] = record["mask"] if record["split"] != "train" else None
    write_manifest(records, tmp_path / "some.csv")
    data = prepare_data(tmp_path / "some.csv", tmp_path / "data")
    with pytest.raises(NotComparable, match=r"only if every training slide with tumour has a mask \(missing: 1 of 1\)"):
        plan(method("camel"), data, tmp_path, {})


def test_slides_in_which_no_region_fits_are_warned_of(slides_csv, tmp_path, caplog):
    records = load_manifest(slides_csv())
    records += [record | {"case_id": "small"} for record in load_manifest(_small(tmp_path)) if record["split"] == "train"]
    write_manifest(records, tmp_path / "all.csv")
    prepare_data(tmp_path / "all.csv", tmp_path / "data", region_size_px=256)
    (said,) = (message for message in caplog.messages if "region" in message)
    assert re.match(r"1 of 7 slides, such as \S+, have no region of 128 um \(256 px at 0\.5 um per pixel\) in their tissue", said)


def _small(folder):
    return write_demo(folder / "small", DemoPlan(images={}, slides=(SlidePlan("train", 0.0, (250, 250)),))) / "slides.csv"
