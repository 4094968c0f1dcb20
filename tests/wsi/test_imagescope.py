import numpy as np
import pytest
from shapely.geometry import Polygon, box

from tests.wsi.annotation_texts import SQUARE, imagescope, layer, region


def test_imagescope_outline(read):
    (annotation,) = read(imagescope(layer(region(SQUARE, Type="0", NegativeROA="0"), name="Tumour")))
    assert annotation.polygon.equals(box(10, 20, 30, 50))
    assert (annotation.class_name, annotation.is_exclusion, annotation.group, annotation.layer) == ("Tumour", False, "Tumour", 1)
    assert annotation.place == "annotation 1, region 1"


@pytest.mark.parametrize(
    ("own", "text", "name", "of_layer", "expected"),
    [
        ("Carcinoma in situ", "text", "layer", ("Description", "x"), "Carcinoma in situ"),
        (" ", "text", "layer", ("Description", "x"), "text"),
        ("", "  ", "layer", ("Description", "x"), "layer"),
        ("", "", "", ("Description", " Carcinoma  invasive "), "Carcinoma  invasive"),
        ("", "", "", ("CaP", ""), "CaP"),
        ("", "", "", ("Description", ""), ""),
    ],
)
def test_imagescope_class_is_the_first_name_that_is_there(read, own, text, name, of_layer, expected):
    own_attributes = f'<Attributes><Attribute Name="1" Id="0" Value="{own}"/></Attributes>'
    layer_attributes = f'<Attributes><Attribute Name="{of_layer[0]}" Id="0" Value="{of_layer[1]}"/></Attributes>'
    regions = region(SQUARE, own_attributes, Type="0", Text=text)
    (annotation,) = read(imagescope(layer(regions, name=name, attributes=layer_attributes)))
    assert annotation.class_name == expected


def test_imagescope_classes_of_one_layer_and_of_attributes_behind_the_regions(read):
    """The BACH challenge has one layer, whose regions name their classes."""
    names = ["Benign", "Carcinoma in situ", "Carcinoma invasive"]
    regions = [region(SQUARE, f'<Attributes><Attribute Name="1" Value="{name}"/></Attributes>') for name in names]
    assert [annotation.class_name for annotation in read(imagescope(layer(*regions)))] == names
    late = f'<Regions>{region(SQUARE)}</Regions><Attributes><Attribute Value="late"/></Attributes>'
    late = f'<Annotation Name="">{late}</Annotation>'
    assert read(imagescope(late))[0].class_name == "late"


def test_imagescope_layer_is_the_parent_of_what_its_regions_are_called(read):
    own, unnamed = region(SQUARE, "", Type="0", Text="2"), region(SQUARE, "", Type="0", Text="")
    annotations = read(imagescope(layer(own, unnamed, name="Tumour"), layer(own, name="Exclusion")))
    assert [(one.names, one.is_exclusion) for one in annotations] == [
        (("2", "Tumour"), False),
        (("Tumour",), False),
        (("2", "Exclusion"), True),
    ]


def test_imagescope_negative_region_is_excluded_from_its_layer(read):
    first = layer(region(SQUARE), region([(12, 22), (18, 22), (18, 28)], NegativeROA="1"), name="a")
    annotations = read(imagescope(first, layer(region(SQUARE), name="b")))
    assert [annotation.is_exclusion for annotation in annotations] == [False, True, False]
    assert [annotation.layer for annotation in annotations] == [1, 1, 2]
    assert annotations[1].polygon.area == 18


@pytest.mark.parametrize("kind", ["1", "Rectangle"])
def test_imagescope_rectangle_from_two_corners_or_four(read, kind):
    corners = [(30, 50), (10, 20)]
    for points in (corners, SQUARE):
        (annotation,) = read(imagescope(layer(region(points, Type=kind))))
        assert annotation.polygon.equals(box(10, 20, 30, 50))


@pytest.mark.parametrize("kind", ["2", "ellipse"])
def test_imagescope_ellipse_lies_in_its_bounding_box(read, kind):
    for points in ([(10, 20), (30, 50)], SQUARE):
        (annotation,) = read(imagescope(layer(region(points, Type=kind))))
        assert annotation.polygon.bounds == pytest.approx((10, 20, 30, 50))
        assert annotation.polygon.area == pytest.approx(np.pi * 10 * 15, rel=1e-3)
        assert annotation.polygon.centroid.coords[0] == pytest.approx((20, 35))


@pytest.mark.parametrize("kind", ["1", "2"])
def test_imagescope_type_does_not_make_a_box_of_an_outline_of_many_points(read, kind):
    points = [(10, 20), (30, 20), (25, 30), (30, 50), (10, 50)]
    (annotation,) = read(imagescope(layer(region(points, Type=kind))))
    assert annotation.polygon.equals(Polygon(points))


def test_imagescope_layers_without_regions(read):
    assert read(imagescope(layer(), layer())) == []
    assert read("<Annotations/>") == []
