"""Features of TRIDENT, CLAM and STAMP are read as they are, and ours by their loaders.

Their files are written here as those programs write them, and ours read with the lines by which they read; so these tests need
none of them.
"""

import h5py
import numpy as np
import pytest

from shared.features import CellFrame, SlideFeatures, SlideFeatureWriter, link_for_stamp
from shared.wsi import Slide
from shared.wsi.notices import warn_once

CORNERS = np.array([[512, 256], [768, 256], [512, 512], [1280, 1024]])
VECTORS = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


@pytest.mark.parametrize("has_first_axis", [False, True])
def test_trident(write_h5, has_first_axis):
    vectors, corners = (VECTORS[None], CORNERS[None]) if has_first_axis else (VECTORS, CORNERS)
    # As `coords_to_h5` and `extract_features` write them: patches of 256 px at 20x of a slide scanned at 40x.
    said = {"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40, "target_magnification": 20, "overlap": 128}
    said |= {"name": "a", "savetodir": "there", "level0_width": 4000, "level0_height": 3000}
    path = write_h5({"features": vectors, "coords": corners}, {"coords": said, "features": {"encoder": "uni_v1"}})
    with SlideFeatures.open(path) as features:
        assert (features.convention, features.encoder_name, features.encoder_key) == ("TRIDENT", "uni_v1", None)
        assert (features.patch_px, features.stride_px, features.mpp, features.slide_mpp) == (512, 256, 0.5, 0.25)
        np.testing.assert_array_equal(features.read(), VECTORS.astype(np.float16))
        np.testing.assert_array_equal(features.read([3, 0]), VECTORS[[3, 0]].astype(np.float16))
        np.testing.assert_array_equal(features.coords, CORNERS)
        np.testing.assert_array_equal(features.grid, (CORNERS // 256)[:, ::-1])


@pytest.mark.parametrize(
    ("slide_mpp", "level0", "magnification", "is_warned"),
    [(0.345, 256, 20, True), (0.45, 256, 20, False), (0.2325, 512, 40, False), (0.252, 512, 40, False)],
)
def test_a_magnification_that_is_not_the_slide_s_is_warned_of_once(
    write_h5, slide_path, caplog, slide_mpp, level0, magnification, is_warned
):
    """TRIDENT calls pixels of 0.3 to 0.6 um 20x, and cuts patches of 256 px for 20x from them as they are."""
    warn_once.cache_clear()
    said = {"patch_size": 256, "patch_size_level0": level0, "level0_magnification": magnification, "target_magnification": 20}
    for name in ("a.h5", "b.h5"):
        path = write_h5({"features": VECTORS[:2], "coords": [[0, 0], [256, 0]]}, {"coords": said}, name)
        with SlideFeatures.open(path, slide_mpp) as features, Slide(slide_path, mpp=slide_mpp) as slide:
            assert features.true_mpp == pytest.approx(slide_mpp * level0 / 256)
            features.check(slide)
    warnings = [record.message for record in caplog.records if "its files of" in record.message]
    assert len(warnings) == is_warned
    if is_warned:
        assert f"{path.parent}: its files of TRIDENT state 0.5 um per pixel" in warnings[0]
        assert "some had 0.34 um, whose tissue looks larger to it: leave such slides out" in warnings[0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [1e5, -1e5, np.nan, np.inf])
def test_numbers_that_half_precision_cannot_hold_are_refused(write_h5, value):
    vectors = np.ones((4, 6), np.float32)
    vectors[2, 3] = value
    vectors[3] = 65504
    with SlideFeatures.open(write_h5({"features": vectors, "coords": CORNERS}, {})) as features:
        for indices, number in ((None, 4), ([0, 2, 3], 3)):
            with pytest.raises(
                ValueError, match=rf"other\.h5 contains features .* found larger ones or NaN in 1 of {number} patches"
            ):
                features.read(indices)
        np.testing.assert_array_equal(features.read([3, 0]), vectors[[3, 0]])


@pytest.mark.parametrize("shape", [(0,), (0, 6)])
def test_trident_without_patches(write_h5, shape):
    path = write_h5(
        {"features": np.empty(shape, np.float32), "coords": np.empty((0, 2), np.int64)},
        {"coords": {"patch_size": 256, "patch_size_level0": 512}},
    )
    with SlideFeatures.open(path) as features:
        assert len(features) == len(features.read()) == len(features.coords) == 0
        assert features.grid_shape == (0, 0)


def test_clam(write_h5):
    # Nothing but the arrays, and corners that count from each piece of tissue.
    path = write_h5({"features": VECTORS, "coords": (CORNERS + 17).astype(np.int32)}, {})
    with SlideFeatures.open(path) as features:
        assert (features.convention, features.patch_px, features.stride_px) == ("CLAM", 256, 256)
        np.testing.assert_array_equal(features.coords, CORNERS + 17)
        np.testing.assert_array_equal(features.grid, (CORNERS // 256)[:, ::-1])
    path = write_h5({"features": VECTORS, "coords": CORNERS + np.array([[0, 0], [0, 0], [0, 0], [100, 0]])}, {})
    with SlideFeatures.open(path) as features, pytest.raises(ValueError, match="do not lie on a common grid of 256"):
        _ = features.grid


def test_clam_with_a_single_patch(write_h5):
    with SlideFeatures.open(write_h5({"features": VECTORS[:1], "coords": CORNERS[:1]}, {})) as features:
        np.testing.assert_array_equal(features.coords, CORNERS[:1])
        with pytest.raises(ValueError, match="does not state the size of its patches"):
            _ = features.patch_px


NEW = {
    "stamp_version": "2.4.0",
    "extractor": "uni",
    "unit": "um",
    "tile_size_um": 256.0,
    "tile_size_px": 224,
    "feat_type": "tile",
}
SECOND = {"extractor": "uni", "unit": "um", "tile_size": 256.0, "tile_size_px": 224}
# Corners in pixels of 256 um / 224, which nothing says.
HISTORIC = {"extractor": "uni"}


@pytest.mark.parametrize(("attributes", "unit"), [(NEW, 256.0), (SECOND, 256.0), (HISTORIC, 224.0)])
def test_stamp(write_h5, attributes, unit):
    corners = (CORNERS // 256 * unit).astype(np.float32)
    path = write_h5({"feats": VECTORS.astype(np.float16), "coords": corners}, {"": attributes})
    with SlideFeatures.open(path, slide_mpp=0.25) as features:
        assert (features.convention, features.encoder_name) == ("STAMP", "uni")
        assert features.mpp == pytest.approx(256 / 224)
        # 256 um are 1024 level-0 pixels of 0.25 um.
        assert (features.patch_px, features.stride_px) == (1024, 1024)
        np.testing.assert_array_equal(features.coords, CORNERS * 4)
        np.testing.assert_array_equal(features.grid, (CORNERS // 256)[:, ::-1])
        np.testing.assert_array_equal(features.read(), VECTORS.astype(np.float16))
    with SlideFeatures.open(path) as features:
        assert len(features.read()) == 4
        with pytest.raises(ValueError, match="give slide_mpp"):
            _ = features.coords


@pytest.fixture
def ours(tmp_path, slide_path, encoder):
    path = tmp_path / "h5_files" / "slide.h5"
    with Slide(slide_path) as slide, SlideFeatureWriter(path, CellFrame(slide, 2.0, 32), encoder) as writer:
        writer.append(VECTORS[:, :4], np.array([[0, 0], [0, 1], [1, 1], [4, 5]]), np.ones(4))
    return path


def test_clam_and_trident_read_ours(ours, slide_path):
    """By `Generic_MIL_Dataset` and `Whole_Slide_Bag_FP`; by `extract_slide_features` and `read_coords`."""
    with h5py.File(ours, "r") as file:
        features, coords, said = file["features"][:], file["coords"][:], dict(file["coords"].attrs)
        encoder = file["features"].attrs["encoder"]
    assert (features.shape, coords.dtype, encoder) == ((4, 4), np.int64, "four_numbers")
    np.testing.assert_array_equal(coords, [[0, 0], [64, 0], [64, 64], [320, 256]])
    assert int(said["patch_size_level0"]) == 64
    # TRIDENT's patch at level 0, from its size at the target magnification; CLAM's, from its level.
    assert said["patch_size"] * said["level0_magnification"] // said["target_magnification"] == 64
    assert said["patch_size"] * said["custom_downsample"] * said["downsample"] == 64
    with Slide(slide_path) as slide:
        assert slide.level_sizes_px[said["patch_level"]] == tuple(said["level_dim"])
        assert (said["level0_width"], said["level0_height"]) == slide.size_px


@pytest.mark.parametrize(("corners", "message"), [(CORNERS * 10, "do not all lie on"), (CORNERS - 10_000, "do not all lie on")])
def test_corners_beyond_the_slide_are_refused(write_h5, slide_path, encoder, corners, message):
    with SlideFeatures.open(write_h5({"features": VECTORS, "coords": corners}, {})) as features, Slide(slide_path) as slide:
        with pytest.raises(ValueError, match=message):
            features.check(slide)
        with pytest.raises(ValueError, match="another encoder: four_numbers gives 4 values, found 6"):
            features.check(encoder=encoder)


def test_stamp_reads_ours(ours, tmp_path):
    """By `BagDataset.__getitem__` and `get_coords`, after the folder was moved."""
    assert link_for_stamp(ours.parent) == [ours.parent / "stamp" / "slide.h5"]
    moved = ours.parent.rename(tmp_path / "moved")
    with h5py.File(moved / "stamp" / "slide.h5", "r", swmr=True, libver="latest") as h5:
        assert "feats" in h5
        assert isinstance(h5["feats"], h5py.Dataset)
        np.testing.assert_array_equal(h5["feats"][()], VECTORS[:, :4].astype(np.float16))
        # Cells of 64 level-0 pixels of 0.25 um, of 32 px at 0.5 um.
        assert (h5.attrs["tile_size_um"], h5.attrs["tile_size_px"], h5.attrs["unit"]) == (16, 32, "um")
        np.testing.assert_array_equal(h5["coords"][:], np.array([[0, 0], [1, 0], [1, 1], [5, 4]]) * 16)
    with (
        SlideFeatures.open(moved / "stamp" / "slide.h5", slide_mpp=0.25) as again,
        SlideFeatures.open(moved / "slide.h5") as first,
    ):
        assert (again.convention, again.encoder_name, again.mpp) == ("STAMP", "four_numbers", 0.5)
        np.testing.assert_array_equal(again.coords, first.coords)
        np.testing.assert_array_equal(again.read([1, 3]), first.read([1, 3]))
