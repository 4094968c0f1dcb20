"""Annotation files that are packed, and files that unpack to more than anyone drew."""

import gzip
import json
import zipfile

import pytest

from shared.wsi import annotation_stem, is_annotation_file, read_annotations, read_mask_region
from shared.wsi.annotations import annotation_file

SQUARE = [[2, 1], [6, 1], [6, 4], [2, 4]]
FEATURE = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [SQUARE]}, "properties": {}}
GEOJSON = json.dumps({"type": "FeatureCollection", "features": [FEATURE]}).encode()
_CORNERS = "".join(f'<Coordinate X="{x}" Y="{y}"/>' for x, y in SQUARE)
_OUTLINE = f"<Annotation><Coordinates>{_CORNERS}</Coordinates></Annotation>"
XML = f"<ASAP_Annotations><Annotations>{_OUTLINE}</Annotations></ASAP_Annotations>"


def zipped(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return path


@pytest.mark.parametrize("name", ["a.geojson.gz", "a.JSON.GZ", "a.xml.gz", "a.zip", "a.geojson.zip"])
def test_packed_files_are_read(name, tmp_path):
    path = tmp_path / name
    if name.endswith("zip"):
        # QuPath's; macOS adds the second.
        zipped(path, a_geojson=GEOJSON, x__="", x___a_geojson=b"\0", readme_txt="")
    else:
        path.write_bytes(gzip.compress(XML.encode() if "xml" in name else GEOJSON))
    assert is_annotation_file(path)
    assert annotation_stem(path) == "a"
    (annotation,) = read_annotations(path)
    assert annotation.polygon.bounds == (2, 1, 6, 4)
    mask = read_mask_region(path, (0, 0), (8, 6), (8, 6))
    assert (mask.sum(), mask[1:4, 2:6].sum()) == (12, 12)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.geojson.gz", gzip.compress(GEOJSON, mtime=0)[:-12], r"a\.geojson\.gz are damaged"),
        ("a.geojson.gz", GEOJSON, r"a\.geojson\.gz are damaged"),
        ("a.geojson.gz", gzip.compress(b"[3]", mtime=0), r"feature 1 is not a GeoJSON Feature"),
        ("a.zip", b"PK", r"a\.zip are damaged"),
        ("a.tif.gz", gzip.compress(GEOJSON, mtime=0), r"read from \.xml, \.json, \.geojson, not from \.gz; they may be packed"),
    ],
)
def test_damage_names_the_file(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_annotations(tmp_path / name)


def test_an_archive_holds_one_file_of_annotations(tmp_path):
    with pytest.raises(ValueError, match=r"a\.zip: expected one file of .*, found 2 \(a\.geojson, b\.xml\)"):
        read_annotations(zipped(tmp_path / "a.zip", a_geojson=GEOJSON, b_xml=XML))
    with pytest.raises(ValueError, match=r"b\.zip: expected one file of .*, found 0 \(a\.txt\)"):
        read_annotations(zipped(tmp_path / "b.zip", a_txt=GEOJSON))


@pytest.mark.parametrize("suffix", [".geojson", ".xml"])
@pytest.mark.parametrize("packed", ["", ".gz", ".zip"])
def test_no_more_is_unpacked_than_annotations_can_be(suffix, packed, tmp_path, monkeypatch):
    """Ten megabytes of blanks in ten kilobytes, with a bound of one."""
    monkeypatch.setattr(annotation_file, "MAX_FILE_BYTES", 10**6)
    bomb = b"<ASAP_Annotations>" * (suffix == ".xml") + b" " * 10**7
    path = tmp_path / f"a{suffix}{packed}"
    if packed == ".zip":
        zipped(path, **{f"a{suffix.replace('.', '_')}": bomb})
    else:
        path.write_bytes(gzip.compress(bomb) if packed else bomb)
    with pytest.raises(ValueError, match=rf"a\{suffix}.* contains more than .* GiB of text"):
        read_annotations(path)


def test_depth_is_bounded(tmp_path):
    collection = {"type": "Polygon", "coordinates": [SQUARE]}
    for depth in range(1, 200):
        collection = {"type": "GeometryCollection", "geometries": [collection]}
        if depth in (8, 199):
            (tmp_path / f"{depth}.json").write_text(json.dumps({**FEATURE, "geometry": collection}))
    assert len(read_annotations(tmp_path / "8.json")) == 1
    with pytest.raises(ValueError, match="feature 1 has more than 8 nested collections of geometries"):
        read_annotations(tmp_path / "199.json")
    (tmp_path / "a.xml").write_text("<Annotations>" + "<a>" * 10**5)
    with pytest.raises(ValueError, match="more than 32 elements are nested"):
        read_annotations(tmp_path / "a.xml")
