import json
import logging
import re

import pytest
from shapely.geometry import box

from shared.wsi import EXCLUSION_NAMES, read_annotations
from tests.wsi.annotation_texts import SQUARE, asap, feature, imagescope, layer, region

# ASAP


def test_asap_groups(read):
    annotations = read(
        asap(
            ("Annotation 0", "Polygon", "_0", SQUARE),
            ("inner", "Spline", "_2", SQUARE),
            ("c", "Rectangle", "Tumour Bed", SQUARE),
            ("d", "Polygon", "None", SQUARE),
        )
    )
    assert [annotation.group for annotation in annotations] == ["_0", "_2", "Tumour Bed", "None"]
    assert [annotation.class_name for annotation in annotations] == ["_0", "_2", "Tumour Bed", ""]
    assert [annotation.is_exclusion for annotation in annotations] == [False, True, False, False]
    assert {annotation.layer for annotation in annotations} == {None}
    assert annotations[1].place == "annotation 2 ('inner')"
    assert all(annotation.polygon.area == 600 for annotation in annotations)


def test_asap_groups_follow_their_parents(read):
    """Groups stand behind the annotations, in any order."""
    drawn = [(name, "Polygon", name, SQUARE) for name in ("blood", "lesion 1", "Exclusion", "Tumor", "None", "alone")]
    groups = [("blood", "artefact"), ("lesion 1", "Tumor"), ("artefact", "Exclusion"), ("Exclusion", "None"), ("Tumor", "None")]
    listed = "".join(f'<Group Name="{name}" PartOfGroup="{parent}"><Attributes/></Group>' for name, parent in groups)
    text = asap(*drawn).replace("</AnnotationGroups>", listed + "</AnnotationGroups>")
    annotations = read(text)
    assert [annotation.is_exclusion for annotation in annotations] == [True, False, True, False, False, False]
    assert annotations[0].names == ("blood", "artefact", "Exclusion")
    assert [annotation.names for annotation in annotations[1:]] == [
        ("lesion 1", "Tumor"),
        ("Exclusion",),
        ("Tumor",),
        ("",),
        ("alone",),
    ]
    loop = text.replace('Name="Tumor" PartOfGroup="None"', 'Name="Tumor" PartOfGroup="lesion 1"')
    with pytest.raises(ValueError, match=r"slide\.xml: the group '.*' is part of itself"):
        read(loop)


def test_which_names_are_exclusions_is_the_callers_choice(read):
    text = asap(("a", "Polygon", "_2", SQUARE), ("b", "Polygon", "Artefact ", SQUARE))
    assert [annotation.is_exclusion for annotation in read(text)] == [True, False]
    assert [annotation.is_exclusion for annotation in read(text, exclusion_names=["ARTEFACT"])] == [False, True]
    assert not any(annotation.is_exclusion for annotation in read(text, exclusion_names=()))
    assert "_2" in EXCLUSION_NAMES


def test_asap_points_stand_in_their_order(read):
    """In the order of the file the outline would cross itself."""
    order = [2, 0, 3, 1]
    points = "".join(f'<Coordinate Order="{i}" X="{SQUARE[i][0]}" Y="{SQUARE[i][1]},0"/>' for i in order)
    text = f'<Annotation Name="a" Type="Polygon" PartOfGroup="_0"><Coordinates>{points}</Coordinates></Annotation>'
    (annotation,) = read(f"<ASAP_Annotations><Annotations>{text}</Annotations></ASAP_Annotations>")
    assert annotation.polygon.equals(box(10, 20, 30, 50))


# QuPath


RING = [*SQUARE, SQUARE[0]]
HOLE = [(15, 25), (20, 25), (20, 30), (15, 30), (15, 25)]


