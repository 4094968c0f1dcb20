"""A tiny data set with maps that a real `SlideMapper` has made."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from scripts.comparison.data import ComparisonData, prepare_data
from scripts.comparison.methods import find_methods
from shared.inference import Compute, Outputs, SlideMapper, Tiles

MPP = 0.5
BUNDLES = Path(__file__).resolve().parents[2] / "bundles"


class Redness(nn.Module):
    """Logits that rise with the difference of red and green, cut off at a level."""

    def __init__(self, level: float = 140.0) -> None:
        super().__init__()
        self.level = level

    def forward(self, images):
        return (images[:, :1] - images[:, 1:2] - self.level) / 9


@pytest.fixture(scope="session")
def images_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images of 96 x 96 px in five patients, every second one with a red tumour; four train, four test, two validate."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    lines = ["image,label,area,mask,case_id,split,mpp"]
    for index in range(10):
        rgb = np.full((96, 96, 3), (200, 120, 180)) + rng.normal(0, 12, (96, 96, 3))
        rgb[:20, :20] = 250
        mask = np.zeros((96, 96), np.uint8)
        if index % 2:
            mask[30 + 4 * index : 90, 24:72] = 255
            rgb[mask > 0] += (20, -80, -100)
        Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(folder / f"i{index}.png")
        Image.fromarray(mask).save(folder / f"m{index}.png")
        split = ("train", "test", "val")[index // 4]
        area = round(float((mask > 0).mean()), 3)
        lines.append(f"i{index}.png,{index % 2},{area},m{index}.png,case{index // 2},{split},{MPP}")
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    return folder / "images.csv"


@pytest.fixture(scope="session")
def data(images_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> ComparisonData:
    return prepare_data(images_csv, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def maps(data: ComparisonData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maps at another pixel size than the masks', none of them right everywhere."""
    folder = tmp_path_factory.mktemp("maps")
    SlideMapper(
        Redness(),
        mpp=1.0,
        threshold=0.4,
        tiles=Tiles(tile_size_px=32, margin_px=0),
        outputs=Outputs(map_downsample=1),
        compute=Compute(amp=False, device="cpu"),
    ).run(data.test_manifest, folder)
    return folder


def method(name):
    """The method of this name."""
    (found,) = find_methods(BUNDLES, [name])
    return found


@pytest.fixture
def changed_csv(images_csv, tmp_path):
    """A manifest of the images: name of a column -> function of the row's number and cell; None leaves the column out."""

    def write(**cells):
        with images_csv.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for index, row in enumerate(rows):
            row["image"], row["mask"] = (str(images_csv.parent / row[name]) for name in ("image", "mask"))
            row |= {name: cell(index, row[name]) for name, cell in cells.items() if cell is not None}
        columns = [name for name in rows[0] if cells.get(name, str) is not None]
        with (tmp_path / "changed.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return tmp_path / "changed.csv"

    return write


@pytest.fixture
def changed(changed_csv, tmp_path):
    """What a comparison takes from such a manifest."""
    return lambda **cells: prepare_data(changed_csv(**cells), tmp_path / "data")
