import itk
import nibabel
import numpy as np
import pytest

from shared.writers import write_volume


class Rows:
    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def read_rows(self, start, stop):
        return self.array[start:stop]


@pytest.fixture
def maps():
    return np.random.default_rng(0).integers(0, 256, (3, 40, 61), dtype=np.uint8)


def read_xy(path):
    """Values by (x, y, ...), spacing, origin and direction, as ITK sees them."""
    image = itk.imread(path)
    dimensions = image.GetImageDimension()
    direction = itk.array_from_matrix(image.GetDirection())
    spacing, origin = ([float(point[axis]) for axis in range(dimensions)] for point in (image.GetSpacing(), image.GetOrigin()))
    return itk.array_from_image(image).T, spacing, origin, direction


@pytest.mark.parametrize("volume", ["nifti", "metaimage"])
@pytest.mark.parametrize("num_maps", [1, 3])
def test_both_formats_say_the_same(tmp_path, maps, volume, num_maps):
    path = tmp_path / {"nifti": "a.nii.gz", "metaimage": "a.mha"}[volume]
    assert write_volume(path, [Rows(one) for one in maps[:num_maps]], mpp=2.0, volume=volume) == 2.0
    values, spacing, origin, direction = read_xy(path)
    expected = maps[0].T if num_maps == 1 else maps.transpose(2, 1, 0)
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(values, expected)
    assert spacing[:2] == pytest.approx([0.002, 0.002])  # millimetres
    assert origin == pytest.approx([0] * len(origin))
    np.testing.assert_allclose(direction, np.eye(len(direction)), atol=1e-7)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_nifti_of_a_map_by_nibabel(tmp_path, maps):
    write_volume(tmp_path / "a.nii.gz", [Rows(maps[0])], mpp=4.0, volume="nifti")
    image = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), maps[0].T)
    assert image.header.get_zooms()[:2] == pytest.approx((0.004, 0.004))


def test_maps_that_are_too_large_are_reduced(tmp_path, maps):
    # 3 * 20 * 31 = 1860 values of means of 2 x 2 are few enough, the 7320 of the maps are not.
    mpp = write_volume(tmp_path / "a.mha", [Rows(one) for one in maps], 2.0, "metaimage", largest_values=2000)
    values, spacing, _, _ = read_xy(tmp_path / "a.mha")
    assert (mpp, values.shape) == (4.0, (31, 20, 3))
    assert spacing[:2] == pytest.approx([0.004, 0.004])
    expected = maps[:, :, :60].astype(float).reshape(3, 20, 2, 30, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(values[:30], expected.transpose(2, 1, 0), atol=0.51)


def test_rejects_another_format(tmp_path, maps):
    with pytest.raises(ValueError, match="volume must be one of nifti, metaimage or null; got 'dicom'"):
        write_volume(tmp_path / "a.dcm", [Rows(maps[0])], 2.0, "dicom")
    assert not list(tmp_path.iterdir())
