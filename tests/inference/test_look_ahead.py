"""Slides that are opened while another is computed."""

import threading
import time

import numpy as np
import pytest
import tifffile
from PIL import Image

from shared.inference import ImageInput, SlideMapper, find_images, run_cohort
from shared.inference.look_ahead import LookAhead
from tests.inference.flat_options import grouped

SETTINGS = {"tile_size_px": 64, "margin_px": 0, "min_area_um2": 0.0, "tissue_only": False, "amp": False, "device": "cpu"}


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name in "abcd":
        _write(tmp_path / "images" / f"{name}.png", rng)
    return find_images(tmp_path / "images")


def _write(path, rng):
    # In blocks of 8 px: a map with regions, not noise.
    Image.fromarray(np.kron(rng.integers(0, 256, (20, 20, 3), np.uint8), np.ones((8, 8, 1), np.uint8))).save(path)


def _maps(folder):
    return {path.name: tifffile.imread(path) for path in folder.glob("*.ome.tif")}


def test_a_cohort_is_mapped_as_each_image_alone(tmp_path, images, redness):
    run_cohort(SlideMapper(redness, **grouped(**SETTINGS)), images, tmp_path / "cohort")
    (tmp_path / "alone").mkdir()
    for image in images:
        SlideMapper(redness, **grouped(**SETTINGS)).map_image(image, tmp_path / "alone")
    alone, cohort = _maps(tmp_path / "alone"), _maps(tmp_path / "cohort")
    assert sorted(alone) == sorted(cohort) == [f"{name}.ome.tif" for name in "abcd"]
    for name, pixels in alone.items():
        np.testing.assert_array_equal(cohort[name], pixels)
        assert 0 < pixels.mean() < 255


def test_the_next_image_is_open_before_this_one_is_done(tmp_path, images, redness):
    openings, threads_before = [], set(threading.enumerate())

    class Watched(SlideMapper):
        def _open_slide(self, image):
            opened = super()._open_slide(image)
            openings.append((image.name, threading.current_thread().name.startswith("look-ahead")))
            return opened

        def compute_image(self, image, output_dir, title=""):
            following = chr(ord(image.name) + 1)
            deadline = time.monotonic() + 300
            # This one is not begun before the next is ready, so it must have been opened meanwhile.
            while following in "abcd" and following not in dict(openings) and time.monotonic() < deadline:
                time.sleep(0.01)
            return super().compute_image(image, output_dir, title)

    assert len(run_cohort(Watched(redness, **grouped(**SETTINGS)), images, tmp_path / "out")) == 4
    assert dict(openings) == {"a": False, "b": True, "c": True, "d": True}
    assert len(openings) == 4
    assert not [one for one in set(threading.enumerate()) - threads_before if one.name.startswith("read-ahead")]


def test_a_file_that_has_changed_meanwhile_is_read_again(tmp_path, images, redness):
    mapper = SlideMapper(redness, **grouped(**SETTINGS))
    mapper.prepare(images[0])
    assert mapper._look_ahead._begun[0].opened.result(300).wanted.all()
    rng = np.random.default_rng(1)
    _write(images[0].path, rng)
    mapper.map_image(images[0], tmp_path)
    SlideMapper(redness, **grouped(**SETTINGS)).map_image(ImageInput(images[0].path, "now"), tmp_path)
    maps = _maps(tmp_path)
    np.testing.assert_array_equal(maps["a.ome.tif"], maps["now.ome.tif"])


def test_an_image_that_cannot_be_opened_fails_where_it_is_mapped(tmp_path, images, redness):
    images[1].path.write_bytes(b"no picture")
    mapper = SlideMapper(redness, **grouped(**SETTINGS))
    mapper.prepare(images[1])
    mapper.map_image(images[0], tmp_path)
    with pytest.raises(ValueError, match=r"b\.png"):
        mapper.map_image(images[1], tmp_path)


def test_what_is_never_taken_is_closed(images, redness):
    mapper = SlideMapper(redness, **grouped(**SETTINGS))
    opened = []

    def open_slide(image):
        opened.append(mapper._open_slide(image))
        return opened[-1]

    ahead = LookAhead(open_slide)
    for image in images[:3]:
        ahead.begin(image)
        ahead._begun[-1].opened.result(300)
    assert [slide.slide._reader is None for slide in opened] == [True, False, False]
    with ahead.take(images[1]) as taken:
        assert taken is opened[1]
    assert [begun.image.name for begun in ahead._begun] == ["c"]
    with ahead.take(images[2]):
        pass
    assert all(slide.slide._reader is None for slide in opened)
