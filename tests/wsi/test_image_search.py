"""What is found below a folder, and what is said of the rest."""

import logging

import numpy as np
import pytest
from PIL import Image

from shared.wsi import Slide
from shared.wsi.formats import UNREADABLE_FORMATS, image_suffixes
from shared.wsi.image_search import find_image_files

from .conftest import smooth_rgb
from .dicom_files import write_dicom_level


@pytest.fixture
def put(tmp_path):
    """Write an empty file below the folder `in` that is searched, or elsewhere."""

    def write(name, text=""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def names(folder, **options):
    return [path.relative_to(folder).as_posix() for path in find_image_files(folder, **options)]


def test_every_format_is_found_in_either_case(tmp_path, put):
    endings = sorted({*image_suffixes(), *UNREADABLE_FORMATS, ".ome.tif", ".ome.btf", ".ome.tf8"})
    wanted = sorted(f"{index:02d}{ending.upper() if index % 2 else ending}" for index, ending in enumerate(endings))
    for name in wanted:
        put(f"in/{name}")
    assert names(tmp_path / "in") == wanted


@pytest.mark.parametrize("suffix", sorted(UNREADABLE_FORMATS))
def test_a_format_that_is_not_read_is_an_error_and_not_its_preview(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(smooth_rgb(40, 30)).save(path, format="TIFF")
    with pytest.raises(
        ValueError, match=rf"a{suffix}: {UNREADABLE_FORMATS[suffix]} files \({suffix}\) are not supported: convert"
    ):
        Slide(path)


def test_the_rest_is_counted_by_its_ending(tmp_path, put, caplog):
    for name in ("a.svs", "b.txt", "sub/c.TXT", "sub/d.xml", "sub/.e.svs", ".f/g.svs", "h"):
        put(f"in/{name}")
    with caplog.at_level(logging.INFO):
        assert names(tmp_path / "in") == ["a.svs"]
    (record,) = caplog.records
    assert record.message == (
        f"{tmp_path / 'in'}: skipped 6 files that are not images: 2 .txt, 2 hidden, 1 .xml, 1 without ending"
    )


def test_nothing_is_said_where_nothing_is_passed_over(tmp_path, put, caplog):
    """The folders of MIRAX slides belong to them, and so do the pictures of a VMS slide."""
    for name in ("a.mrxs", "a/Slidedat.ini", "a/Data0000.dat", "a/Index.dat", "a/preview.png", "b-0.jpg", "b_map2.jpg"):
        put(f"in/{name}")
    put("in/b.vms", "[Virtual Microscope Specimen]\nImageFile=b-0.jpg\nMapFile=b_map2.jpg\nOptimisationFile=b.jpg\nNoFile=\n")
    with caplog.at_level(logging.INFO):
        assert names(tmp_path / "in") == ["a.mrxs", "b.vms"]
    assert not caplog.records


def test_the_folder_of_a_mirax_slide_without_its_file_is_a_slide_too(tmp_path, put):
    put("in/p 1.x/Slidedat.ini")
    (path,) = find_image_files(tmp_path / "in")
    assert path == tmp_path / "in" / "p 1.x.mrxs"
    with pytest.raises(ValueError, match=r"p 1\.x\.mrxs: there is no such file \(its folder .* is there: copy the \.mrxs"):
        Slide(path)


def test_what_was_converted_is_left_out(tmp_path, put, caplog):
    for name in ("a.vsi", "b.kfb", "c/Slidedat.ini", "d/A.ome.tif", "d/c.svs"):
        put(f"in/{name}")
    assert names(tmp_path / "in") == ["b.kfb", "d/A.ome.tif", "d/c.svs"]
    assert [record.message.partition("skipped ")[2] for record in caplog.records] == [
        f"{tmp_path / 'in' / name}, which is skipped: there is a slide of the same name" for name in ("a.vsi", "c.mrxs")
    ]


def test_folders_that_are_links_are_followed_once(tmp_path, put):
    put("in/z/own.svs")
    put("elsewhere/sub/far.svs")
    for name, target in {
        "in/a_loop": "../in",
        "in/a_own": "z",
        "in/far": "../elsewhere",
        "in/far_again": "../elsewhere/sub",
        "in/itself": "itself",
        "elsewhere/back": "../in/z",
    }.items():
        (tmp_path / name).symlink_to(target)
    put("in/z/linked_file_target.png")
    (tmp_path / "in/z/link.png").symlink_to("linked_file_target.png")
    # `itself` leads nowhere.
    assert names(tmp_path / "in") == ["far/sub/far.svs", "itself", "z/link.png", "z/linked_file_target.png", "z/own.svs"]


def test_links_to_nothing_are_images_that_cannot_be_opened(tmp_path, put, caplog):
    put("in/a.svs")
    for name in ("gone.svs", "unmounted", "notes.txt"):
        (tmp_path / "in" / name).symlink_to(f"/nowhere/{name}")
    assert names(tmp_path / "in") == ["a.svs", "gone.svs", "unmounted"]
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'in'}: skipped {tmp_path / 'in' / 'notes.txt'}, a link to /nowhere/notes.txt, which does not exist"
    ]
    with pytest.raises(ValueError, match=r"gone\.svs: there is no such file: it is a link to /nowhere/gone\.svs"):
        Slide(tmp_path / "in/gone.svs")


def test_results_and_the_excluded_folder_are_left_out(tmp_path, put, caplog):
    for name in (
        "in/a.png",
        "in/now/a.png",
        "in/maps/slides.csv",
        "in/maps/settings.json",
        "in/maps/rows/a.json",
        "in/maps/a.png",
    ):
        put(name)
    (tmp_path / "in/link_to_now").symlink_to("now")
    assert names(tmp_path / "in", exclude=tmp_path / "in/now") == ["a.png"]
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'in'}: skipped the results of an earlier run in {tmp_path / 'in/maps'}"
    ]


def test_a_folder_that_cannot_be_searched_is_named(tmp_path):
    with pytest.raises(ValueError, match="none cannot be searched"):
        find_image_files(tmp_path / "none")


def test_a_dicom_series_is_one_slide(tmp_path, put):
    level_0 = smooth_rgb(256, 256)
    folder = tmp_path / "in"
    put("in/no.dcm", "no DICOM")
    for slide in ("1", "2"):
        # The largest file stands behind the others.
        write_dicom_level(folder / f"b{slide}.dcm", level_0[::2, ::2], 1.0, f"1.2.9.{slide}", f"1.2.9.{slide}.2")
        write_dicom_level(folder / f"c{slide}.dcm", level_0, 0.5, f"1.2.9.{slide}", f"1.2.9.{slide}.1")
    (folder / "sub").mkdir()
    write_dicom_level(folder / "sub/a.dcm", level_0, 0.5, "1.2.9.3", "1.2.9.3.1")
    assert names(folder) == ["c1.dcm", "c2.dcm", "no.dcm", "sub/a.dcm"]
    with Slide(folder / "c1.dcm") as slide:
        assert (slide.backend, slide.size_px, slide.mpp, len(slide.level_sizes_px)) == ("openslide", (256, 256), 0.5, 2)
        np.testing.assert_array_equal(slide.read_region((30, 20), (100, 90)), level_0[20:110, 30:130])
