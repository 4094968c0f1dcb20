"""The overlays of published data sets read the manifests that the scripts of these data sets write."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from monai.bundle import ConfigParser
from PIL import Image

from ..data.bach_layout import write_bach
from ..data.camelyon16_layout import write_camelyon16
from ..data.published_layouts import write_bcss, write_ebhi, write_glas, write_luad_histoseg, write_wsss4luad
from .conftest import Prepare

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
ELSEWHERE = {"tcga", "patch_camelyon"}


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
    assert {path.parents[1].name for path in OVERLAYS["camelyon16"]} == {"camel", "fully_supervised", "wildcat"}


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_overlay_reads_what_the_script_writes(tmp_path: Path, prepare: Prepare, name: str) -> None:
    layout, options = LAYOUTS[name]
    (tmp_path / "source").mkdir()
    error, _ = prepare(name, layout(tmp_path / "source"), tmp_path / name, *options)
    assert error == ""
    for overlay in OVERLAYS[name]:
        parser = ConfigParser()
        parser.read_config([str(overlay.with_name("train.json")), str(overlay)])
        parser["dataset_dir"] = str(tmp_path / name)
        assert Path(parser.get_parsed_content("manifest")).is_file(), f"{overlay}: the script writes no such file"
