"""Which of the three places decides a slide's label."""

from threading import Event, Thread

import pytest
from shapely.geometry import box

from scripts.label_server.learning.weak_labels import DRAWN, METADATA, SAID, drawn_areas, weak_label
from scripts.label_server.refusal import Refusal
from scripts.label_server.studies import drawn_files
from scripts.label_server.studies.drawn_files import DrawnFiles


def said(tumour, fraction=None):
    return {"weak_label": {"tumor": tumour} | ({} if fraction is None else {"fraction": fraction})}


@pytest.fixture
def draw(tmp_path, asap_annotation):
    def write(name):
        path = tmp_path / "slide.xml"
        path.write_bytes(asap_annotation(name, (10, 20, 110, 70)))
        return path

    return write


def test_nothing_is_known(draw):
    assert weak_label({}, None) is None
    assert weak_label({"meta": {}, "ts": 5}, draw("Stroma")) is None


@pytest.mark.parametrize(
    ("name", "label"), [("Tumor", 1), ("tumour", 1), ("Tumor: Positive", 1), ("Normal", 0), ("benign", 0), ("Negative", 0)]
)
def test_what_is_drawn(draw, name, label):
    found = weak_label({}, draw(name))
    assert (found.label, found.fraction, found.source) == (label, None if label else 0.0, DRAWN)
    assert (found.drawn.tumour if label else found.drawn.normal).equals(box(10, 20, 110, 70))


def square(least, most):
    return [(least, least), (most, least), (most, most), (least, most)]


def imagescope(layer, inner):
    """A layer with a region of no name, and in it one of a name."""
    regions = "".join(
        f'<Region Id="{index}" Type="0" Text="{name}" NegativeROA="0"><Vertices>'
        + "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in corners)
        + "</Vertices></Region>"
        for index, (name, corners) in enumerate([("", square(0, 100)), (inner, square(20, 80))])
    )
    return f'<Annotations><Annotation Id="1" Name="{layer}"><Regions>{regions}</Regions></Annotation></Annotations>'


def asap_groups(outer, inner):
    """A group within a group, and an area of each."""
    areas = "".join(
        f'<Annotation Name="{group}0" PartOfGroup="{group}" Type="Polygon"><Coordinates>'
        + "".join(f'<Coordinate Order="{order}" X="{x}" Y="{y}"/>' for order, (x, y) in enumerate(corners))
        + "</Coordinates></Annotation>"
        for group, corners in ((outer, square(0, 100)), (inner, square(20, 80)))
    )
    groups = f'<Group Name="{outer}" PartOfGroup="None"/><Group Name="{inner}" PartOfGroup="{outer}"/>'
    return f"<ASAP_Annotations><Annotations>{areas}</Annotations><AnnotationGroups>{groups}</AnnotationGroups></ASAP_Annotations>"


@pytest.mark.parametrize("write", [imagescope, asap_groups])
@pytest.mark.parametrize(
    ("outer", "inner", "tumour", "normal"),
    [
        ("Tumor", "Normal", 6400, 3600),
        ("Cancer", "benign", 6400, 3600),
        ("Normal", "Tumor", 3600, 6400),
        # What is not known of itself is what it is part of.
        ("Tumor", "Grade 3", 10_000, 0),
        ("Normal", "Stroma", 0, 10_000),
    ],
)
def test_an_area_is_what_the_nearest_known_class_says(tmp_path, write, outer, inner, tumour, normal):
    path = tmp_path / "slide.xml"
    path.write_text(write(outer, inner))
    found = drawn_areas(path)
    assert (found.tumour.area, found.normal.area) == (tumour, normal)


@pytest.mark.parametrize(
    ("info", "name", "meta", "expected"),
    [
        (said(1, 0.1), "Tumor", said(1, 0.5), (1, 0.1, SAID)),
        (said(0), "Tumor", said(1, 0.5), (0, 0.0, SAID)),
        (said(1), "Normal", said(1, 0.5), (1, 0.5, SAID)),
        (said(1), "Tumor", None, (1, None, SAID)),
        ({}, "Tumor", said(0), (1, None, DRAWN)),
        ({}, "Tumor", said(1, 0.25), (1, 0.25, DRAWN)),
        ({}, None, said(1, 0.25), (1, 0.25, METADATA)),
        ({}, None, {"weak_label": {"tumour": True, "area": 0.5}}, (1, 0.5, METADATA)),
    ],
)
def test_the_first_place_decides_and_the_fraction_comes_from_one_that_agrees(draw, info, name, meta, expected):
    found = weak_label(info | ({} if meta is None else {"meta": meta}), None if name is None else draw(name))
    assert (found.label, found.fraction, found.source) == expected


