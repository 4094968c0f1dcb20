"""Annotations in QuPath's frame, which begins where the scanner began, against level 0."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

from shared.wsi import MaskMeaning, Slide, read_annotations, read_mask_region

from .scn_slide import write_scn

SIZE_PX, ORIGIN_PX, SCANNED_PX = (900, 700), (300, 200), (320, 256)
TUMOUR = (40, 64, 168, 192)  # of the scanned part
RED, PINK = (220, 40, 60), (200, 150, 180)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A slide with a red square on pink."""
    pixels = np.full((SCANNED_PX[1], SCANNED_PX[0], 3), PINK, np.uint8)
    left, top, right, bottom = TUMOUR
    pixels[top:bottom, left:right] = RED
    return write_scn(tmp_path_factory.mktemp("scn") / "slide.scn", pixels, ORIGIN_PX, SIZE_PX)


def square(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def geojson(path, *boxes, **members):
    features = [
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [square(*corners)]}, "properties": {}}
        for corners in boxes
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", **members, "features": features}))
    return path


def xml(path, *boxes):
    outlines = "".join(
        "<Annotation Type='Polygon'><Coordinates>"
        + "".join(f'<Coordinate X="{x}" Y="{y}"/>' for x, y in square(*corners))
        + "</Coordinates></Annotation>"
        for corners in boxes
    )
    path.write_text(f"<ASAP_Annotations><Annotations>{outlines}</Annotations></ASAP_Annotations>")
    return path


def mask_of(path, slide, **options):
    return read_mask_region(path, (0, 0), SIZE_PX, SIZE_PX, image_path=slide, meaning=MaskMeaning(**options))


def at(corners, origin):
    return tuple(value + origin[index % 2] for index, value in enumerate(corners))


def test_a_slide_says_what_was_scanned(slide, tmp_path):
    with Slide(slide) as opened:
        assert (opened.size_px, opened.bounds_px, opened.qupath_origin_px) == (SIZE_PX, (*ORIGIN_PX, *SCANNED_PX), ORIGIN_PX)
    Image.new("RGB", (40, 30)).save(tmp_path / "tile.png")
    with Slide(tmp_path / "tile.png") as opened:
        assert (opened.bounds_px, opened.qupath_origin_px) == ((0, 0, 40, 30), (0, 0))


def test_annotations_meet_the_tumour_that_they_were_drawn_on(slide, tmp_path):
    """In QuPath's frame or in that of ImageScope and ASAP: by the format, by what the file says, by what the reader is told."""
    with Slide(slide) as opened:
        red = opened.read_region((0, 0), SIZE_PX)[..., 1] < 100
    level0 = at(TUMOUR, ORIGIN_PX)
    files = [
        (geojson(tmp_path / "a.geojson", TUMOUR), {}),
        (geojson(tmp_path / "b.geojson", level0), {"annotation_frame": "level0"}),
        # What a file says of itself counts.
        (geojson(tmp_path / "c.json", level0, annotation_frame="level0"), {"annotation_frame": "qupath"}),
        (geojson(tmp_path / "d.json", TUMOUR, annotation_frame="qupath"), {"annotation_frame": "level0"}),
        (xml(tmp_path / "e.xml", level0), {}),
        (xml(tmp_path / "f.xml", TUMOUR), {"annotation_frame": "qupath"}),
    ]
    for path, options in files:
        mask = mask_of(path, slide, **options)
        # The edges of the red square are blurred by JPEG.
        assert (mask != red).mean() < 0.002, path.name
        assert mask.sum() == 128 * 128
        part = read_mask_region(path, (level0[0] - 8, level0[1] - 8), 32, SIZE_PX, 2.0, slide, MaskMeaning(**options))
        np.testing.assert_array_equal(part, np.pad(np.ones((28, 28)), ((4, 0), (4, 0))))


def test_annotations_outside_what_qupath_shows(slide, tmp_path, caplog):
    """Level-0 coordinates taken for QuPath's are outside; the message has the file's own numbers."""
    path = geojson(tmp_path / "a.geojson", (400, 300, 500, 400))
    with pytest.raises(
        ValueError, match=r"all .*a\.geojson lie outside the image of 320 x 256 px: feature 1 at \(400, 300\).*\(300, 200\)"
    ):
        mask_of(path, slide)
    assert mask_of(path, slide, annotation_frame="level0").sum() == 100 * 100
    with caplog.at_level(logging.WARNING):
        mask_of(geojson(tmp_path / "b.geojson", TUMOUR, (400, 300, 500, 400)), slide)
    assert "feature 2 at (400, 300) to (500, 400)" in caplog.text


def test_frames_that_there_are_not(slide, tmp_path):
    path = geojson(tmp_path / "a.geojson", TUMOUR, annotation_frame="bounds")
    with pytest.raises(ValueError, match=r"a\.geojson: annotation_frame must be one of qupath, level0, got 'bounds'"):
        read_annotations(path)
    with pytest.raises(ValueError, match="annotation_frame must be one of qupath, level0, got 'QuPath'"):
        mask_of(geojson(tmp_path / "b.geojson", TUMOUR), slide, annotation_frame="QuPath")
