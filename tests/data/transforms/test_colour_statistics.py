"""Mean and deviation of training images."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from shared.data import RegionDataset, check_pixel_normalization, colour_statistics, stain_reference_of_maps

KEPT = {"mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3]}


@pytest.fixture
def pictures(tmp_path):
    """Two pictures of different sizes, and their records."""
    made = [np.random.default_rng(seed).integers(0, 256, (6 + seed, 8, 3), dtype=np.uint8) for seed in range(2)]
    records = []
    for index, pixels in enumerate(made):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        records.append({"image": str(tmp_path / f"{index}.png"), "label": index, "row": index + 2})
    return made, records


def test_all_pixels_of_all_images_count_alike(pictures, tmp_path):
    made, records = pictures
    file = tmp_path / "run/statistics.json"
    found = colour_statistics(RegionDataset(records), file, of="training")
    pixels = np.concatenate([one.reshape(-1, 3) for one in made]) / 255
    assert found["mean"] == pytest.approx(pixels.mean(0))
    assert found["std"] == pytest.approx(pixels.std(0))
    file.write_text(json.dumps(KEPT))
    assert colour_statistics(RegionDataset(records), file, of="training") == KEPT


def test_imagenet_reads_nothing(tmp_path):
    assert colour_statistics(RegionDataset([]), tmp_path / "none.json") is None
    assert not list(tmp_path.iterdir())


def test_what_is_refused(pictures, tmp_path):
    with pytest.raises(ValueError, match="must be imagenet or training; got 'mine'"):
        colour_statistics(RegionDataset(pictures[1]), tmp_path / "none.json", of="mine")
    Image.fromarray(np.full((4, 4, 3), 7, np.uint8)).save(tmp_path / "0.png")
    with pytest.raises(ValueError, match="the 1 images have one value"):
        colour_statistics(RegionDataset(pictures[1][:1]), tmp_path / "none.json", of="training")


def test_reading_colours_leaves_the_random_state(pictures, tmp_path):
    """A training that is resumed reads them from the file."""
    before = torch.get_rng_state()
    colour_statistics(RegionDataset(pictures[1]), tmp_path / "statistics.json", of="training")
    assert torch.equal(torch.get_rng_state(), before)


def test_an_encoder_has_its_own_colours():
    check_pixel_normalization("imagenet", has_encoder=True)
    with pytest.raises(ValueError, match=r"must be imagenet with features\.json.*got 'training'"):
        check_pixel_normalization("training", has_encoder=True)


def test_stains_of_labelled_images_alone():
    assert [stain_reference_of_maps("monai", which) for which in ("all", "labelled")] == ["monai", None]
    with pytest.raises(ValueError, match="normalized_images must be all or labelled; got 'none'"):
        stain_reference_of_maps("monai", "none")