@pytest.mark.parametrize("wrap", [lambda f: {"type": "FeatureCollection", "features": [f]}, lambda f: [f], lambda f: f])
@pytest.mark.parametrize("name", ["a.json", "a.geojson"])
def test_qupath_collections_lists_and_single_features(read, wrap, name):
    (annotation,) = read(wrap(feature([RING], classification={"name": "Tumor", "color": [200, 0, 0]}, name="core")), name)
    assert annotation.polygon.equals(box(10, 20, 30, 50))
    assert (annotation.class_name, annotation.group, annotation.place) == ("Tumor", "core", "feature 1 ('core')")


def test_qupath_holes_and_several_polygons(read):
    far = [(100, 100), (110, 100), (110, 110)]  # not closed
    annotations = read([feature([RING, HOLE]), feature([[RING, HOLE], [far]], "MultiPolygon")])
    assert [annotation.polygon.area for annotation in annotations] == [600 - 25, 600 - 25 + 50]
    assert len(annotations[0].polygon.interiors) == 1
    assert annotations[1].polygon.geom_type == "MultiPolygon"
    assert all(annotation.polygon.is_valid for annotation in annotations)


def test_qupath_polygons_that_overlap_are_joined(read):
    other = [(20, 20), (40, 20), (40, 50), (20, 50)]
    (annotation,) = read([feature([[RING], [other]], "MultiPolygon")])
    assert annotation.polygon.equals(box(10, 20, 40, 50))


@pytest.mark.parametrize(
    ("classification", "expected"),
    [
        (None, ""),
        ({"name": "Immune cells"}, "Immune cells"),
        ({"names": ["Tumor", "Positive"]}, "Tumor: Positive"),
        ("Stroma", "Stroma"),
        ({}, ""),
        ({"name": None}, ""),
    ],
)
def test_qupath_classifications(read, classification, expected):
    assert read([feature([RING], classification=classification)])[0].class_name == expected


def test_qupath_classes_follow_what_they_are_derived_from(read):
    drawn = [{"names": ["Tumor", "Invasive", "Positive"]}, {"name": "Ignore*: Pen"}, "Tumor: Negative"]
    annotations = read([feature([RING], classification=classification) for classification in drawn])
    assert [annotation.names for annotation in annotations] == [
        ("Tumor: Invasive: Positive", "Tumor: Invasive", "Tumor"),
        ("Ignore*: Pen", "Ignore*"),
        ("Tumor: Negative", "Tumor"),
    ]
    assert [annotation.is_exclusion for annotation in annotations] == [False, True, False]


def test_qupath_cells_and_other_objects_are_left_out_with_a_warning(read, caplog):
    old = {**feature([RING]), "id": "PathCellObject"}
    kept = [feature([RING], objectType="annotation"), {**feature([RING]), "id": "PathAnnotationObject"}]
    points = [feature([3, 4], "Point"), feature([[0, 0], [3, 4]], "LineString")]
    with caplog.at_level(logging.WARNING):
        annotations = read([feature([RING], objectType="detection"), old, *kept, *points])
    assert [annotation.place for annotation in annotations] == ["feature 3", "feature 4"]
    expected = "feature 1 (detection), feature 2 (cell), feature 5 (Point) and 1 more"
    assert [record.getMessage().split("area: ")[1] for record in caplog.records] == [expected]


def test_qupath_geometry_collection_gives_its_polygons(read):
    parts = [{"type": "Point", "coordinates": [1, 2]}, {"type": "Polygon", "coordinates": [RING]}]
    item = {"type": "Feature", "geometry": {"type": "GeometryCollection", "geometries": parts}, "properties": {}}
    assert read([item])[0].polygon.area == 600


def test_qupath_names_what_is_to_be_passed_over(read):
    assert read([feature([RING], classification={"name": "Ignore*"})])[0].is_exclusion


# Outlines


BOW_TIE = [(0, 0), (10, 10), (10, 0), (0, 10)]  # two triangles of 25 px that meet in (5, 5)


def test_an_outline_that_crosses_itself_keeps_both_sides(read):
    for content in (imagescope(layer(region(BOW_TIE))), asap(("a", "Polygon", "_0", BOW_TIE)), [feature([BOW_TIE])]):
        (annotation,) = read(content)
        assert annotation.polygon.is_valid
        assert annotation.polygon.geom_type == "MultiPolygon"
        assert annotation.polygon.area == 50


