"""What stands among a slide's levels without being a smaller copy of it is left out; real pyramids keep all of theirs."""

import functools
import logging

import numpy as np
import pytest
import tifffile
from PIL import Image

from shared.wsi import Slide, pyramid_check

from .conftest import smooth_rgb, write_slide

BACKENDS = pytest.mark.parametrize("backend", ["cucim", "openslide"])
SIZE = (900, 600)


def smaller(image, size_px):
    return np.asarray(Image.fromarray(image).resize(size_px, Image.Resampling.BOX))


def padded(image, size_px):
    """On white, as where a level is filled up to whole tiles."""
    whole = np.full((size_px[1], size_px[0], 3), 255, np.uint8)
    whole[: image.shape[0], : image.shape[1]] = image
    return whole


@functools.cache
def tissue_slide(seed=0):
    """(600, 900) pixels: structure of many sizes in two places of a white slide."""
    image = np.full((SIZE[1], SIZE[0], 3), 245, np.uint8)
    structure = np.mean([smooth_rgb(*SIZE, seed=seed + sigma, sigma=sigma) for sigma in (2, 8, 30)], axis=0)
    for part in (np.s_[80:300, 100:380], np.s_[250:560, 500:860]):
        image[part] = structure[part]
    image.flags.writeable = False
    return image


@pytest.fixture
def levels():
    image = tissue_slide()
    return [image, smaller(image, (450, 300)), smaller(image, (225, 150))]


# Where it stands in the pyramid, and what it is.
FOREIGN = {
    "another picture": (1, lambda image: smaller(tissue_slide(seed=50)[::-1], (450, 300))),
    "another picture as the last": (2, lambda image: smaller(tissue_slide(seed=50)[::-1], (225, 150))),
    "padded": (1, lambda image: padded(smaller(image, (450, 300)), (512, 512))),
    "padded in one ratio": (1, lambda image: padded(smaller(image, (450, 300)), (600, 400))),
    "turned": (1, lambda image: smaller(image[::-1, ::-1], (450, 300))),
    "blank": (2, lambda image: np.full((150, 225, 3), 245, np.uint8)),
    "a photo of the whole glass": (2, lambda image: padded(smaller(image, (80, 53)), (225, 150))),
}


@BACKENDS
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_level_that_is_no_copy_is_left_out(kind, backend, levels, tmp_path, caplog):
    index, made = FOREIGN[kind]
    level = made(levels[0])
    path = write_slide(tmp_path / "slide.tif", [*levels[:index], level, *levels[index + 1 :]], mpp=0.5)
    with caplog.at_level(logging.WARNING):
        slide = Slide(path, backend)
    kept = [one for number, one in enumerate(levels) if number != index]
    assert slide.level_sizes_px == tuple((one.shape[1], one.shape[0]) for one in kept)
    (message,) = caplog.messages
    assert str(path) in message
    assert f"level {index} ({level.shape[1]} x {level.shape[0]} px)" in message
    # The levels that are left are read under the library's own numbers.
    assert np.abs(slide.thumbnail(225) - levels[2].astype(int)).mean() < 2


@BACKENDS
def test_a_slide_is_warned_about_once(backend, levels, tmp_path, caplog):
    path = write_slide(tmp_path / "slide.tif", [levels[0], padded(levels[1], (512, 512)), levels[2]])
    with caplog.at_level(logging.WARNING):
        sizes = {Slide(path, backend).level_sizes_px for _ in range(3)}
    assert sizes == {(SIZE, (225, 150))}
    assert len(caplog.messages) == 1


@BACKENDS
@pytest.mark.parametrize("quality", [20, 95])
def test_jpeg_of_another_quality_is_the_same_picture(quality, backend, levels, tmp_path, caplog):
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate(levels):
            compression = {"compression": "jpeg", "compressionargs": {"level": quality if number else 90}}
            tiff.write(level, photometric="rgb", tile=(128, 128), subfiletype=min(number, 1), metadata=None, **compression)
    assert len(Slide(path, backend).level_sizes_px) == 3
    assert not caplog.messages


@BACKENDS
@pytest.mark.slow
def test_small_tissue_on_much_glass_and_empty_glass_keep_their_levels(backend, tmp_path, caplog):
    noise = np.random.default_rng(0).normal(243, 2, (2400, 3000, 3)).clip(0, 255).astype(np.uint8)
    needle = noise.copy()
    needle[1700:1760, 400:1500] = smooth_rgb(1100, 60)
    for name, image in (("glass", noise), ("needle", needle)):
        levels = [image, smaller(image, (750, 600)), smaller(image, (187, 150))]
        assert len(Slide(write_slide(tmp_path / f"{name}.tif", levels), backend).level_sizes_px) == 3
    assert not caplog.messages
    # The needle's other levels are left out where they show no needle.
    levels = [needle, smaller(noise, (750, 600)), smaller(needle, (187, 150))]
    assert Slide(write_slide(tmp_path / "lost.tif", levels), backend).level_sizes_px == ((3000, 2400), (187, 150))


@BACKENDS
def test_levels_that_cannot_be_compared_are_kept(backend, levels, tmp_path):
    path = write_slide(tmp_path / "slide.tif", levels, compression="jpeg")
    with tifffile.TiffFile(path) as tiff:
        spans = list(zip(tiff.pages[1].dataoffsets, tiff.pages[1].databytecounts, strict=True))
    content = bytearray(path.read_bytes())
    for start, length in spans[1:]:
        content[start : start + length] = bytes(length)
    path.write_bytes(content)
    slide = Slide(path, backend)
    assert len(slide.level_sizes_px) == 3
    with pytest.raises(ValueError, match=r"slide\.tif: level 1 cannot be read"):
        slide.read_region((200, 200), 100, mpp=0.5)
    assert slide.read_region((200, 200), 100, mpp=0.25).shape == (100, 100, 3)


def test_a_slide_that_is_opened_again_is_not_compared_again(levels, tmp_path, monkeypatch):
    path = write_slide(tmp_path / "slide.tif", levels)
    Slide(path)
    monkeypatch.setattr(pyramid_check, "_show_the_same", None)
    assert len(Slide(path).level_sizes_px) == 3


@pytest.mark.parametrize("name", ["slides/tcga-cr-7395-01a-01-ts1.svs", "mosaic_slides/slides/tumor_000.tif"])
@BACKENDS
def test_real_slides_keep_their_levels(name, backend, wsi_test_data, caplog):
    assert len(Slide(wsi_test_data / name, backend, mpp=0.5).level_sizes_px) in (2, 4)
    assert not caplog.messages
