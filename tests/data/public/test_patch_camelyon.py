import gzip
import pickle

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from shared.data.public.patch_camelyon import PatchCamelyonDataset, upsample_and_pad

STEM = "camelyonpatch_level_2_split_test"
NUM_PATCHES = 19
STORAGE = {
    "gzip, h5py's chunks": {"chunks": True, "compression": "gzip"},
    "gzip, a patch a chunk": {"chunks": (1, 96, 96, 3), "compression": "gzip"},
    "contiguous": {},
}


@pytest.fixture(scope="module")
def patches():
    return np.random.default_rng(0).integers(0, 256, (NUM_PATCHES, 96, 96, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def labels():
    return np.array([0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1, 1, 1, 0], dtype=np.uint8)


@pytest.fixture
def write(tmp_path, patches, labels):
    """Write both files in the published layout, or with something else in place of patches or labels: their folder."""

    def write_files(x=patches, y=labels[:, None, None, None], x_name="x", y_name="y", split="test", **storage):
        for letter, name, values in (("x", x_name, x), ("y", y_name, y)):
            with h5py.File(tmp_path / f"camelyonpatch_level_2_split_{split}_{letter}.h5", "w") as file:
                options = storage if letter == "x" else {"chunks": True, "compression": "gzip"}
                file.create_dataset(name, data=values, **(options if len(values) else {}))
        return tmp_path

    return write_files


def assert_all_read(loader, patches, labels):
    batches = list(loader)
    images = torch.cat([batch["image"] for batch in batches])
    assert images.dtype == torch.uint8
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1), patches)
    assert torch.cat([batch["label"] for batch in batches]).tolist() == labels.tolist()
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(len(patches)))


@pytest.mark.parametrize("storage", STORAGE.values(), ids=STORAGE)
def test_patches_are_those_of_the_file(write, patches, labels, storage):
    dataset = PatchCamelyonDataset(write(**storage))
    assert len(dataset) == NUM_PATCHES
    assert dataset.labels.tolist() == labels.tolist()
    assert dataset.labels.dtype == torch.int64
    for index, item in enumerate(dataset):
        assert item["image"].shape == (3, 96, 96)
        np.testing.assert_array_equal(item["image"].permute(1, 2, 0), patches[index])
        assert (item["label"], item["index"]) == (labels[index], index)
    assert index == NUM_PATCHES - 1
    assert dataset[-1]["index"] == NUM_PATCHES - 1
    with pytest.raises(IndexError):
        dataset[NUM_PATCHES]
    assert_all_read(DataLoader(dataset, 4), patches, labels)


@pytest.mark.parametrize("indices", [[7, 2, 2, 10, 0, 7], [18, 0], [5]], ids=str)
def test_a_batch_in_any_order_and_with_repeats(write, patches, labels, indices):
    items = PatchCamelyonDataset(write()).__getitems__(indices)
    assert [item["index"] for item in items] == indices
    assert [item["label"] for item in items] == labels[indices].tolist()
    np.testing.assert_array_equal(torch.stack([item["image"] for item in items]).permute(0, 2, 3, 1), patches[indices])


def test_a_batch_is_one_read_of_its_own_patches(write, monkeypatch):
    dataset = PatchCamelyonDataset(write(**STORAGE["gzip, h5py's chunks"]))
    reads = []
    read = h5py.Dataset.__getitem__

    def recorded(self, selection, **options):
        values = read(self, selection, **options)
        reads.append(values.shape)
        return values

    monkeypatch.setattr(h5py.Dataset, "__getitem__", recorded)
    indices = [batch["index"].tolist() for batch in DataLoader(Subset(dataset, [1, 3, 5, 0, 18, 9]), 2)]
    assert indices == [[1, 3], [5, 0], [18, 9]]
    # Close to each other they are read with those between; 0 and 18 are not.
    assert reads == [(3, 96, 96, 3), (6, 96, 96, 3), (10, 96, 96, 3)]
    reads.clear()
    dataset.__getitems__([0, 18])
    assert reads == [(2, 96, 96, 3)]


@pytest.mark.parametrize("method", [pytest.param("spawn", marks=pytest.mark.slow), "fork"])
def test_workers_open_the_file_for_themselves(write, patches, labels, method):
    dataset = PatchCamelyonDataset(write(**STORAGE["gzip, h5py's chunks"]))
    # This process has the file open when the others start, and goes on reading.
    first = dataset[3]["image"]
    loader = DataLoader(dataset, 2, num_workers=2, multiprocessing_context=method)
    assert_all_read(loader, patches, labels)
    assert torch.equal(dataset[3]["image"], first)


def test_an_open_dataset_can_be_pickled(write, patches):
    dataset = PatchCamelyonDataset(write())
    dataset[0]
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy[5]["image"].permute(1, 2, 0), patches[5])


def test_other_splits(write):
    folder = write(split="valid")
    assert len(PatchCamelyonDataset(folder, "valid")) == NUM_PATCHES
    with pytest.raises(ValueError, match=f"{STEM}_x.h5 does not exist: download {STEM}_x.h5.gz"):
        PatchCamelyonDataset(folder)
    with pytest.raises(ValueError, match="split must be one of train, valid, test; got 'val'"):
        PatchCamelyonDataset(folder, "val")


@pytest.mark.parametrize("letter", ["x", "y"])
def test_packed_files_ask_to_be_unpacked(write, letter):
    folder = write()
    path = folder / f"{STEM}_{letter}.h5"
    packed = folder / f"{STEM}_{letter}.h5.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    with pytest.raises(ValueError, match=f"{packed} is packed as published: run gunzip {packed}"):
        PatchCamelyonDataset(folder)
    packed.rename(path)
    with pytest.raises(ValueError, match=f"{path} is still packed"):
        PatchCamelyonDataset(folder)