def test_areas_that_contradict_the_label_are_not_used(draw):
    assert weak_label(said(0), draw("Tumor")).drawn.label is None
    assert weak_label(said(1), draw("Tumor")).drawn.label == 1


@pytest.mark.parametrize(
    "value",
    [
        1,
        {},
        {"fraction": 0.5},
        {"tumor": 2},
        {"tumor": 1, "fraction": 1.5},
        {"tumor": 1, "fraction": 0},
        {"tumor": 0, "fraction": 0.1},
        {"tumor": 1, "fraction": "much"},
        {"tumor": 1, "size": 3},
        {"tumor": True, "tumour": 0},
        {"tumor": 1, "fraction": 0.2, "area": 0.3},
    ],
)
def test_labels_of_another_form_are_refused(value):
    with pytest.raises(Refusal, match="weak_label"):
        weak_label({"weak_label": value}, None)


def test_what_is_known_is_given_out_while_another_file_is_read(draw, asap_annotation, tmp_path, monkeypatch):
    files, known = DrawnFiles(tmp_path / "drawn"), draw("Tumor")
    assert files.areas(known, "level0").label == 1
    is_reading, is_read, run = Event(), Event(), files._run

    def slowly(*arguments):
        is_reading.set()
        is_read.wait(600)
        return run(*arguments)

    monkeypatch.setattr(files, "_run", slowly)
    (tmp_path / "other.xml").write_bytes(asap_annotation("Normal", (10, 20, 110, 70)))
    reader = Thread(target=files.areas, args=(tmp_path / "other.xml", "level0"))
    reader.start()
    assert is_reading.wait(600)
    assert files.areas(known, "level0").label == 1
    assert reader.is_alive()
    is_read.set()
    reader.join()


def test_a_drawing_that_took_too_long_on_a_busy_machine_is_read_under_a_higher_limit(draw, tmp_path):
    files, path = DrawnFiles(tmp_path / "drawn", longest_s=0.01), draw("Tumor")
    with pytest.raises(Refusal, match=r"take longer than 0\.01 s to read: .* or try again later"):
        files.areas(path, "level0")
    files.longest_s = 60
    assert files.areas(path, "level0").label == 1


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ((-9, True), "take longer than"),
        ((-9, False), "GiB of memory"),
        ((1, False), "GiB of memory"),
        ((4, False), "disk is away"),
    ],
)
def test_what_may_be_the_fault_of_the_machine_is_read_again_after_a_pause(draw, tmp_path, monkeypatch, ending, reason):
    files, path = DrawnFiles(tmp_path / "drawn"), draw("Tumor")
    run = files._run

    def failing(_, log):
        log.write("disk is away")
        return ending

    for pause in (10, 0):
        monkeypatch.setattr(drawn_files, "_PAUSE", pause)
        files.longest_s += 1
        monkeypatch.setattr(files, "_run", failing)
        with pytest.raises(Refusal, match=reason):
            files.areas(path, "level0")
        monkeypatch.setattr(files, "_run", run)
        if pause:
            with pytest.raises(Refusal, match=reason):
                files.areas(path, "level0")
    assert files.areas(path, "level0").label == 1


def test_a_file_that_holds_no_annotations_is_read_once(tmp_path, monkeypatch):
    files, path = DrawnFiles(tmp_path / "drawn"), tmp_path / "slide.xml"
    path.write_text("<html/>")
    monkeypatch.setattr(drawn_files, "_PAUSE", 0)
    for _ in range(2):
        with pytest.raises(Refusal, match=r"slide\.xml") as refused:
            files.areas(path, "level0")
        assert refused.value.status == 400
        monkeypatch.setattr(files, "_run", lambda *_: pytest.fail("read again"))


def test_the_system_is_to_blame_for_a_file_that_it_cannot_read(tmp_path, monkeypatch, capsys):
    (tmp_path / "empty.xml").write_text("")
    (tmp_path / "cut.xml.gz").write_bytes(b"no gzip")
    found = [
        drawn_files.main(str(tmp_path / name), "level0", "0", "0", str(tmp_path / "areas"))
        for name in ("empty.xml", "cut.xml.gz")
    ]
    assert found == [3, 3]

    def away(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("shared.wsi.annotations.reading.opened_annotations", away)
    assert drawn_files.main(str(tmp_path / "empty.xml"), "level0", "0", "0", str(tmp_path / "areas")) == 4
    assert "empty.xml cannot be read ([Errno 5] Input/output error)" in capsys.readouterr().out.splitlines()[-1]
