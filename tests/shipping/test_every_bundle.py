"""Every bundle of images ships its head by the same command: trained, shipped, and mapping with the same answers."""

import json

import pytest
import torch

from scripts.shipping.shipper import Request, ship
from shared.inference import ImageInput
from shared.inference.bundle_mapper import load_slide_mapper
from tests.bundles.runs import Bundle

from .conftest import OVERLAYS

OPTIONS = {
    "cdws_mil": {"num_epochs": 1, "encoded_size_px": 112},
    "fully_supervised": {"num_epochs": 1, "image_size_px": 112},
    "joint_seg_cls": {"num_epochs": 1, "encoded_size_px": 112, "masked_share": 1.0},
    "mil_boosting": {"num_trees": 4, "rounds_per_epoch": 4, "encoded_size_px": 112, "max_features": "$None"},
    "wildcat": {"num_epochs": 1, "image_size_px": 112},
}

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", OPTIONS)
def test_it_ships_what_it_has_trained(name, tiles, copy_of, tmp_path):
    options = OPTIONS[name] | {"num_workers": 0, "features_dir": str(tmp_path / "features")}
    if name != "mil_boosting":
        options["amp_dtype"] = "$None"
    Bundle(name, tiles, {}).train_here(*OVERLAYS, output_dir=tmp_path / "run", **options)
    folder = ship(Request(copy_of(name), tmp_path / "run", OVERLAYS, mpp=0.5, mpp_reason="of the tiles nothing is known"))
    overlay = json.loads((folder / "inference.json").read_text())
    assert overlay["mpp"] == 0.5
    # Nothing of the data, nor of the machine.
    assert not {"manifest", "dataset_dir", "records", "train_records"} & overlay.keys()
    assert str(tmp_path.parents[1]) not in (folder / "inference.json").read_text()
    mapper = load_slide_mapper(folder.parents[1], [str(folder / "inference.json")], {"device": "cpu"})
    trained = torch.load(tmp_path / "run/model.pt", weights_only=True)
    loaded = {key.rpartition("network.")[2]: value for key, value in mapper.network.state_dict().items()}
    assert all(torch.equal(loaded[key], value) for key, value in trained.items())
    # Tiles are read one to one, whatever pixel size the training took them for.
    row = mapper.map_image(ImageInput(tiles / "images" / "1.png", "one"), tmp_path)
    assert (row["mpp"], row["width_px"], row["map_mpp"]) == (0.5, 112, 0.5)
