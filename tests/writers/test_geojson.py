import json

from shapely.geometry import Polygon, box, shape

from shared.writers import TUMOUR_CLASS, TUMOUR_COLOUR, annotation_feature, write_geojson


def test_qupath_conventions_and_holes(tmp_path):
    ring = Polygon(box(0, 0, 10, 8).exterior, [box(2, 2, 4, 5).exterior])
    drawn = ((ring, {"Area µm^2": 74.0}), (box(20.5, 1, 21, 2), {}))
    features = [annotation_feature(area, TUMOUR_CLASS, TUMOUR_COLOUR, measured) for area, measured in drawn]
    write_geojson(tmp_path / "a.geojson", features)
    collection = json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))
    assert collection["type"] == "FeatureCollection"
    first, second = collection["features"]
    assert first["properties"]["objectType"] == "annotation"
    assert first["properties"]["classification"] == {"name": "Tumor", "color": [200, 0, 0]}
    assert first["properties"]["measurements"] == {"Area µm^2": 74.0}
    assert shape(first["geometry"]).equals(ring)
    assert shape(first["geometry"]).area == 80 - 6
    # Whole coordinates are written as whole numbers, others as they are.
    assert all(isinstance(value, int) for point in first["geometry"]["coordinates"][0] for value in point)
    assert shape(second["geometry"]).bounds == (20.5, 1, 21, 2)


def test_a_class_brings_its_name_and_colour():
    properties = annotation_feature(box(0, 0, 1, 1), "in situ", (1, 2, 3), {"Mean probability": 0.5})["properties"]
    assert properties == {
        "objectType": "annotation",
        "classification": {"name": "in situ", "color": [1, 2, 3]},
        "isLocked": False,
        "measurements": {"Mean probability": 0.5},
    }


def test_no_features_is_a_valid_file(tmp_path):
    write_geojson(tmp_path / "a.geojson", [])
    assert json.loads((tmp_path / "a.geojson").read_text()) == {"type": "FeatureCollection", "features": []}
