"""What a bundle has to declare for its mapper to be built."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from shared.encoders import load_encoder
from shared.inference.bundle_mapper import load_slide_mapper
from shared.networks import EncodedSegmentation

BUNDLES = Path(__file__).parents[2] / "bundles"


@pytest.fixture
def bundle(tmp_path):
    """A copy of a bundle's configurations, whose ``inference.json`` has these entries instead of its own; None for none."""

    def write(**entries):
        shutil.copytree(BUNDLES / "wildcat" / "configs", tmp_path / "configs")
        (tmp_path / "shared").symlink_to(BUNDLES.parent / "shared")
        path = tmp_path / "configs" / "inference.json"
        config = json.loads(path.read_text()) | entries
        path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
        return tmp_path

    return write


def test_every_declared_check_is_made(bundle):
    folder = bundle(checks=["@check_version", "$[][1]"])
    with pytest.raises(RuntimeError, match=r"\$\[\]\[1\]"):
        load_slide_mapper(folder)


def test_a_bundle_without_checks_is_refused(bundle):
    with pytest.raises(ValueError, match=r"inference\.json has no key 'checks': expected a list of the checks to run before"):
        load_slide_mapper(bundle(checks=None))


def test_a_network_of_tiles_as_stored_asks_for_the_pixel_size(tmp_path):
    network = EncodedSegmentation(load_encoder("efficientnet_lite0", stride_px=14, smoothing=7))
    torch.save(network.state_dict(), tmp_path / "model.pt")
    overrides = {"checkpoint": str(tmp_path / "model.pt"), "device": "cpu"}
    with pytest.raises(
        ValueError, match=r"trained on tiles as they are stored \(mpp null\).* give --mpp, the micrometres per pixel"
    ):
        load_slide_mapper(BUNDLES / "camel", ["ebhi_seg", "features"], overrides)
    mapper = load_slide_mapper(BUNDLES / "camel", ["ebhi_seg", "features"], overrides | {"mpp": 0.5})
    # Whole features of 14 px, and whole map pixels of 4.
    assert (mapper.mpp, mapper.tiles.margin_px, mapper.tiles.tile_size_px) == (0.5, 84, 672)
