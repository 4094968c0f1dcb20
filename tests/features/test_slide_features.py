"""Files of features: ours come back as they were, and say what does not fit."""

import pickle
import re
import textwrap

import h5py
import numpy as np
import pytest

from shared.features import CellFrame, SlideFeatures, SlideFeatureWriter
from shared.features.compressed_rows import CompressedRows
from shared.wsi import Slide


@pytest.fixture
def cells():
    """Five of a slide's cells, (row, column)."""
    return np.array([[0, 0], [0, 1], [1, 3], [4, 5], [2, 2]])


@pytest.fixture
def vectors():
    return np.random.default_rng(1).normal(size=(5, 4)).astype(np.float16)


@pytest.fixture
def stored(tmp_path, slide_path, encoder, cells, vectors):
    """The five cells in two batches: the file."""
    path = tmp_path / "features" / "slide.h5"
    with Slide(slide_path) as slide, SlideFeatureWriter(path, CellFrame(slide, 2.0, 32), encoder) as writer:
        writer.append(vectors[:2], cells[:2], np.array([0.5, 1]))
        writer.append(vectors[2:], cells[2:], np.array([0, 0.25, 1]))
    return path


def test_features_come_back_as_they_were_written(stored, cells, vectors):
    with SlideFeatures.open(stored) as features:
        np.testing.assert_array_equal(features.read(), vectors)
        np.testing.assert_array_equal(features.coords, cells[:, ::-1] * 64)
        np.testing.assert_array_equal(features.grid, cells)
        np.testing.assert_array_equal(features.tissue, [0.5, 1, 0, 0.25, 1])
        assert (features.stride_px, features.patch_px, features.mpp, features.slide_mpp) == (64, 64, 0.5, 0.25)
        # 6.25 x 4.69 cells: the quarter of a column has its centre beyond the slide, the last row has not.
        assert features.grid_shape == (5, 6)
        laid_out = features.lay_out(np.arange(1, 6))
        assert (laid_out[4, 5], laid_out.sum()) == (4, 15)


def test_scattered_features_are_read_in_the_order_asked_for(tmp_path, slide_path, encoder):
    vectors = np.arange(200_000 * 4, dtype=np.float32).reshape(-1, 4) % 2048
    path = tmp_path / "many.h5"
    with Slide(slide_path) as slide, SlideFeatureWriter(path, CellFrame(slide, 2.0, 32), encoder) as writer:
        writer.append(vectors, np.zeros((len(vectors), 2), np.int64), np.ones(len(vectors)))
    with SlideFeatures.open(path) as features:
        indices = np.random.default_rng(0).integers(0, len(vectors), 1000)
        np.testing.assert_array_equal(features.read(indices), vectors[indices])
        assert features.read([]).shape == (0, 4)
        with pytest.raises(IndexError, match="200000 features"):
            features.read([200_000])


def test_what_is_open_travels_to_another_process(stored, vectors):
    with SlideFeatures.open(stored) as features:
        features.read([0])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(features)).read(), vectors)


def test_a_slide_without_tissue_has_a_file_without_features(tmp_path, slide_path, encoder):
    path = tmp_path / "empty.h5"
    with Slide(slide_path) as slide, SlideFeatureWriter(path, CellFrame(slide, 2.0, 32), encoder):
        pass
    with SlideFeatures.open(path) as features, Slide(slide_path) as slide:
        features.check(slide, encoder)
        assert (len(features), features.read().shape, features.grid.shape) == (0, (0, 4), (0, 2))


def test_what_fails_half_way_leaves_no_file(tmp_path, slide_path, encoder):
    path = tmp_path / "half.h5"
    with (
        Slide(slide_path) as slide,
        pytest.raises(ValueError, match="65504"),
        SlideFeatureWriter(path, CellFrame(slide, 2.0, 32), encoder) as writer,
    ):
        writer.append(np.full((1, 4), 1e6), np.zeros((1, 2), np.int64), np.ones(1))
    assert not list(tmp_path.glob("half*"))


def test_features_fit_their_slide_and_encoder(stored, slide_path, encoder):
    with SlideFeatures.open(stored) as features, Slide(slide_path) as slide:
        features.check(slide, encoder)


def test_features_of_another_encoder_are_refused(stored, encoder):
    encoder.key = "f" * 16
    with (
        SlideFeatures.open(stored) as features,
        pytest.raises(
            ValueError, match=r"slide\.h5.*another encoder: expected four_numbers \(f+\), found four_numbers \(0123456789abcdef\)"
        ),
    ):
        features.check(encoder=encoder)