def test_a_spike_leaves_no_line(read):
    spike = [(0, 0), (10, 0), (10, 5), (20, 5), (10, 5), (10, 10), (0, 10)]
    (annotation,) = read([feature([spike])])
    assert annotation.polygon.equals(box(0, 0, 10, 10))
    assert annotation.polygon.geom_type == "Polygon"


def test_outlines_may_be_closed_more_than_once_or_not_at_all(read):
    for points in (SQUARE, RING, [*RING, RING[0]], [SQUARE[0], *SQUARE]):
        for content in (imagescope(layer(region(points))), asap(("a", "Polygon", "_0", points)), [feature([points])]):
            assert read(content)[0].polygon.equals(box(10, 20, 30, 50))


@pytest.mark.parametrize("points", [[(5, 5)], [(5, 5), (5, 5), (5, 5), (5, 5)], [(5, 5), (9, 9)], [(0, 0), (5, 5), (9, 9)]])
def test_clicks_and_lines_are_left_out_with_a_warning(read, points, caplog):
    contents = [
        (imagescope(layer(region(points), region(SQUARE))), "annotation 1, region 1 (no area)"),
        (asap(("click", "Polygon", "_0", points), ("b", "Polygon", "_0", SQUARE)), "annotation 1 ('click') (no area)"),
        ([feature([points]), feature([RING])], "feature 1 (no area)"),
    ]
    for content, words in contents:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            (annotation,) = read(content)
        assert annotation.polygon.area == 600
        (record,) = caplog.records
        assert words in record.getMessage()
        assert "slide." in record.getMessage()


def test_shapes_that_are_no_areas_are_left_out_with_a_warning(read, caplog):
    arrow = imagescope(layer(region([(0, 0), (9, 9), (9, 0)], Type="3"), region(SQUARE)))
    dots = asap(("dot", "Dot", "_0", [(1, 1)]), ("b", "Polygon", "_0", SQUARE), ("c", "PointSet", "_0", SQUARE))
    with caplog.at_level(logging.WARNING):
        assert [len(read(content)) for content in (arrow, dots)] == [1, 1]
    assert "annotation 1, region 1 (type 3)" in caplog.text
    assert "annotation 1 ('dot') (Dot), annotation 3 ('c') (PointSet)" in caplog.text


# Files


def test_encodings_and_byte_order_marks(read):
    text = asap(("Ü", "Polygon", "Tumör", SQUARE))
    declared = '<?xml version="1.0" encoding="{}"?>' + text
    for content in (
        text.encode("utf-8-sig"),
        text.encode("utf-16"),
        declared.format("ISO-8859-1").encode("latin-1"),
        declared.format("windows-1252").encode("cp1252"),
    ):
        assert read(content)[0].class_name == "Tumör"
    items = json.dumps([feature([RING], classification={"name": "Tumör"})], ensure_ascii=False)
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert read(items.encode(encoding), "a.json")[0].class_name == "Tumör"


