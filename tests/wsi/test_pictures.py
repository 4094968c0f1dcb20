"""The slide or an error: never another picture of the file, nor samples that only look like a photo."""

import numpy as np
import PIL
import pytest
import tifffile
from PIL import Image

from shared.wsi import Slide

from .conftest import smooth_rgb

LABEL = smooth_rgb(60, 40)
SLIDE = smooth_rgb(320, 256, seed=1)
TILES = [pytest.param((64, 64), id="tiled"), pytest.param(None, id="strips")]


def write_pages(path, *pages, **options):
    with tifffile.TiffWriter(path, ome=path.name.endswith(".ome.tif")) as tiff:
        for page in pages:
            tiff.write(page, **{"photometric": "rgb", "metadata": None if not tiff._omexml else {}} | options)
    return path


def write_bif(path):
    """What OpenSlide takes for Ventana's, with a label first, and refuses: it says nothing of its regions."""
    scan = b'<?xml version="1.0"?><Metadata><iScan Magnification="20" ScanRes="0.465" UnitNumber="1"/></Metadata>'
    regions = b'<?xml version="1.0"?><EncodeInfo Ver="2"><SlideInfo><ServerDirectory/></SlideInfo></EncodeInfo>'
    with tifffile.TiffWriter(path) as tiff:
        for page, description, xmp, tile in (
            (LABEL, "Label Image", scan, None),
            (SLIDE, "level=0 mag=20 quality=95", regions, (64, 64)),
        ):
            tags = [(700, "B", len(xmp), xmp, False)]
            tiff.write(page, photometric="rgb", tile=tile, description=description, metadata=None, extratags=tags)
    return path


@pytest.mark.parametrize("suffix", ["bif", "tif"])
def test_a_slide_that_openslide_refuses_is_not_its_label(suffix, tmp_path):
    with pytest.raises(ValueError, match=rf"a\.{suffix} .*openslide: Missing or inconsistent region metadata; pillow: not tried"):
        Slide(write_bif(tmp_path / f"a.{suffix}"))


@pytest.mark.parametrize("suffix", ["svs", "ndpi", "scn", "vms", "vmu", "czi", "dcm", "bif", "svslide", "qptiff"])
def test_a_picture_with_the_ending_of_a_slide_is_none(suffix, tmp_path):
    """Such as the preview or the label that is left of a slide whose directory was cut off."""
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(LABEL).save(path, format="TIFF")
    with pytest.raises(ValueError, match=rf"a\.{suffix} cannot be read .*instead of the slide"):
        Slide(path)


def test_the_missing_folder_of_a_mirax_slide_is_named(tmp_path):
    path = tmp_path / "a b.mrxs"
    Image.fromarray(LABEL).save(path, format="JPEG")
    with pytest.raises(ValueError, match=rf"a b\.mrxs: the folder {tmp_path / 'a b'} is missing"):
        Slide(path)
    (tmp_path / "a b").mkdir()
    with pytest.raises(ValueError, match=rf"Slidedat\.ini is missing in the folder {tmp_path / 'a b'}"):
        Slide(path)
    (tmp_path / "a b" / "Slidedat.ini").write_text("[GENERAL]\n")
    with pytest.raises(ValueError, match=r"a b\.jpg: the folder .* contains a MIRAX slide, so this is its preview"):
        Slide(path.rename(tmp_path / "a b.jpg"))
    with pytest.raises(ValueError, match=rf"no such file \(its folder {tmp_path / 'a b'} is there"):
        Slide(path)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
@pytest.mark.parametrize("backend", ["auto", "pillow", "openslide", "cucim"])
def test_a_first_page_that_is_smaller_is_not_the_slide(name, tile, backend, tmp_path):
    path = write_pages(tmp_path / name, LABEL, SLIDE, tile=tile)
    with pytest.raises(ValueError, match=rf"{name} cannot be read") as caught:
        Slide(path, backend)
    if backend == "auto":
        assert "60 x 40 px, such as a label or a thumbnail, and the file contains one of 320 x 256 px" in str(caught.value)
    with Slide(write_pages(tmp_path / f"first{name}", SLIDE, LABEL, tile=tile)) as slide:
        assert slide.size_px == (320, 256)


