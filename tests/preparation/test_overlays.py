"""The overlays of published data sets read what `prepare.py` writes of miniatures of these data sets, and train with it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.bundle import ConfigParser
from PIL import Image

from shared.data.public.bach_annotations import BACH_CLASSES
from shared.data.public.bcss import BCSS_CLASSES
from shared.data.public.ebhi_seg import EBHI_CLASSES
from shared.data.public.glas import GLAS_CLASSES
from shared.data.public.tissue_patches import LUAD_HISTOSEG, WSSS4LUAD

from ..bundles.conftest import TINY_CDWS, TINY_JOINT
from ..bundles.runs import Bundle
from ..data.bach_layout import write_bach
from ..data.camelyon16_layout import write_camelyon16
from ..data.published_layouts import write_bcss, write_ebhi, write_glas, write_luad_histoseg, write_wsss4luad
from .conftest import Prepare

Write = Callable[[str], Path]
ROOT = Path(__file__).resolve().parents[2]
SLIDES = [*(f"normal_{number:03}" for number in range(1, 4)), *(f"tumor_{number:03}" for number in (1, 2, 3)), "test_001"]


def write_adenoma(folder: Path) -> Path:
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image_name", "label"), *((f"{i}.png", i % 2) for i in range(6))])
    for index in range(6):
        Image.fromarray(np.full((1280, 1280, 3), index, np.uint8)).save(folder / f"{index}.png")
    return folder


def write_challenge(folder: Path) -> Path:
    return write_camelyon16(folder / "challenge", SLIDES, ["test_001"])


# Of each data set: its miniature, and the options that the miniature's size asks for.
LAYOUTS = {
    "adenoma": (write_adenoma, []),
    "bach": (write_bach, ["--size_px", 8]),
    "bcss": (write_bcss, ["--size_px", 64]),
    "camelyon16": (write_challenge, ["--size_px", 64, "--training_slides", 4, "--allow_missing"]),
    "ebhi_seg": (write_ebhi, []),
    "glas": (write_glas, ["--size_px", 64]),
    "luad_histoseg": (write_luad_histoseg, ["--train_masks", 0.5]),
    "wsss4luad": (write_wsss4luad, ["--train_masks", 0.5]),
}
# Their scripts write a manifest where the user says, or none.
ELSEWHERE = {"tcga", "patch_camelyon", "consensus"}


# What the miniatures' images are when read at the overlay's mpp; where nothing stands, of the published size.
SIZES_PX = {
    ("camel", "ebhi_seg"): 32,
    ("cdws_mil", "ebhi_seg"): 8,
    ("joint_seg_cls", "bach"): 8,
    ("joint_seg_cls", "ebhi_seg"): 16,
    ("joint_seg_cls", "ebhi_seg_classes"): 16,
    ("camel", "glas"): 64,
    ("cdws_mil", "glas"): 32,
    ("joint_seg_cls", "glas"): 32,
    ("camel", "bcss"): 64,
    ("cdws_mil", "bcss"): 32,
    ("joint_seg_cls", "bcss"): 32,
    ("mil_boosting", "glas"): 32,
    ("wildcat", "glas"): 64,
    ("mil_boosting", "bcss"): 32,
    ("wildcat", "bcss"): 64,
    ("camel", "luad_histoseg"): None,
    ("mil_boosting", "luad_histoseg"): None,
    ("wildcat", "luad_histoseg"): None,
    ("cdws_mil", "luad_histoseg"): None,
    ("joint_seg_cls", "luad_histoseg"): None,
    ("joint_seg_cls", "wsss4luad"): None,
}
CLASSES = {
    "bach": tuple(BACH_CLASSES),
    "ebhi_seg": ("normal", "tumour"),
    "ebhi_seg_classes": EBHI_CLASSES,
    "glas": GLAS_CLASSES,
    "bcss": BCSS_CLASSES,
    "luad_histoseg": LUAD_HISTOSEG.classes,
    "wsss4luad": WSSS4LUAD.classes,
}
# A training that is small in all but the sizes above.
NO_SIZES = ("image_size_px", "labelled_size_px", "mpp")
TINIES = {"cdws_mil": TINY_CDWS, "joint_seg_cls": TINY_JOINT}


def options_of(bundle: str, overlay: str) -> dict[str, Any]:
    size_px = SIZES_PX[bundle, overlay]
    sizes = {} if size_px is None else {"image_size_px": size_px}
    return sizes | ({"labelled_size_px": size_px} if sizes and bundle == "joint_seg_cls" else {})


def overlays_of_data_sets() -> dict[str, list[Path]]:
    """Data set -> the overlays that name its folder, of those that a script prepares."""
    prepared = {path.stem for path in (ROOT / "scripts/preparation").glob("*.py")} - ELSEWHERE
    found: dict[str, list[Path]] = {}
    for path in sorted((ROOT / "bundles").glob("*/configs/*.json")):
        name = Path(str(json.loads(path.read_text()).get("dataset_dir", ""))).name
        if name in prepared:
            found.setdefault(name, []).append(path)
    return found


OVERLAYS = overlays_of_data_sets()


def test_every_data_set_has_a_miniature() -> None:
    assert OVERLAYS.keys() == LAYOUTS.keys()
    assert {path.parents[1].name for path in OVERLAYS["camelyon16"]} == {
        "camel",
        "cdws_mil",
        "fully_supervised",
        "mil_boosting",
        "wildcat",
    }


@pytest.fixture
def written(tmp_path: Path, prepare: Prepare) -> Write:
    """Prepare the miniature of a data set: its folder."""

    def write(name: str) -> Path:
        layout, options = LAYOUTS[name]
        (tmp_path / "source").mkdir()
        assert prepare(name, layout(tmp_path / "source"), tmp_path / name, *options)[0] == ""
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_overlay_reads_what_the_script_writes(written: Write, name: str) -> None:
    data = written(name)
    for overlay in OVERLAYS[name]:
        parser = ConfigParser()
        parser.read_config([str(overlay.with_name("train.json")), str(overlay)])
        parser["dataset_dir"] = str(data)
        assert Path(parser.get_parsed_content("manifest")).is_file(), f"{overlay}: the script writes no such file"


@pytest.mark.parametrize(("bundle", "overlay"), SIZES_PX)
def test_an_overlay_reads_its_images(tmp_path: Path, written: Write, bundle: str, overlay: str) -> None:
    data = written(overlay.removesuffix("_classes"))
    options = options_of(bundle, overlay) | {"output_dir": str(tmp_path / "run"), "tracking::enabled": False, "num_workers": 0}
    parsed = Bundle(bundle, data, {}).workflow("train", overlay, **options).parser.get_parsed_content
    parsed("checked_images")
    size_px = parsed("image_size_px")
    for split in ("val", "test"):
        for item in parsed(f"{split}_images"):
            assert item["image"].shape == (3, size_px, size_px)
            assert item["mask"].shape == (1, size_px, size_px)
    assert parsed("train::dataset" if bundle != "camel" else "train_images")[0]["image"].shape == (3, size_px, size_px)
    if bundle == "joint_seg_cls":
        assert tuple(parsed("class_names")) == CLASSES[overlay]
        assert all(parsed("supervision"))
    if bundle == "cdws_mil":
        assert parsed("loss_function").needs_areas == (overlay != "luad_histoseg")


@pytest.mark.slow
@pytest.mark.parametrize(("bundle", "overlay"), [("cdws_mil", "glas"), ("joint_seg_cls", "luad_histoseg")])
def test_an_overlay_trains_to_its_end(tmp_path: Path, written: Write, bundle: str, overlay: str) -> None:
    """Regions of images with areas from their masks; a class without labelled images."""
    data = written(overlay.removesuffix("_classes"))
    tiny = {name: value for name, value in TINIES[bundle].items() if name not in NO_SIZES}
    tiny |= options_of(bundle, overlay) | {name: 1 for name in ("num_epochs", "steps_per_epoch") if name in tiny}
    Bundle(bundle, data, tiny).train_here(overlay, output_dir=tmp_path / "run")
    assert (tmp_path / "run/evaluation/metrics.json").is_file()
