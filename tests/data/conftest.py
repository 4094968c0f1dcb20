"""Small images, masks and manifests on disk."""

import csv

import numpy as np
import pytest
from PIL import Image


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