@pytest.mark.parametrize("tile", TILES)
def test_a_slide_that_hangs_on_its_thumbnail_is_not_the_thumbnail(tile, tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(LABEL, photometric="rgb", tile=tile, subifds=1, metadata=None)
        tiff.write(SLIDE, photometric="rgb", tile=tile, metadata=None)
    with pytest.raises(ValueError, match="the file contains one of 320 x 256 px"):
        Slide(tmp_path / "a.tif")


def test_a_macro_photo_in_a_damaged_slide_is_not_the_slide(tmp_path):
    """Leica's, whose XML is not closed: OpenSlide takes it for any TIFF, and tifffile for none."""
    xml = b'<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection></scn>'
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for page, description in ((LABEL, xml), (SLIDE, None)):
            tiff.write(page, photometric="rgb", tile=(64, 64), description=description, metadata=None)
    with pytest.raises(ValueError, match="the file contains one of 320 x 256 px"):
        Slide(tmp_path / "a.tif")


def test_a_file_that_ends_before_its_second_page_is_cut(tmp_path):
    path = write_pages(tmp_path / "a.tif", LABEL, SLIDE)
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages[1].offset
        end = max(offset + count for offset, count in zip(tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts, strict=True))
    whole = path.read_bytes()
    assert end <= start
    path.write_bytes(whole[:start])
    with pytest.raises(ValueError, match=r"a\.tif: the file is truncated"):
        Slide(path)


def test_pictures_of_the_same_size_are_warned_about_once(tmp_path, caplog):
    path = write_pages(tmp_path / "a.tif", SLIDE, SLIDE)
    for _ in range(2):
        Slide(path).close()
    assert [record.message for record in caplog.records] == [f"{path} holds 2 pictures of the same size: only the first is read"]


CHANNELS = np.ascontiguousarray(SLIDE.transpose(2, 0, 1))


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(
    ("pixels", "options", "reason"),
    [
        pytest.param(SLIDE.astype(np.uint16) * 16, {}, r"16-bit samples, but none .* \(12 bits in 16", id="12 in 16"),
        pytest.param(
            np.dstack([SLIDE.astype(np.uint16) * 16, np.full(SLIDE.shape[:2], 65535, np.uint16)]),
            {"extrasamples": ["unassalpha"]},
            r"\(12 bits in 16",
            id="12 in 16 with alpha",
        ),
        pytest.param(SLIDE.astype(np.float32) / 255, {}, "32-bit samples .float", id="float"),
        pytest.param((SLIDE // 2).astype(np.int8), {}, "8-bit samples .signed integer", id="signed"),
        pytest.param(SLIDE.astype(np.uint32), {}, "32-bit samples", id="32 bits"),
        pytest.param(CHANNELS, {"photometric": "minisblack"}, "holds 3 grey-scale pictures of 320 x 256", id="channels"),
        pytest.param(
            CHANNELS,
            {"photometric": "minisblack", "planarconfig": "separate"},
            "3 samples per pixel, stored as MINISBLACK",
            id="planes",
        ),
        pytest.param(SLIDE, {"photometric": "minisblack", "planarconfig": "contig"}, "3 samples per pixel", id="no colours"),
    ],
)
def test_samples_that_are_no_photo_are_refused(pixels, options, reason, tile, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=tile, **({"photometric": "rgb"} | options))
    with pytest.raises(ValueError, match=rf"a\.tif cannot be read.*{reason}"):
        Slide(tmp_path / "a.tif").read_region((0, 0), 8)


def test_channels_of_ome_tiff_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", CHANNELS, photometric="minisblack", tile=(64, 64), metadata={"axes": "CYX"})
    with pytest.raises(ValueError, match="holds 3 grey-scale pictures of 320 x 256 px, such as channels"):
        Slide(tmp_path / "a.ome.tif")


def test_png_of_12_bits_in_16_is_refused(tmp_path):
    from imagecodecs import png_encode

    for name, pixels in {
        "rgb": SLIDE.astype(np.uint16) * 16,
        "rgba": np.dstack([SLIDE, SLIDE[..., :1]]).astype(np.uint16) * 16,
    }.items():
        (tmp_path / f"{name}.png").write_bytes(png_encode(pixels))
        with pytest.raises(ValueError, match=rf"{name}\.png cannot be read: it has 16-bit samples"):
            Slide(tmp_path / f"{name}.png").read_region((0, 0), 8)
    (tmp_path / "full.png").write_bytes(png_encode(SLIDE.astype(np.uint16) * 257))
    np.testing.assert_array_equal(Slide(tmp_path / "full.png").read_region((3, 4), (9, 8)), SLIDE[4:12, 3:12])


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("kind", ["grey", "white is 0", "palette", "planes", "16 bits"])
def test_photos_of_other_kinds_are_right(kind, tile, tmp_path):
    grey = SLIDE[..., 1]
    pixels, options, expected = {
        "grey": (grey, {"photometric": "minisblack"}, np.dstack([grey] * 3)),
        "white is 0": (255 - grey, {"photometric": "miniswhite"}, np.dstack([grey] * 3)),
        "palette": (grey, {"photometric": "palette", "colormap": _colour_map()}, _colour_map().T[grey] // 257),
        "planes": (CHANNELS, {"photometric": "rgb", "planarconfig": "separate"}, SLIDE),
        "16 bits": (SLIDE.astype(np.uint16) * 257, {"photometric": "rgb"}, SLIDE),
    }[kind]
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=tile, **options)
    np.testing.assert_array_equal(Slide(tmp_path / "a.tif").read_region((30, 20), (100, 90)), expected[20:110, 30:130])


@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
@pytest.mark.parametrize("tile", TILES)
def test_colours_stored_as_ycbcr_are_those_of_the_photo(tile, compression, tmp_path):
    """Without JPEG, whose decoders give RGB."""
    if tile is None and compression is None and int(PIL.__version__.partition(".")[0]) < 13:
        pytest.skip("Pillow takes such a file for a truncated one before version 13")
    stored = np.asarray(Image.fromarray(SLIDE).convert("YCbCr"))
    options = {"photometric": "ycbcr", "subsampling": (1, 1), "compression": compression, "tile": tile}
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    np.testing.assert_allclose(Slide(tmp_path / "a.tif").read_region((0, 0), (320, 256)).astype(int), SLIDE, atol=3)


def _colour_map():
    values = np.arange(256, dtype=np.uint16)
    return np.stack([values, 255 - values, values // 2]) * np.uint16(257)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(
    ("compression", "name"),
    [("webp", "WEBP .50001"), ("jpegxl", "JPEGXL .50002"), ("lerc", "LERC .34887"), ("png", "PNG .34933")],
)
def test_an_unsupported_compression_is_named(compression, name, tile, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", SLIDE, photometric="rgb", tile=tile, compression=compression)
    with pytest.raises(ValueError, match=rf"a\.tif.*he file is sound, but its compression {name}. is not supported") as caught:
        Slide(tmp_path / "a.tif").read_region((0, 0), 8)
    assert "complete" not in str(caught.value)
