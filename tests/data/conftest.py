"""Small images, masks, slides and manifests on disk."""

import csv

import numpy as np
import pytest
from PIL import Image

from shared.data import SlideBagDataset, TissueCache, load_manifest

from .bag_slides import NUM_TILES, SIZE_PX, write_bag_slides


@pytest.fixture
def write_image(tmp_path):
    """Write random pixels, or those given, as ``<name>.png``: its path."""

    def write(name="a", size_px=(8, 8), pixels=None):
        if pixels is None:
            rng = np.random.default_rng(sum(name.encode()))
            pixels = rng.integers(0, 256, (size_px[1], size_px[0], 3), dtype=np.uint8)
        path = tmp_path / f"{name}.png"
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def write_rows(tmp_path, write_image):
    """Write a manifest from rows (dictionaries), and a file for every ``*.png`` that it names: its path."""

    def write(rows, name="manifest.csv"):
        columns = list(dict.fromkeys(column for row in rows for column in row))
        for row in rows:
            for column in ("image", "mask"):
                file = row.get(column, "")
                if file.endswith(".png") and "/" not in file and not (tmp_path / file).exists():
                    write_image(file[: -len(".png")])
        path = tmp_path / name
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


@pytest.fixture(scope="module")
def bag_records(tmp_path_factory):
    """Of the three slides of `bag_slides`."""
    return load_manifest(write_bag_slides(tmp_path_factory.mktemp("slides")))


@pytest.fixture
def bag_tissue(tmp_path):
    return TissueCache(tmp_path / "tissue", mpp=4.0)


@pytest.fixture
def make_bags(bag_records, bag_tissue):
    """Bags of 12 tiles of 32 px at 1 um, from the three slides or from other records, with other options of the data set."""

    def make(records=None, **options):
        options = {"tiles_per_slide": NUM_TILES, "tile_size_px": SIZE_PX, "mpp": 1.0} | options
        return SlideBagDataset(bag_records if records is None else records, bag_tissue, **options)

    return make
