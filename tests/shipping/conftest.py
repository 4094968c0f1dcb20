"""A finished run of CAMEL on features: an untrained head, scored on a few generated tiles that lie as EBHI-Seg does."""

import csv
import json
import shutil

import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from shared.synthetic import synthesize_image
from tests.bundles.runs import REPOSITORY, Bundle

OVERLAYS = ("ebhi_seg", "features")
SIDE_PX = 112


def write_tiles(folder):
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = []
    for index in range(10):
        split = "test" if index < 6 else "val" if index < 8 else "train"
        tile = synthesize_image(index, tumour_share=0.4 * (index % 2), size_px=SIDE_PX)
        name = f"{index}.png"
        Image.fromarray(tile.image).save(folder / "images" / name)
        Image.fromarray((tile.mask > 0).astype("uint8") * 255).save(folder / "masks" / name)
        # Two images a case.
        rows.append([f"images/{name}", index % 2, 0.4 * (index % 2), f"masks/{name}", f"case {index // 2}", split])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "label", "area", "mask", "case_id", "split"], *rows])


def write_head(folder, parser, **given):
    """As a training of this configuration leaves it that ends before its first step."""
    parser.update(given)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(parser.get(), default=str))
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def")
    torch.nn.init.normal_(network.head.weight, std=0.05)
    torch.save(network.state_dict(), folder / "model.pt")
    (folder / "calibration.json").write_text(json.dumps({"threshold": 0.45, "reason": "given"}))


def write_run(tiles, folder):
    """The same on the tiles, evaluated."""
    bundle = Bundle("camel", tiles, {})
    parser = ConfigParser()
    parser.read_config(bundle.config_files("train", *OVERLAYS))
    parser.read_meta(str(bundle.root / "configs" / "metadata.json"))
    write_head(folder, parser, dataset_dir=str(tiles), image_size_px=SIDE_PX, output_dir=str(folder))
    bundle.evaluate_here(*OVERLAYS, evaluation_dir=folder / "evaluation", image_size_px=SIDE_PX, output_dir=folder)
    return folder


@pytest.fixture(scope="session")
def tiles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles") / "ebhi_seg"
    write_tiles(folder)
    return folder


@pytest.fixture(scope="session")
def finished(tiles, tmp_path_factory):
    return write_run(tiles, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the run, to change."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def copy_of(tmp_path):
    """A copy of a bundle next to `shared`, without any head."""

    def copy(name):
        folder = tmp_path / "bundles" / name
        ignored = shutil.ignore_patterns("models", "output")
        shutil.copytree(REPOSITORY / "bundles" / name, folder, symlinks=True, ignore=ignored)
        (tmp_path / "shared").symlink_to(REPOSITORY / "shared")
        return folder

    return copy


@pytest.fixture
def bundle(copy_of):
    return copy_of("camel")
