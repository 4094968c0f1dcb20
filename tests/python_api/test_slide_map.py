"""What `map_slide` gives: the files' content as arrays and polygons."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from shapely.geometry import shape

from shared.python_api import load_network, map_slide
from shared.synthetic import DemoPlan, SlidePlan, write_demo
from shared.writers import StorageError, read_rows

CAMEL = Path(__file__).parents[2] / "bundles" / "camel"


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    plan = DemoPlan(images={}, slides=(SlidePlan("test", 0.4, (1200, 900)),))
    return next((write_demo(tmp_path_factory.mktemp("slides") / "data", plan) / "slides").iterdir())


@pytest.fixture(scope="module")
def network():
    # This head does not know generated tissue: a low threshold gives outlines.
    return load_network(CAMEL, CAMEL / "models" / "ebhi_seg", device="cpu", threshold=0.02)


@pytest.fixture(scope="module")
def mapped(slide, network, tmp_path_factory):
    return map_slide(slide, network, tmp_path_factory.mktemp("maps"))


def test_a_map_is_what_its_files_hold(mapped, slide, network):
    stored = tifffile.imread(mapped.folder / f"{slide.stem}.ome.tif")
    np.testing.assert_array_equal(np.rint(mapped.probability * 255), stored)
    assert mapped.probability.dtype == np.float32
    assert mapped.mpp == pytest.approx(4 * network.mpp)
    assert mapped.class_names is None
    assert mapped.geojson["features"]
    area = sum(shape(feature["geometry"]).area for feature in mapped.geojson["features"]) * mapped.row["mpp"] ** 2 / 1e6
    assert mapped.row["tumour_area_mm2"] == pytest.approx(area, rel=0.05)


def test_files_without_a_folder_go_with_the_result(slide, network, mapped):
    result = map_slide(slide, network)
    folder = result.folder
    np.testing.assert_array_equal(result.probability, mapped.probability)
    del result
    assert not folder.exists()


def test_a_map_is_read_in_part(mapped):
    pytest.importorskip("zarr", reason="needs zarr")
    opened = mapped.open_zarr()
    assert opened.shape == mapped.probability.shape
    np.testing.assert_array_equal(opened[10:20, 5:9], np.rint(mapped.probability[10:20, 5:9] * 255))


def test_outlines_are_a_table(mapped):
    pytest.importorskip("geopandas", reason="needs geopandas")
    table = mapped.to_geodataframe()
    assert list(table["class"].unique()) == ["Tumor"]
    assert table["area_um2"].sum() == pytest.approx(1e6 * mapped.row["tumour_area_mm2"])
    assert table.geometry.is_valid.all()


@pytest.mark.parametrize(("package", "use"), [("zarr", "open_zarr"), ("geopandas", "to_geodataframe")])
def test_a_package_that_is_missing_is_named(mapped, monkeypatch, package, use):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        getattr(mapped, use)()


def test_a_folder_is_no_slide(slide, network):
    with pytest.raises(ValueError, match="expected one slide or image, found 1"):
        map_slide(slide.parent, network)


def test_a_map_has_its_row_and_its_settings_among_those_of_other_networks(slide, tmp_path):
    """Each network's map replaces the other's together with its row, and is not taken for it."""
    head = CAMEL / "models" / "ebhi_seg"
    low, high = (load_network(CAMEL, head, device="cpu", threshold=threshold) for threshold in (0.02, 0.9))
    first = low.mapper.run(slide, tmp_path)
    shares = [first[0]["tumour_share"]]
    for network in (high, high, low):
        result = map_slide(slide, network, tmp_path)
        shares.append(result.row["tumour_share"])
        assert read_rows(tmp_path / "slides.csv")[slide.stem]["tumour_share"] == str(shares[-1])
        assert json.loads((tmp_path / "settings.json").read_text())["threshold"] == network.threshold
    assert shares[0] == shares[3] > shares[1] == shares[2]
    assert low.mapper.run(slide, tmp_path) == []


def test_a_slide_is_not_replaced_by_its_map(network, tmp_path):
    for name in ("a.png", "b.ome.tif"):
        Image.fromarray(np.full((300, 300, 3), (200, 120, 180), np.uint8)).save(tmp_path / name)
        before = (tmp_path / name).read_bytes()
        with pytest.raises(ValueError, match=f"{name} is a file to read, and {name}"):
            map_slide(tmp_path / name, network, tmp_path)
        assert (tmp_path / name).read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_what_cannot_be_mapped_says_why(network, tmp_path):
    (tmp_path / "a.svs").write_bytes(b"no slide")
    with pytest.raises(ValueError, match=r"^.*a\.svs") as raised:
        map_slide(tmp_path / "a.svs", network, tmp_path / "maps")
    assert not str(raised.value).startswith("ValueError")


def test_a_folder_that_cannot_be_written_to_is_no_fault_of_the_slide(slide, network, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="a part of its path is a file, not a folder"):
        map_slide(slide, network, tmp_path / "file/maps")
