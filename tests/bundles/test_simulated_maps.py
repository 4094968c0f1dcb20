"""Every bundle maps a slide on each of two simulated GPUs as it does on the CPU."""

import numpy as np
import pytest
import tifffile
import torch

from shared.inference.bundle_mapper import load_slide_mapper
from shared.inference.inputs import ImageInput
from tests.simulated_device import DEVICES, simulated_device

from .runs import REPOSITORY
from .test_same_maps import CASES, Case, config_of, randomized

pytestmark = pytest.mark.slow

OTHERS = {
    "alpha/beta": Case("alpha_beta_mil", "", "resnet.fc", {"backbone": "resnet10"}),
    "attention": Case("attention_mil", "", "classifier", {}),
    "fully supervised": Case("fully_supervised", "", "pyramid", {"backbone": "resnet10"}),
}
# The papers' networks, one of each bundle.
NETWORKS = OTHERS | {name: case for name, case in CASES.items() if case.overlay is None}
EXACT = {"threshold": 0.5, "slide_mapper::compute::amp": False, "num_workers": 2, "batch_size": 2}


def test_every_bundle_is_here():
    assert {case.bundle for case in NETWORKS.values()} == {path.parent.name for path in REPOSITORY.glob("bundles/*/configs")}


def mapped(mapper, slide, folder):
    """The map's pixels, computed in this thread: no other knows of simulated devices."""
    folder.mkdir()
    mapper.map_image(ImageInput(slide, "slide"), folder)
    return tifffile.imread(folder / "slide.ome.tif").astype(int)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_slide_has_the_same_map_on_every_device(name, easy_data, tmp_path, monkeypatch):
    case, slide = NETWORKS[name], easy_data / "slides/slide_00.tif"
    torch.manual_seed(0)
    network = config_of(case, "inference", {}).get_parsed_content("network_def")
    torch.save(randomized(network, case.last_layers).state_dict(), tmp_path / "model.pt")
    options = case.options | EXACT | {"checkpoint": str(tmp_path / "model.pt")}
    bundle = REPOSITORY / "bundles" / case.bundle
    expected = mapped(load_slide_mapper(bundle, (), options | {"device": "cpu"}), slide, tmp_path / "cpu")
    assert expected.std() > 5
    for device in DEVICES:
        with simulated_device(monkeypatch):
            mapper = load_slide_mapper(bundle, (), options | {"device": str(device)})
            assert {parameter.device for parameter in mapper.network.parameters()} <= {device}
            found = mapped(mapper, slide, tmp_path / str(device.index))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1)
