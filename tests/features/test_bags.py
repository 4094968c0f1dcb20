"""Bags of features: what is stored must be of this encoder, at one pixel size, and hold the tissue as it is now."""

import h5py
import numpy as np
import pytest

from shared.data import TissueCache, check_slides
from shared.features import CellFrame, FeatureBagDataset, SlideFeatureWriter
from shared.inference.pixel_sizes import PixelSizes
from shared.wsi import Slide, TissueMap


class WholeTissue(TissueCache):
    """Tissue of the whole slide."""

    def get(self, path, slide_mpp=None):
        with Slide(path) as slide:
            return TissueMap(np.ones((30, 40), bool), slide.size_px[0] / 40)


@pytest.fixture
def record(slide_path):
    return {"image": str(slide_path), "label": 1, "row": 2, "manifest": "m.csv"}


def bag_of(record, tmp_path, encoder, **options):
    dataset = FeatureBagDataset([record], WholeTissue(tmp_path / "tissue"), tmp_path, encoder, features_per_slide=None, **options)
    return dataset.all_of(0)[0]


def write_own(tmp_path, slide_path, encoder, num_left_out, mpp=0.5):
    """All 6 x 5 cells of the slide but some."""
    with (
        Slide(slide_path) as slide,
        SlideFeatureWriter(tmp_path / "slide.h5", CellFrame(slide, mpp / 0.25, 32), encoder) as writer,
    ):
        cells = np.stack(np.indices((5, 6)), axis=-1).reshape(-1, 2)[: 30 - num_left_out]
        writer.append(np.ones((len(cells), 4)), cells, np.ones(len(cells)))


def write_trident(tmp_path, encoder_name, level0=40.0, target=20.0, name="slide.h5", stride_px=64):
    with h5py.File(tmp_path / name, "w") as file:
        file["features"] = np.ones((3, 4), np.float16)
        file["coords"] = np.array([[0, 0], [64, 0], [128, 64]])
        file["features"].attrs["encoder"] = encoder_name
        file["coords"].attrs.update(
            {"patch_size": 32, "patch_size_level0": 64, "level0_magnification": level0, "target_magnification": target}
        )
        file["coords"].attrs["overlap"] = (64 - stride_px) // 2


def test_tissue_that_was_not_embedded_is_refused(record, slide_path, tmp_path, encoder):
    write_own(tmp_path, slide_path, encoder, num_left_out=0)
    assert len(bag_of(record, tmp_path, encoder)) == 30
    write_own(tmp_path, slide_path, encoder, num_left_out=3)
    with pytest.raises(ValueError, match=r"slide\.h5 lacks 3 of the 30 tissue cells.*Embed the slides again with this tissue"):
        bag_of(record, tmp_path, encoder)


def test_other_programs_have_their_own_tissue(record, tmp_path, encoder):
    write_trident(tmp_path, "four_numbers")
    assert len(bag_of(record, tmp_path, encoder)) == 3


@pytest.mark.parametrize("name", ["four_numbers", "Four-Numbers", "four_v1", "four-numbers-0b1d4bf2"])
def test_the_encoder_s_names_are_known(record, tmp_path, encoder, name, caplog):
    write_trident(tmp_path, name)
    assert len(bag_of(record, tmp_path, encoder)) == 3
    assert not caplog.records


def test_features_that_are_named_as_another_encoder_s_are_refused(record, tmp_path, encoder):
    write_trident(tmp_path, "four_numbers_2")
    with pytest.raises(
        ValueError, match=r"another encoder: expected four_numbers \(called four_numbers, four_v1\), found four_numbers_2"
    ):
        bag_of(record, tmp_path, encoder)


def test_features_without_a_name_are_taken_with_one_warning(record, tmp_path, encoder, caplog):
    write_trident(tmp_path, "None")
    for _ in range(2):
        assert len(bag_of(record, tmp_path, encoder)) == 3
    (said,) = [entry.message for entry in caplog.records]
    assert "the names do not show whether its files of TRIDENT are features of four_numbers" in said


def test_features_of_another_pixel_size_are_refused(record, slide_path, tmp_path, encoder):
    write_own(tmp_path, slide_path, encoder, num_left_out=0)
    assert len(bag_of(record, tmp_path, encoder, mpp=0.5)) == 30
    with pytest.raises(ValueError, match=r"slide\.h5 contains features .* another pixel size: expected mpp 1, found 0\.5"):
        bag_of(record, tmp_path, encoder, mpp=1.0)


@pytest.mark.parametrize(
    ("target", "level0", "message"),
    [
        (10.0, 40.0, r"expected 0\.5 um per pixel, found 1"),
        (20.0, 20.0, r"expected 16 um from patch to patch, found 32"),
    ],
)
def test_files_that_do_not_go_together_are_named_both(record, slide_path, tmp_path, encoder, target, level0, message):
    other = tmp_path / "other.tif"
    other.write_bytes(slide_path.read_bytes())
    write_trident(tmp_path, "four_numbers")
    write_trident(tmp_path, "four_numbers", level0=level0, target=target, name="other.h5")
    # Its own pixel size is that of the file, unless the manifest says another.
    records = [record, record | {"image": str(other), "mpp": 10 / level0}]
    dataset = FeatureBagDataset(records, WholeTissue(tmp_path / "tissue"), tmp_path, encoder, features_per_slide=None)
    dataset.all_of(0)
    with pytest.raises(ValueError, match=rf"other\.h5 and .*slide\.h5 contain features that do not fit together: {message}"):
        dataset.all_of(1)