@pytest.mark.parametrize(
    ("smoothing", "said"), [(3, "; smoothing: expected 3, found 1. Embed"), (1, "; its weights differ. Embed")]
)
def test_what_differs_between_features_of_one_encoder_is_said(slide_path, tmp_path, encoder, smoothing, said):
    encoder.description = lambda: {"name": encoder.name, "key": encoder.key, "stride_px": 32, "smoothing": 1}
    with Slide(slide_path) as slide, SlideFeatureWriter(tmp_path / "a.h5", CellFrame(slide, 2.0, 32), encoder) as writer:
        writer.append(np.ones((1, 4)), np.zeros((1, 2), np.int64), np.ones(1))
    encoder.key = "f" * 16
    encoder.description = lambda: {"name": encoder.name, "key": encoder.key, "stride_px": 32, "smoothing": smoothing}
    with SlideFeatures.open(tmp_path / "a.h5") as features, pytest.raises(ValueError, match=re.escape(said)):
        features.check(encoder=encoder)


def test_features_of_another_slide_are_refused(stored, slide_path):
    content = bytearray(slide_path.read_bytes())
    content[len(content) // 2] ^= 1
    slide_path.write_bytes(content)
    with (
        SlideFeatures.open(stored) as features,
        Slide(slide_path) as slide,
        pytest.raises(ValueError, match="another slide than"),
    ):
        features.check(slide)


def test_features_at_other_coordinates_are_refused(stored, slide_path):
    with (
        SlideFeatures.open(stored) as features,
        Slide(slide_path, mpp=0.3) as slide,
        pytest.raises(ValueError, match=r"other coordinates: expected pixels of 0\.3 um.*found 0\.25 um"),
    ):
        features.check(slide)


def test_half_a_file_is_refused(stored):
    stored.write_bytes(stored.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"slide\.h5 is not a complete HDF5 file.*embed the slide again"):
        SlideFeatures.open(stored)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.pop("coords"), "expected the data sets 'features'.*found features, tissue"),
        (lambda file: file["coords"].resize(3, axis=0), "one vector per patch, found"),
        (lambda file: file.attrs.update(features_version=99), "version 99"),
    ],
)
def test_what_is_no_file_of_features_is_refused(stored, change, message):
    with h5py.File(stored, "r+") as file:
        change(file)
    with pytest.raises(ValueError, match=rf"slide\.h5 cannot be used: .*{message}"):
        SlideFeatures.open(stored)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(ValueError, match=r"none\.h5 does not exist"):
        SlideFeatures.open(tmp_path / "none.h5")


@pytest.mark.parametrize("num_rows", [0, 1, 8191, 8192, 8193, 3 * 8192])
def test_batches_of_any_size_become_whole_chunks(tmp_path, num_rows):
    """A chunk of rows of 32 numbers has 8192 of them; HDF5 itself decodes what threads have compressed."""
    rows = np.random.default_rng(0).integers(0, 3, (num_rows, 32)).astype(np.float16)
    with h5py.File(tmp_path / "rows.h5", "w") as file, CompressedRows(file, "rows", 32, num_workers=3) as compressed:
        for start in range(0, num_rows, 1000):
            compressed.append(rows[start : start + 1000])
    with h5py.File(tmp_path / "rows.h5") as file:
        np.testing.assert_array_equal(file["rows"][:], rows)
        assert file["rows"].chunks == (8192, 32)


FULL = """
    import resource, signal, sys
    import numpy as np
    from shared.features import CellFrame, SlideFeatureWriter
    from shared.wsi import Slide
    from shared.writers import StorageError
    from tests.features.conftest import StoredEncoder

    # Writing fails then with an error and not with a signal.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
    noise = np.random.default_rng(0).normal(size=(10_000, 4))
    with Slide({slide!r}) as slide:
        try:
            with SlideFeatureWriter({path!r}, CellFrame(slide, 2.0, 32), StoredEncoder()) as writer:
                for batch in range({batches}):
                    writer.append(noise, np.zeros((10_000, 2), np.int64), np.ones(10_000))
        except StorageError as error:
            sys.exit(str(error))
"""


@pytest.mark.parametrize(("limit", "batches"), [(200_000, 100), (200_000, 3), (1000, 0)])
def test_where_there_is_no_room_there_is_one_error_and_no_file(run_python, tmp_path, slide_path, limit, batches):
    """While it is written, and only when it is closed; HDF5 by itself ends the process in a segmentation fault."""
    path = tmp_path / "features" / "slide.h5"
    code = textwrap.dedent(FULL).format(limit=limit, slide=str(slide_path), path=str(path), batches=batches)
    finished = run_python("-c", code)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1] == (
        f"{path} cannot be written: the file is larger than the system allows. Raise the limit (ulimit -f), or write to another "
        "file system."
    )
    assert not list(path.parent.iterdir())
