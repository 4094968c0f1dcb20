"""Which library is chosen, what is refused, and what the tags say about the pixel size."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from shared.wsi import Slide
from shared.wsi.readers import cucim_support

from .conftest import write_slide


@pytest.mark.cucim
@pytest.mark.parametrize("compression", ["none", "lzw", "deflate", "jpeg"])
def test_cucim_comes_first(compression, tmp_path, level_0):
    with Slide(write_slide(tmp_path / "slide.tif", [level_0], compression=compression)) as slide:
        assert slide.backend == "cucim"


@pytest.mark.parametrize(
    ("options", "backend"),
    [
        ({"compression": "deflate", "predictor": True}, "openslide"),  # ends cuCIM with a segmentation fault
        ({"compression": "zstd"}, "openslide"),
        ({"compression": "lzw", "tile": None}, "pillow"),
    ],
)
def test_what_cucim_cannot_read_goes_on(options, backend, tmp_path, level_0):
    slide = Slide(write_slide(tmp_path / "slide.tif", [level_0], **options))
    assert slide.backend == backend
    np.testing.assert_array_equal(slide.read_region((40, 30), (100, 90)), level_0[30:120, 40:140])


def test_forced_library_says_why_it_cannot(tmp_path, level_0):
    Image.fromarray(level_0).save(tmp_path / "tile.png")
    with pytest.raises(ValueError, match=r"tile\.png cannot be read \(cucim: cuCIM reads TIFF files only\)"):
        Slide(tmp_path / "tile.png", "cucim")
    with pytest.raises(ValueError, match=r"tile\.png cannot be read \(openslide: not a slide format"):
        Slide(tmp_path / "tile.png", "openslide")
    untiled = write_slide(tmp_path / "strips.tif", [level_0], tile=None)
    with pytest.raises(ValueError, match=r"strips\.tif cannot be read \(cucim: the TIFF is not tiled\)"):
        Slide(untiled, "cucim")
    with pytest.raises(ValueError, match="backend must be auto or one of cucim, openslide, pillow; got 'vips'"):
        Slide(untiled, "vips")


@pytest.mark.parametrize("backend", ["auto", "cucim", "openslide", "pillow"])
def test_broken_slide_is_refused_on_opening(backend, wsi_test_data, capfd):
    with pytest.raises(ValueError, match=r"broken\.svs cannot be read .* convert it"):
        Slide(wsi_test_data / "slides/broken.svs", backend)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("share", [0.3, 0.99])
@pytest.mark.parametrize("backend", ["auto", "cucim", "openslide"])
def test_cut_slide_is_refused_on_opening(share, backend, pyramid, tmp_path):
    whole = pyramid.read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"cut\.tif"):
        Slide(tmp_path / "cut.tif", backend)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "no.svs", tmp_path):
        with pytest.raises(ValueError, match=f"{path}: there is no such file"):
            Slide(path)


def test_cut_png_is_refused_on_reading(tmp_path, level_0):
    Image.fromarray(level_0).save(tmp_path / "tile.png")
    (tmp_path / "tile.png").write_bytes((tmp_path / "tile.png").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"tile\.png"):
        Slide(tmp_path / "tile.png").read_region((0, 0), 10)


def test_cucim_is_not_imported_where_it_would_spin(tmp_path, monkeypatch):
    monkeypatch.setattr(cucim_support, "torch_cuda_version", lambda: "13.0")
    assert "never returns" in cucim_support.cucim_host_problem(proc_modules=tmp_path / "absent")
    assert cucim_support.cucim_host_problem(proc_modules=tmp_path) is None
    monkeypatch.setattr(cucim_support, "torch_cuda_version", lambda: None)
    assert cucim_support.cucim_host_problem(proc_modules=tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("cuda: Optional[str] = '13.0'", "13.0"),
        ("cuda = '12.8'", "12.8"),
        ("cuda: Optional[str] = None", None),
        ("cuda_x = '1.0'\nhip: Optional[str] = '6.0'", None),
    ],
)
def test_cuda_version_is_read_from_torchs_files(line, version, tmp_path, monkeypatch):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise RuntimeError('must not be imported')")
    (tmp_path / "torch/version.py").write_text(f"__version__ = '2.13.0'\n{line}\n")
    spec = cucim_support.importlib.util.spec_from_file_location("torch", tmp_path / "torch/__init__.py")
    monkeypatch.setattr(cucim_support.importlib.util, "find_spec", lambda name: spec)
    assert cucim_support.torch_cuda_version() == version


def test_without_cucim_openslide_reads_and_one_warning_is_given(pyramid, monkeypatch):
    monkeypatch.setattr(cucim_support, "cucim_host_problem", lambda: "cuCIM is not installed")
    cucim_support.usable_cucim_problem.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="read with OpenSlide: cuCIM is not installed") as warnings:
            assert [Slide(pyramid).backend, Slide(pyramid).backend] == ["openslide", "openslide"]
        assert len(warnings) == 1
        with pytest.raises(ValueError, match="cucim: cuCIM is not installed"):
            Slide(pyramid, "cucim")
    finally:
        cucim_support.usable_cucim_problem.cache_clear()


APERIO = "Aperio Image Library v11.2.1\n517x301 (64x64) LZW|AppMag = 20|MPP = 0.4990|Left = 25.6"
OME = {
    "axes": "YXS",
    "PhysicalSizeX": 250.0,
    "PhysicalSizeXUnit": "nm",
    "PhysicalSizeY": 0.25,
    "PhysicalSizeYUnit": "µm",
}


@pytest.mark.parametrize("backend", ["cucim", "openslide"])
@pytest.mark.parametrize(
    ("options", "mpp"),
    [
        ({"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}, 0.25),
        ({"resolution": (101600, 101600), "resolutionunit": "INCH"}, 0.25),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),  # a screen's
        ({"resolution": (28, 28), "resolutionunit": "CENTIMETER"}, None),  # the same screen's
        ({"resolution": (40000, 40000), "resolutionunit": "NONE"}, None),
        ({}, None),
        ({"description": APERIO, "metadata": None}, 0.499),
        ({"description": APERIO, "metadata": None, "resolution": (96, 96), "resolutionunit": "INCH"}, 0.499),
    ],
)
def test_mpp_of_the_vendors_tags(backend, options, mpp, tmp_path, level_0):
    tifffile.imwrite(tmp_path / "slide.tif", level_0, photometric="rgb", tile=(64, 64), compression="lzw", **options)
    slide = Slide(tmp_path / "slide.tif", backend)
    assert slide.has_mpp == (mpp is not None)
    if mpp is not None:
        assert slide.mpp == pytest.approx(mpp, rel=1e-4)


def test_mpp_of_ome_xml(tmp_path, level_0):
    tifffile.imwrite(tmp_path / "slide.ome.tif", level_0, photometric="rgb", tile=(64, 64), metadata=OME)
    assert Slide(tmp_path / "slide.ome.tif").mpp == pytest.approx(0.25)


def test_sides_that_differ_are_refused_unless_the_caller_knows(tmp_path, level_0):
    path = write_slide(tmp_path / "slide.tif", [level_0], mpp=None, resolution=(40000, 20000), resolutionunit=3)
    with pytest.raises(ValueError, match=r"slide\.tif: its pixels are 0.25 x 0.5 um, not square; pass mpp"):
        Slide(path)
    assert Slide(path, mpp=0.3).mpp == 0.3


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_no_mpp_is_an_error_only_when_it_is_needed(suffix, tmp_path, level_0):
    path = tmp_path / f"slide.{suffix}"
    if suffix == "tif":
        write_slide(path, [level_0], mpp=None)
    else:
        Image.fromarray(level_0).save(path)
    slide = Slide(path)
    assert not slide.has_mpp
    np.testing.assert_array_equal(slide.read_region((0, 0), 30), level_0[:30, :30])
    message = rf"slide\.{suffix} does not state .* pass mpp=\.\.\. .* or fill the manifest's `mpp` column"
    with pytest.raises(ValueError, match=message):
        _ = slide.mpp
    with pytest.raises(ValueError, match=message):
        slide.read_region((0, 0), 30, mpp=0.5)
    assert Slide(path, mpp=0.5).read_region((0, 0), 30, mpp=1.0).shape == (30, 30, 3)


@pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan")])
def test_rejects_impossible_mpp(mpp, pyramid):
    with pytest.raises(ValueError, match=f"mpp must be a positive number .* got {mpp}"):
        Slide(pyramid, mpp=mpp)
    with pytest.raises(ValueError, match=f"mpp must be a positive number .* got {mpp}"):
        Slide(pyramid).read_region((0, 0), 8, mpp=mpp)


def test_rejects_impossible_sizes_and_positions(pyramid):
    slide = Slide(pyramid)
    with pytest.raises(ValueError, match=r"at least one pixel, got size_px=\(0, 5\)"):
        slide.read_region((0, 0), (0, 5))
    with pytest.raises(ValueError, match=r"positions must be \(n, 2\), x and y; got shape \(1, 3\)"):
        slide.read_regions([(1, 2, 3)], 8)
    with pytest.raises(ValueError, match="max_size_px=0"):
        slide.thumbnail(0)


def test_mpp_of_real_slides(wsi_test_data):
    assert Slide(wsi_test_data / "slides/cmu-1-small-region.svs").mpp == pytest.approx(0.499)
    assert Slide(wsi_test_data / "mosaic_slides/slides/tumor_000.tif").mpp == pytest.approx(0.5)
    assert not Slide(wsi_test_data / "slides/tcga-cr-7395-01a-01-ts1.svs").has_mpp
