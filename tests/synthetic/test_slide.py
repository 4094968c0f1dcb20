import subprocess
import sys

import numpy as np
import openslide
import pytest

from shared.synthetic import synthesize_slide, write_slide

SIZE_PX = (1210, 1570)


@pytest.fixture(scope="module")
def slide():
    return synthesize_slide(5, 0.2, SIZE_PX)


@pytest.fixture(scope="module")
def slide_file(slide, tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    write_slide(path, slide.image)
    return path


def test_same_seed_same_bytes(slide, slide_file, tmp_path):
    again = synthesize_slide(5, 0.2, SIZE_PX)
    for first, second in zip(slide, again, strict=True):
        np.testing.assert_array_equal(first, second)
    write_slide(tmp_path / "again.tif", again.image)
    assert (tmp_path / "again.tif").read_bytes() == slide_file.read_bytes()


def test_truth(slide):
    assert slide.image.shape == (*SIZE_PX, 3)
    assert slide.tumour.shape == slide.tissue.shape == SIZE_PX
    assert not (slide.tumour & ~slide.tissue).any()
    assert slide.tumour.sum() / slide.tissue.sum() == pytest.approx(0.2, abs=1e-5)


def test_normal_slide_has_no_tumour():
    assert not synthesize_slide(6, 0.0, (700, 930)).tumour.any()


def test_glass_is_bright_and_all_around(slide):
    border = np.ones(SIZE_PX, np.bool_)
    border[10:-10, 10:-10] = False
    assert not slide.tissue[border].any()
    assert np.median(slide.image[~slide.tissue], axis=0).min() > 220
    assert slide.image[slide.tissue].mean() < 215
    assert 0.15 < slide.tissue.mean() < 0.8


def test_fold_darkens_tissue_and_pen_covers_glass():
    plain, folded, marked = (
        synthesize_slide(9, 0.1, (900, 1100), with_fold=fold, with_pen=pen).image.astype(int).mean(axis=-1)
        for fold, pen in ((False, False), (True, False), (False, True))
    )
    tissue = synthesize_slide(9, 0.1, (900, 1100)).tissue
    assert ((plain - folded > 20) & tissue).sum() > 1000
    assert ((plain - marked > 60) & ~tissue).sum() > 1000
    # Truth and everything else are the same.
    assert (plain != folded).mean() < 0.15
    assert (plain != marked).mean() < 0.2


def test_file_opens_in_openslide_with_all_levels_and_mpp(slide, slide_file):
    with openslide.OpenSlide(str(slide_file)) as opened:
        assert opened.level_dimensions == ((1570, 1210), (785, 605))
        assert float(opened.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        assert float(opened.properties["openslide.mpp-y"]) == pytest.approx(0.5)
        level0 = np.asarray(opened.read_region((0, 0), 0, (1570, 1210)))[..., :3]
        level1 = np.asarray(opened.read_region((0, 0), 1, (785, 605)))[..., :3]
    assert np.abs(level0.astype(int) - slide.image).mean() < 6, "JPEG, right colours"
    halved = slide.image[:1210, :1570].reshape(605, 2, 785, 2, 3).mean(axis=(1, 3))
    assert np.abs(level1 - halved).mean() < 6


@pytest.mark.cucim
def test_file_opens_in_cucim_with_all_levels(slide_file):
    """In a separate process, with a limit: cuCIM can spin for ever on hosts without /proc/modules."""
    code = (
        "import sys; from cucim import CuImage; image = CuImage(sys.argv[1]);"
        "print(image.resolutions['level_dimensions'], image.spacing()[:2])"
    )
    command = [sys.executable, "-c", code, str(slide_file)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert run.stdout.strip().splitlines()[-1] == "((1570, 1210), (785, 605)) [0.5, 0.5]"


def test_odd_sizes_and_other_mpp(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (2111, 1333, 3), dtype=np.uint8)
    write_slide(tmp_path / "odd.tif", image, mpp=0.25)
    with openslide.OpenSlide(str(tmp_path / "odd.tif")) as opened:
        assert opened.level_dimensions == ((1333, 2111), (666, 1055))
        assert float(opened.properties["openslide.mpp-x"]) == pytest.approx(0.25)
    assert [path.name for path in tmp_path.iterdir()] == ["odd.tif"], "no temporary file is left"


def test_rejects_what_is_no_image(tmp_path):
    with pytest.raises(ValueError, match=r"got float64 \(4, 4\)"):
        write_slide(tmp_path / "slide.tif", np.zeros((4, 4)))
    assert not list(tmp_path.iterdir())
