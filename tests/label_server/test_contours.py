"""Annotations with holes for formats without, and the formats."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import shapely
from shapely.geometry import Point, Polygon, box

from scripts.label_server.endpoints.responses import Answer, asap_xml, dsa_json, geojson, plain_json
from scripts.label_server.maps.contours import contours_by_class, cut_features, without_holes
from shared.writers import annotation_feature

NAME = 'Tumour "A" & <B>'


def feature(polygon, name="Tumor", colour=(200, 0, 0)):
    return annotation_feature(polygon, name, colour, {"Area µm^2": 4.0, "Mean probability": 0.75})


def with_holes(seed, num_holes):
    rng = np.random.default_rng(seed)
    polygon = box(0, 0, 1000, 800)
    for x, y, radius in rng.uniform((50, 50, 5), (950, 750, 60), (num_holes, 3)):
        polygon = polygon.difference(Point(x, y).buffer(radius))
    return max(shapely.get_parts(polygon), key=lambda part: part.area)


@pytest.mark.parametrize(("seed", "num_holes"), [(0, 0), (1, 1), (2, 7), (3, 60)])
def test_pieces_without_holes_are_the_polygon(seed, num_holes):
    polygon = with_holes(seed, num_holes)
    pieces = list(without_holes(polygon))
    assert not any(piece.interiors for piece in pieces)
    assert all(piece.is_valid for piece in pieces)
    assert sum(piece.area for piece in pieces) == pytest.approx(polygon.area)
    assert shapely.union_all(pieces).symmetric_difference(polygon).area == pytest.approx(0, abs=1e-6)
    assert len(pieces) == 1 if not polygon.interiors else len(pieces) <= 4 * len(polygon.interiors) + 2


def test_contours_are_whole_pixels_and_small_ones_are_left_out():
    small, large = Polygon([(0, 0), (4.4, 0), (4.4, 5)]), Polygon([(0, 0), (0.3, 0.1), (20.2, 0), (20, 29.6)])
    found = contours_by_class([feature(small), feature(large), feature(large, "Other")], min_area=50)
    assert found == {"Tumor": [[[0, 0], [20, 0], [20, 30]]], "Other": [[[0, 0], [20, 0], [20, 30]]]}
    assert contours_by_class([feature(small)], min_area=50) == {"Tumor": []}


def test_a_region_cuts_annotations_and_their_areas():
    whole, outside, partly = box(10, 10, 20, 20), box(90, 90, 95, 95), box(40, 0, 80, 10)
    found = list(cut_features([feature(part) for part in (whole, outside, partly)], (0, 0, 50, 50), mpp=0.5))
    assert len(found) == 2
    assert found[0]["properties"] == feature(whole)["properties"]
    assert shapely.geometry.shape(found[0]["geometry"]).equals(whole)
    assert found[1]["properties"]["measurements"] == {"Mean probability": 0.75, "Area µm^2": 10 * 10 * 0.25}
    assert shapely.geometry.shape(found[1]["geometry"]).equals(box(40, 0, 50, 10))


@pytest.fixture
def answer():
    features = [feature(with_holes(1, 1), NAME, (1, 2, 255))]
    return Answer("camel", "0001", "H&E <images>", (5, 6), (70, 80), features, {NAME: (1, 2, 255)}, 30.0, {"cached": True})


def test_asap_xml_is_sound_whatever_the_names(answer):
    root = ET.fromstring(asap_xml(answer))
    (outer,) = root.findall("Annotations")
    assert outer.attrib == {
        "Name": "camel",
        "Description": "H&E <images>",
        "Model": "camel",
        "X": "5",
        "Y": "6",
        "W": "70",
        "H": "80",
    }
    annotations = outer.findall("Annotation")
    assert {part.get("Name") for part in annotations} == {NAME}
    assert annotations[0].get("Color") == "#0102ff"
    assert [point.get("Order") for point in annotations[0].iter("Coordinate")][:2] == ["0", "1"]
    assert [group.get("Name") for group in root.iter("Group")] == [NAME]


def test_dsa_json_keeps_its_description_on_the_second_last_line(answer):
    content = dsa_json(answer)
    found = json.loads(content)
    assert found["elements"][0]["lineColor"] == "rgb(1, 2, 255)"
    line = content.decode().split("\n")[-2]
    assert line.startswith(' "description": ')
    said = json.loads(json.loads("{" + line + "}")["description"])
    assert (said["count"], said["cached"], said["version"]) == (len(found["elements"]), True, "0001")
    nothing = Answer("camel", "original", "", (0, 0), (0, 0), [], {"Tumor": (200, 0, 0)})
    assert json.loads(dsa_json(nothing))["elements"] == []


def test_plain_json_and_geojson(answer):
    (part,) = json.loads(plain_json(answer))["annotations"]
    assert part["annotation"]["labels"] == {NAME: [1, 2, 255]}
    assert len(part["annotation"]["elements"][0]["contours"]) > 1
    (found,) = json.loads(geojson(answer))["features"]
    assert len(found["geometry"]["coordinates"]) == 2
    nothing = Answer("camel", "original", "", (0, 0), (0, 0), [], {"Tumor": (200, 0, 0)})
    assert json.loads(plain_json(nothing))["annotations"][0]["annotation"]["elements"] == []
