"""Maps as OME-Zarr and outlines as GeoParquet, read by the libraries of those who use them."""

import json

import numpy as np
import pytest
from shapely.geometry import Polygon, box

from shared.writers import TUMOUR_COLOUR, annotation_feature, write_geoparquet, write_ome_zarr
from shared.writers.atomic import atomic_folder


class Rows:
    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def read_rows(self, start, stop):
        return self.array[start:stop]


@pytest.fixture(scope="module")
def maps() -> np.ndarray:
    """Two maps with glass."""
    found = np.random.default_rng(0).integers(0, 256, (2, 1100, 700), dtype=np.uint8)
    found[:, 512:] = 0
    return found


@pytest.fixture
def written(maps, tmp_path):
    pytest.importorskip("zarr", reason="needs zarr")
    path = tmp_path / "a.ome.zarr"
    write_ome_zarr(path, {"normal": Rows(maps[0]), "tumour": Rows(maps[1])}, mpp=2.0, colours=[(0, 0, 0), TUMOUR_COLOUR])
    return path


@pytest.fixture
def outlines(tmp_path):
    pytest.importorskip("geopandas", reason="needs geopandas")
    pytest.importorskip("pyarrow", reason="needs pyarrow")
    ring = Polygon(box(0, 0, 100, 60).exterior.coords, [box(10, 10, 20, 20).exterior.coords])
    features = [
        annotation_feature(polygon, "Tumor", TUMOUR_COLOUR, {"Area µm^2": area, "Mean probability": 0.75}, (5, 0))
        for polygon, area in ((ring, 1475.0), (box(200.5, 0, 210, 10), 23.75))
    ]
    write_geoparquet(tmp_path / "a.geoparquet", features, {"annotation_frame": "qupath", "mpp": 0.5})
    return tmp_path / "a.geoparquet"


def test_levels_are_means_and_glass_takes_no_file(written, maps):
    import zarr

    group = zarr.open_group(written, mode="r")
    np.testing.assert_array_equal(group["0"][:], maps)
    halved = maps.reshape(2, 550, 2, 350, 2).astype(float).mean(axis=(2, 4))
    np.testing.assert_allclose(group["1"][:], halved, atol=0.51)
    assert [group[str(index)].shape[1:] for index in range(3)] == [(1100, 700), (550, 350), (275, 175)]
    assert sorted(path.name for path in (written / "0" / "1").iterdir()) == ["0"]
    assert not list(written.parent.glob("*.part"))


def test_the_format_is_what_its_specification_asks_for(written):
    attributes = json.loads((written / ".zattrs").read_text())
    (image,) = attributes["multiscales"]
    assert image["version"] == "0.4"
    assert [axis["name"] for axis in image["axes"]] == ["c", "y", "x"]
    # The first pixel of level 2 is that of the first four: its centre lies 1.5 pixels of 2 um further.
    assert image["datasets"][2]["coordinateTransformations"] == [
        {"type": "scale", "scale": [1, 8, 8]},
        {"type": "translation", "translation": [0, 3, 3]},
    ]
    assert [channel["label"] for channel in attributes["omero"]["channels"]] == ["normal", "tumour"]


def test_ngff_zarr_reads_it(written, maps):
    ngff_zarr = pytest.importorskip("ngff_zarr", reason="needs ngff-zarr", exc_type=ImportError)
    found = ngff_zarr.from_ngff_zarr(str(written), validate=True)
    assert [image.data.shape for image in found.images] == [(2, 1100, 700), (2, 550, 350), (2, 275, 175)]
    np.testing.assert_array_equal(np.asarray(found.images[0].data), maps)
    assert found.images[1].scale["y"] == 4
    assert found.images[1].translation["x"] == 1
    assert found.images[0].axes_units["x"] == "micrometer"


def test_geopandas_reads_outlines(outlines):
    import geopandas

    table = geopandas.read_parquet(outlines)
    assert list(table["class"]) == ["Tumor", "Tumor"]
    assert list(table.geometry.area) == [5900, 95]
    assert table.total_bounds.tolist() == [-5, 0, 205, 60]
    assert list(table["area_um2"]) == [1475, 23.75]
    assert table.crs is None
    assert table.attrs == {"annotation_frame": "qupath", "mpp": 0.5}


def test_a_slide_without_outlines_has_an_empty_table(outlines):
    import geopandas

    write_geoparquet(outlines, [], {})
    table = geopandas.read_parquet(outlines)
    assert len(table) == 0
    assert list(table.columns) == ["class", "area_um2", "mean_probability", "geometry"]


def test_spatialdata_holds_both(written, outlines, maps):
    """Where the map has 2 um a pixel and level 0 has 0.5."""
    spatialdata = pytest.importorskip("spatialdata", reason="needs spatialdata", exc_type=ImportError)
    ngff_zarr = pytest.importorskip("ngff_zarr", reason="needs ngff-zarr", exc_type=ImportError)
    import geopandas
    from spatialdata.models import Image2DModel, ShapesModel
    from spatialdata.transformations import Scale

    image = ngff_zarr.from_ngff_zarr(str(written)).images[0]
    table = geopandas.read_parquet(outlines)
    scale = image.scale["y"] / table.attrs["mpp"]
    found = spatialdata.SpatialData(
        images={
            "map": Image2DModel.parse(
                image.data, ("c", "y", "x"), ["normal", "tumour"], transformations={"global": Scale([scale] * 2, ("y", "x"))}
            )
        },
        shapes={"outlines": ShapesModel.parse(table)},
    )
    np.testing.assert_array_equal(found["map"].sel(c="tumour").values, maps[1])
    assert spatialdata.get_extent(found["map"])["x"] == (0, 2800)
    assert spatialdata.get_extent(found["outlines"])["x"] == (-5, 205)
    part = spatialdata.bounding_box_query(
        found, axes=("x", "y"), min_coordinate=[190, 0], max_coordinate=[400, 40], target_coordinate_system="global"
    )
    assert list(part["outlines"]["area_um2"]) == [23.75]
    assert part["map"].shape == (2, 10, 53)


def test_a_folder_stands_whole_or_not_at_all(tmp_path):
    (tmp_path / "a.part").mkdir()
    (tmp_path / "a.part" / "left by a kill").touch()
    with atomic_folder(tmp_path / "a") as temporary:
        (temporary / "new").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]
    with pytest.raises(KeyError), atomic_folder(tmp_path / "a"):
        raise KeyError
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "new"]