def test_features_of_ome_tiff_are_found_by_the_name_that_other_programs_give_them(record, slide_path, tmp_path, encoder):
    """They drop the last ending alone. A file of another slide, ``slide.svs``, may lie beside it."""
    record = record | {"image": str(slide_path.rename(tmp_path / "slide.ome.tif"))}
    with pytest.raises(
        ValueError, match=r"/slide\.h5 does not exist, and neither does \S*/slide\.ome\.h5: embed the slide first"
    ):
        bag_of(record, tmp_path, encoder)
    write_trident(tmp_path, "four_numbers", name="slide.ome.h5")
    assert len(bag_of(record, tmp_path, encoder)) == 3
    write_trident(tmp_path, "another", name="slide.h5")
    assert len(bag_of(record, tmp_path, encoder)) == 3


def two_scanners(record, slide_path, tmp_path, encoder, mpps, mpp):
    """A data set of the same picture from two scanners, whose level-0 pixels have these sizes."""
    other = tmp_path / "other.tif"
    other.write_bytes(slide_path.read_bytes())
    records = [record | {"mpp": mpps[0]}, record | {"image": str(other), "mpp": mpps[1]}]
    tissue = WholeTissue(tmp_path / "tissue")
    return FeatureBagDataset(records, tissue, tmp_path, encoder, features_per_slide=None, mpp=mpp)


@pytest.mark.parametrize("mpp", [0.5, None])
@pytest.mark.parametrize("mpps", [(0.2528, 0.2462), (0.24502, 0.25498)])
def test_slides_of_two_scanners_embedded_with_one_setting_are_used_together(record, slide_path, tmp_path, encoder, mpps, mpp):
    """Both are read at every second pixel, which is 0.5 um to 2 %; of each other they differ by up to 4.07 %."""
    dataset = two_scanners(record, slide_path, tmp_path, encoder, mpps, mpp)
    for slide_mpp, item in zip(mpps, dataset.data, strict=True):
        with Slide(item["image"], mpp=slide_mpp) as slide:
            downsample = PixelSizes(0.5).downsample(slide)
            assert downsample == 2
            path = slide.path.with_suffix(".h5")
            with SlideFeatureWriter(path, CellFrame(slide, downsample, 32), encoder) as writer:
                cells = np.stack(np.indices((5, 6)), axis=-1).reshape(-1, 2)
                writer.append(np.ones((30, 4)), cells, np.ones(30))
    assert [len(dataset.all_of(index)[0]) for index in (0, 1)] == [30, 30]


@pytest.mark.parametrize("mpp", [0.5, None])
def test_slides_of_two_scanners_cut_by_their_magnification_are_used_together(record, slide_path, tmp_path, encoder, mpp):
    """TRIDENT calls both 40x, and cuts the same number of level-0 pixels: 16.1 um of the one and 14.9 um of the other."""
    for name in ("slide.h5", "other.h5"):
        write_trident(tmp_path, "four_numbers", name=name)
    dataset = two_scanners(record, slide_path, tmp_path, encoder, (0.2520, 0.2325), mpp)
    assert [len(dataset.all_of(index)[0]) for index in (0, 1)] == [3, 3]


def test_other_distances_between_patches_of_two_scanners_are_refused(record, slide_path, tmp_path, encoder):
    """Though both would have a patch every 14.5 um or so by their scanners' pixel sizes."""
    write_trident(tmp_path, "four_numbers")
    write_trident(tmp_path, "four_numbers", name="other.h5", stride_px=58)
    dataset = two_scanners(record, slide_path, tmp_path, encoder, (0.2265, 0.25), 0.5)
    dataset.all_of(0)
    with pytest.raises(ValueError, match=r"do not fit together: expected 16 um from patch to patch, found 14\.5"):
        dataset.all_of(1)


def test_features_that_have_changed_are_checked_before_the_training(record, slide_path, tmp_path, encoder):
    """Also where the slide, its mask and its tissue are known to be sound."""
    write_own(tmp_path, slide_path, encoder, num_left_out=0)

    def check(**changed):
        for name, value in changed.items():
            setattr(encoder, name, value)
        dataset = FeatureBagDataset([record], WholeTissue(tmp_path / "tissue"), tmp_path, encoder, features_per_slide=None)
        check_slides([dataset])

    check()
    whole = (tmp_path / "slide.h5").read_bytes()
    (tmp_path / "slide.h5").write_bytes(whole[:2000])
    with pytest.raises(ValueError, match=r"row 2, \S*slide\.tif: \S*slide\.h5"):
        check()
    (tmp_path / "slide.h5").write_bytes(whole)
    check()
    with pytest.raises(ValueError, match="of another encoder"):
        check(key="f" * 16)