@pytest.mark.parametrize("letter", ["x", "y"])
@pytest.mark.parametrize("kept_bytes", [0, 1500])
def test_what_is_no_whole_hdf5_file_is_named(write, letter, kept_bytes):
    path = write() / f"{STEM}_{letter}.h5"
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(ValueError, match=f"{path} cannot be read as HDF5"):
        PatchCamelyonDataset(path.parent)


@pytest.mark.parametrize(
    ("contents", "letter", "message"),
    [
        ({"x_name": "images"}, "x", r"'x' must be .* \(n, 96, 96, 3\) .*; got nothing \(has: \['images'\]\)"),
        ({"x_name": "x/images"}, "x", r"'x' must be .*; got a group"),
        ({"x": np.zeros((5, 96, 96, 3), np.float32)}, "x", r"'x' must be .* uint8 .*; got float32 \(5, 96, 96, 3\)"),
        ({"x": np.zeros((5, 3, 96, 96), np.uint8)}, "x", r"'x' must be .*; got uint8 \(5, 3, 96, 96\)"),
        ({"x": np.zeros((0, 96, 96, 3), np.uint8)}, "x", r"'x' must be .* with n > 0; got uint8 \(0, 96, 96, 3\)"),
        ({"y_name": "label"}, "y", r"'y' must be .* \(n, 1, 1, 1\) .*; got nothing"),
        ({"y": np.zeros(NUM_PATCHES, np.uint8)}, "y", r"'y' must be .*; got uint8 \(19,\)"),
        ({"y": np.zeros((NUM_PATCHES, 1, 1, 1), np.int64)}, "y", r"'y' must be .*; got int64 \(19, 1, 1, 1\)"),
        ({"y": np.zeros((10, 1, 1, 1), np.uint8)}, "y", "'y' must have a label for each of the 19 patches in 'x'; got 10"),
        ({"y": np.uint8([0, 1, 3, 2] + 15 * [0])[:, None, None, None]}, "y", "'y' must be 0 or 1; got 3 at index 2"),
    ],
)
def test_other_contents_are_named(write, contents, letter, message):
    folder = write(**contents)
    with pytest.raises(ValueError, match=f"{STEM}_{letter}.h5: {message}"):
        PatchCamelyonDataset(folder)


def test_a_damaged_patch_is_named_when_it_is_read(write):
    folder = write(**STORAGE["gzip, a patch a chunk"])
    path = folder / f"{STEM}_x.h5"
    with h5py.File(path) as file:
        chunk = file["x"].id.get_chunk_info(4)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + 100] = bytes(100)
    path.write_bytes(content)
    dataset = PatchCamelyonDataset(folder)
    assert dataset[3]["index"] == 3
    with pytest.raises(ValueError, match=f"{path}: dataset 'x' cannot be read, unpack it again"):
        dataset[4]


def twice_the_size(values, axis):
    """Bilinear along one axis: a new pixel lies a quarter from its old one, three quarters from the next; borders repeat."""
    values = np.moveaxis(values, axis, 0)
    before, after = np.concatenate([values[:1], values[:-1]]), np.concatenate([values[1:], values[-1:]])
    made = np.stack([0.75 * values + 0.25 * before, 0.75 * values + 0.25 * after], axis=1).reshape(-1, *values.shape[1:])
    return np.moveaxis(made, 0, axis)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_upsampling_and_padding_by_numpy(patches, dtype):
    batch = torch.from_numpy(patches[:3]).permute(0, 3, 1, 2)
    tiles = upsample_and_pad(batch.to(dtype))
    assert tiles.shape == (3, 3, 224, 224)
    assert tiles.dtype == torch.float32
    upsampled = twice_the_size(twice_the_size(batch.numpy().astype(np.float64), axis=2), axis=3)
    expected = np.pad(upsampled, [(0, 0), (0, 0), (16, 16), (16, 16)])
    np.testing.assert_allclose(tiles.numpy(), expected, atol=1e-3)


def test_the_centre_of_32_becomes_the_tiles_centre_of_64():
    patch = torch.zeros(1, 3, 96, 96, dtype=torch.uint8)
    patch[..., 32:64, 32:64] = 255
    tile = upsample_and_pad(patch)[0, 0]
    # By hand: the edge at 32 of the patch is at 2 * 32 + 16 = 80 of the tile, three quarters dark before it and light after.
    assert tile[112, 78:82].tolist() == [0, 63.75, 191.25, 255]
    assert tile[112, 142:146].tolist() == [255, 191.25, 63.75, 0]
    assert tile.sum() == 255 * 64**2


def test_no_patches_make_no_tiles():
    assert upsample_and_pad(torch.zeros(0, 3, 96, 96)).shape == (0, 3, 224, 224)


@pytest.mark.parametrize("shape", [(3, 96, 96), (2, 96, 96, 3), (1, 3, 96, 192), (1, 1, 96, 96)])
def test_other_shapes_are_rejected(shape):
    with pytest.raises(ValueError, match=rf"must be \(B, 3, 96, 96\); got \({', '.join(map(str, shape))}\)"):
        upsample_and_pad(torch.zeros(shape))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_tiles_are_made_on_the_device(patches):
    batch = torch.from_numpy(patches).permute(0, 3, 1, 2)
    tiles = upsample_and_pad(batch.cuda())
    assert tiles.is_cuda
    torch.testing.assert_close(tiles.cpu(), upsample_and_pad(batch), rtol=0, atol=1e-3)
