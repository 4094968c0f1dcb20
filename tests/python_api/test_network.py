"""What a network says of arrays is what `inference.json` writes of the same pixels in a file."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from monai.bundle import ConfigParser
from PIL import Image

from shared.inference import load_slide_mapper, map_array
from shared.python_api import Network, load_network, map_slide
from shared.synthetic import DemoPlan, SlidePlan, write_demo

BUNDLES = Path(__file__).parents[2] / "bundles"
# Networks of one and two logits, of several classes, of one answer per tile, and a head on features.
HEAD = "camel"
RANDOM = ["joint_seg_cls", "alpha_beta_mil", "cdws_mil"]


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> dict[str, Network]:
    folder = tmp_path_factory.mktemp("weights")
    found = {HEAD: load_network(BUNDLES / HEAD, BUNDLES / HEAD / "models" / "ebhi_seg", device="cpu")}
    for name in RANDOM:
        torch.manual_seed(0)
        parser = ConfigParser()
        parser.read_config(str(BUNDLES / name / "configs" / "inference.json"))
        parser.read_meta(str(BUNDLES / name / "configs" / "metadata.json"))
        parser["bundle_root"] = str(BUNDLES / name)
        torch.save(parser.get_parsed_content("network_def").state_dict(), folder / f"{name}.pt")
        keys = {"threshold": 0.5} if name == "alpha_beta_mil" else {}
        found[name] = load_network(BUNDLES / name, folder / f"{name}.pt", device="cpu", **keys)
    return found


@pytest.fixture(scope="module")
def pixels(tmp_path_factory) -> np.ndarray:
    """Stained tissue and glass."""
    plan = DemoPlan(images={}, slides=(SlidePlan("test", 0.3, (900, 700)),))
    slide = next((write_demo(tmp_path_factory.mktemp("slides") / "data", plan) / "slides").iterdir())
    return tifffile.imread(slide)


@pytest.mark.parametrize("name", [HEAD, *RANDOM])
@pytest.mark.parametrize(("size", "scale"), [((61, 90), 1.0), ((430, 371), 0.5), ((200, 240), 2.0)])
def test_a_prediction_is_the_map_of_a_file_with_these_pixels(networks, pixels, tmp_path, name, size, scale):
    network = networks[name]
    image = np.ascontiguousarray(pixels[300 : 300 + size[0], 200 : 200 + size[1]])
    mpp = network.mpp * scale
    Image.fromarray(image).save(tmp_path / "image.png")
    written = map_slide(tmp_path / "image.png", network, tmp_path / "maps", mpp=mpp)
    found = network.predict(image, mpp=mpp)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, written.probability)
    height, width = (round(side * scale) for side in size)
    classes = [] if network.class_names is None else [len(network.class_names)]
    assert found.shape == (*classes, height, width)
    assert 0 < found.max() <= 1
    if classes:
        # A softmax in steps of 1/255.
        np.testing.assert_allclose(found.sum(axis=0), 1, atol=len(network.class_names) / 510)


def test_a_large_image_comes_in_tiles_too(networks, pixels, tmp_path):
    wide = np.tile(pixels, (1, 4, 1))[:200]
    Image.fromarray(wide).save(tmp_path / "wide.png")
    written = map_slide(tmp_path / "wide.png", networks["cdws_mil"], tmp_path / "maps")
    assert written.row["num_tiles"] > 1
    np.testing.assert_array_equal(networks["cdws_mil"].predict(wide), written.probability)


def test_a_temperature_counts(pixels):
    head = BUNDLES / HEAD / "models" / "ebhi_seg"
    image = pixels[300:500, 200:400]
    plain = load_network(BUNDLES / HEAD, head, device="cpu", **{"slide_mapper::compute::amp": False}).predict(image)
    calibrated = load_network(
        BUNDLES / HEAD, head, device="cpu", temperature=2.0, **{"slide_mapper::compute::amp": False}
    ).predict(image)
    certain = (plain > 0.02) & (plain < 0.98)
    logits = np.log(plain[certain] / (1 - plain[certain]))
    np.testing.assert_allclose(calibrated[certain], 1 / (1 + np.exp(-logits / 2)), atol=0.03)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((8, 8, 3), np.float32), "uint8 (H, W, 3), found float32 (8, 8, 3)"),
        (np.zeros((3, 8, 8), np.uint8), "found uint8 (3, 8, 8)"),
        (np.zeros((0, 8, 3), np.uint8), "found uint8 (0, 8, 3)"),
        ([[0]], "found list"),
    ],
)
def test_what_is_no_image_is_refused(networks, image, said):
    with pytest.raises(ValueError, match="expected an image") as raised:
        map_array(networks[HEAD].mapper, image)
    assert said in str(raised.value)


def test_of_an_array_no_file_is_named(networks):
    with pytest.raises(ValueError, match="the image given as an array cannot be mapped") as raised:
        networks[HEAD].predict(np.zeros((64, 64, 3), np.uint8))
    assert ".png" not in str(raised.value)


def test_paths_begin_in_the_home_folder(pixels, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "bundles").symlink_to(BUNDLES)
    tifffile.imwrite(tmp_path / "slide.tif", pixels[:200, :200], photometric="rgb", metadata=None)
    network = load_network(f"~/bundles/{HEAD}", f"~/bundles/{HEAD}/models/ebhi_seg", device="cpu")
    found = map_slide("~/slide.tif", network, "~/maps", mpp=0.5)
    assert found.folder == tmp_path / "maps"
    assert (tmp_path / "maps/slide.ome.tif").is_file()


# With millimetres for micrometres the map would be a thousand times as large, a file of terabytes.
@pytest.mark.parametrize("mpp", [0, -1, 500.0, float("nan"), float("inf")])
def test_a_pixel_size_that_is_none_is_refused(networks, pixels, mpp):
    with pytest.raises(ValueError, match="mpp must be a positive number"):
        networks[HEAD].predict(pixels, mpp=mpp)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="is not a bundle: expected a folder with configs/metadata"):
        load_network(tmp_path)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match=r"the weights .*nothing/model\.pt do not exist"):
        load_network(BUNDLES / HEAD, tmp_path / "nothing")
    with pytest.raises(ValueError, match="no key 'tresh'"):
        load_slide_mapper(BUNDLES / HEAD, overrides={"tresh": 1})
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text("{}")
    with pytest.raises(ValueError, match="contains no code that this package can run"):
        load_network(tmp_path)