def test_endings_in_capitals(read):
    assert len(read(imagescope(layer(region(SQUARE))), "SLIDE.XML")) == 1
    assert len(read(json.dumps([feature([RING])]), "SLIDE.GeoJSON")) == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.xml", b"", "damaged"),
        ("a.json", b"", "damaged"),
        ("a.xml", imagescope(layer(region(SQUARE)))[:-30], "damaged"),
        ("a.json", json.dumps([feature([RING])])[:-3], "damaged"),
        ("a.json", b"\xff\xff\xff", "damaged"),
        ("a.json", "[" * 100_000, "damaged"),
        ("a.xml", asap(("Ü", "Polygon", "_0", SQUARE)).encode("latin-1"), "damaged"),
        ("a.xml", '<?xml version="1.0" encoding="klingon"?><Annotations/>', "klingon|encoding"),
        ("a.xml", "<svg/>", "<svg>, expected <Annotations> or <ASAP_Annotations>"),
        ("a.xml", "{}", "damaged"),
        ("a.json", "{}", "feature 1 is not a GeoJSON Feature: its type is 'None'"),
        ("a.json", '{"type": "FeatureCollection"}', "FeatureCollection, a list of features"),
        ("a.json", "3", "FeatureCollection, a list of features"),
        ("a.json", "[3]", "feature 1 is not a GeoJSON Feature: its type is '3'"),
        ("a.csv", "x,y", r"read from \.xml, \.json, \.geojson, not from \.csv"),
        ("a.xml", imagescope(layer(region(SQUARE), region([]))), "annotation 1, region 2 has no coordinates"),
        ("a.xml", imagescope(layer("<Region/>")), "annotation 1, region 1 has no coordinates"),
        ("a.xml", imagescope(layer(region([(1, 2), ("nan", 3)]))), "region 1 has a coordinate X='nan'"),
        ("a.xml", imagescope(layer(region([(1, 2), (1, "")]))), "region 1 has a coordinate Y=''"),
        ("a.xml", asap(("a", "Polygon", "_0", [])), r"annotation 1 \('a'\) has no coordinates"),
        ("a.xml", asap(("a", "Polygon", "_0", [("x", 1)])), r"annotation 1 \('a'\) has a coordinate X='x'"),
        ("a.json", [feature([RING]), feature([])], "feature 2 has no coordinates"),
        ("a.json", [feature([[]])], r"feature 1 has coordinates that are not points"),
        ("a.json", [feature(None)], "feature 1 has no coordinates"),
        ("a.json", [feature([[]], "MultiPolygon")], "feature 1 has no coordinates"),
        ("a.json", [{"type": "Feature", "geometry": None}], "feature 1 has no coordinates: its geometry is of type None"),
        ("a.json", [{"type": "Feature", "geometry": "x", "properties": 3}], "feature 1 has no coordinates"),
        ("a.json", [feature(RING)], r"feature 1 has coordinates that are not points \(x, y\)"),
        ("a.json", [feature([RING], "MultiPolygon", name="n")], r"feature 1 \('n'\) has coordinates that are not points"),
        ("a.json", [feature(7, "MultiPolygon")], "feature 1 has coordinates that are not points"),
        ("a.json", [feature([[(1, 2), (3, "x"), (4, 5)]])], "feature 1 has coordinates that are not points"),
        ("a.json", [feature([[(1, 2), (3,), (4, 5)]])], "feature 1 has coordinates that are not points"),
        ("a.json", [feature([[(1, 2), (3, 10**400), (4, 5)]])], "feature 1 has coordinates that are not points"),
        ("a.json", '[{"type":"Feature","geometry":{"type":"Polygon","coordinates":[[[1,NaN],[2,2],[3,4]]]}}]', "not finite"),
        ("a.json", [feature(1, "Circle")], "feature 1 has no coordinates: its geometry is of type 'Circle'"),
    ],
)
def test_what_cannot_be_read_names_file_and_annotation(read, name, content, words):
    with pytest.raises(ValueError, match=rf"(?s)the annotations .*{re.escape(name)}.*{words}"):
        read(content, name)


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"no\.xml cannot be read"):
        read_annotations(tmp_path / "no.xml")


def test_entities_that_grow_without_end_are_refused(read):
    """A few hundred bytes that would be a gigabyte."""
    entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    text = f'<!DOCTYPE a [<!ENTITY a0 "0123456789">{entities}]><Annotations>&a9;</Annotations>'
    with pytest.raises(ValueError, match="damaged"):
        read(text)


def test_no_other_file_is_read_for_an_entity(read, tmp_path):
    (tmp_path / "secret.txt").write_text("Tumour")
    name = f'<!DOCTYPE a [<!ENTITY s SYSTEM "file://{tmp_path}/secret.txt">]>'
    with pytest.raises(ValueError, match="damaged"):
        read(name + imagescope(layer(region(SQUARE, "<Attributes>&s;</Attributes>"))))
