import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.multiprocessing import start_processes
from torch.utils.data import DataLoader

from shared.data import RegionDataset, Superpixels, training_augmentation
from shared.synthetic import synthesize_image


def textured(seed=0, size_px=(64, 48)):
    """An image uint8 ``(3, H, W)`` with structures of some pixels."""
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.normal(size=(3, size_px[1], size_px[0])), (0, 3, 3))
    return torch.from_numpy(np.uint8(np.interp(fields, (fields.min(), fields.max()), (0, 255))))


def files_of(folder):
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.fixture
def computed(monkeypatch):
    """The images that SLIC was asked for, by size."""
    sizes = []
    compute = Superpixels._compute
    monkeypatch.setattr(Superpixels, "_compute", lambda self, pixels: sizes.append(pixels.shape[:2]) or compute(self, pixels))
    return sizes


@pytest.mark.parametrize("num_superpixels", [1, 12, 48])
def test_superpixels_are_connected_and_numbered_from_0(tmp_path, num_superpixels):
    ids = Superpixels(tmp_path, num_superpixels)(textured())
    assert ids.dtype == torch.int32
    assert ids.shape == (1, 48, 64)
    values = ids.unique()
    assert torch.equal(values, torch.arange(len(values), dtype=torch.int32))
    assert num_superpixels / 2 <= len(values) <= 1.5 * num_superpixels
    assert all(ndimage.label(ids[0].numpy() == value)[1] == 1 for value in values.tolist())


@pytest.mark.parametrize("tumour_share", [0.0, 0.3])
@pytest.mark.parametrize(("size_px", "num_superpixels"), [(160, 100), (160, 900), (240, 207)])
def test_the_number_is_near_the_wanted_one(tmp_path, size_px, num_superpixels, tumour_share):
    image = synthesize_image(3, tumour_share, size_px).image
    ids = Superpixels(tmp_path, num_superpixels)(torch.from_numpy(image).permute(2, 0, 1))
    assert len(ids.unique()) == pytest.approx(num_superpixels, rel=0.2)


def test_superpixels_follow_the_image(tmp_path):
    image = torch.full((3, 40, 40), 30, dtype=torch.uint8)
    image[:, 7:33, 11:29] = 220
    ids = Superpixels(tmp_path, num_superpixels=16)(image)[0]
    inside = image[0] == 220
    assert not set(ids[inside].tolist()) & set(ids[~inside].tolist())


def test_computed_once(tmp_path, computed):
    superpixels = Superpixels(tmp_path / "a" / "b", num_superpixels=20)
    first = superpixels(textured())
    assert torch.equal(superpixels(textured()), first)
    assert torch.equal(Superpixels(str(tmp_path / "a" / "b"), num_superpixels=20)(textured()), first)
    assert computed == [(48, 64)]
    (name,) = files_of(tmp_path / "a" / "b")
    # 6 KB as they are.
    assert name.endswith(".npz")
    assert (tmp_path / "a" / "b" / name).stat().st_size < 1500


def test_pixels_shape_and_settings_have_files_of_their_own(tmp_path, computed):
    image = textured(size_px=(48, 48))
    changed = image.clone()
    changed[1, 5, 7] ^= 1
    # The same bytes, in another shape.
    reshaped = image.permute(1, 2, 0).reshape(24, 96, 3).permute(2, 0, 1)
    for one in (image, changed, reshaped):
        Superpixels(tmp_path, 20)(one)
    Superpixels(tmp_path, 21)(image)
    assert len(computed) == len(files_of(tmp_path)) == 4


def test_memory_order_does_not_matter(tmp_path, computed):
    image = textured()
    assert torch.equal(Superpixels(tmp_path)(image), Superpixels(tmp_path)(image.permute(1, 2, 0).contiguous().permute(2, 0, 1)))
    assert len(computed) == 1


def test_a_damaged_file_is_computed_again(tmp_path, computed):
    superpixels = Superpixels(tmp_path, num_superpixels=20)
    first = superpixels(textured())
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [b"", b"no archive", content[: len(content) // 2], content[:-1]]
    for place in rng.integers(0, len(content), 60):
        damaged.append(content[:place] + bytes([content[place] ^ int(rng.integers(1, 256))]) + content[place + 1 :])
    for number, other in enumerate(damaged):
        path.write_bytes(other)
        assert torch.equal(superpixels(textured()), first)
        if number < 4:
            assert len(computed) == 2 + number
            assert path.read_bytes() == content


@pytest.mark.parametrize("ids", [np.zeros((48, 63), np.uint16), np.zeros((48, 64), np.float32)])
def test_a_file_of_something_else_is_computed_again(tmp_path, computed, ids):
    superpixels = Superpixels(tmp_path, num_superpixels=20)
    first = superpixels(textured())
    (path,) = tmp_path.iterdir()
    np.savez_compressed(path, ids=ids)
    assert torch.equal(superpixels(textured()), first)
    assert len(computed) == 2


def test_ids_of_two_bytes(tmp_path):
    # As many super-pixels as pixels.
    superpixels = Superpixels(tmp_path, num_superpixels=60000)
    for _ in ("computed", "read"):
        ids = superpixels(torch.zeros(3, 200, 300, dtype=torch.uint8))
        assert torch.equal(ids.flatten(), torch.arange(60000, dtype=torch.int32))


def test_too_many_are_refused(tmp_path):
    image = torch.zeros(3, 270, 270, dtype=torch.uint8)
    with pytest.raises(ValueError, match="72900 super-pixels in one image are too many: at most 65536"):
        Superpixels(tmp_path, num_superpixels=65535)(image)


@pytest.mark.parametrize("options", [{"num_superpixels": 0}, {"num_superpixels": 65536}])
def test_rejects_impossible_settings(tmp_path, options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Superpixels(tmp_path, **options)


@pytest.mark.parametrize("image", [torch.zeros(3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8), torch.zeros(8, 8).byte()])
def test_rejects_what_is_no_image(tmp_path, image):
    with pytest.raises(ValueError, match=r"uint8 \(3, H, W\); got"):
        Superpixels(tmp_path)(image)


def compute_all(rank, folder):
    superpixels = Superpixels(folder, num_superpixels=20)
    for seed in range(12):
        superpixels(textured(seed))


def test_processes_may_compute_the_same_images_at_once(tmp_path):
    start_processes(compute_all, args=(tmp_path,), nprocs=4, start_method="fork")
    assert len(files_of(tmp_path)) == 12
    expected = Superpixels(tmp_path / "alone", num_superpixels=20)
    compute_all(0, tmp_path)
    for seed in range(12):
        assert torch.equal(Superpixels(tmp_path, num_superpixels=20)(textured(seed)), expected(textured(seed)))


def test_pickling(tmp_path):
    superpixels = Superpixels(tmp_path, num_superpixels=20)
    assert pickle.loads(pickle.dumps(superpixels)) == superpixels


@pytest.mark.parametrize("num_workers", [0, 2])
def test_in_a_data_set(tmp_path, write_image, num_workers):
    images = [textured(seed, (32, 32)) for seed in range(4)]
    records = [
        {"image": str(write_image(f"i{number}", pixels=image.permute(1, 2, 0).numpy())), "label": number % 2}
        for number, image in enumerate(images)
    ]
    superpixels = Superpixels(tmp_path / "cache", num_superpixels=16)
    transform = training_augmentation(["image", "superpixels"], free_rotation=False, max_scale=1.0)
    dataset = RegionDataset(records, transform=transform, superpixels=superpixels)
    (batch,) = DataLoader(dataset, batch_size=4, num_workers=num_workers)
    assert batch["superpixels"].dtype == torch.int32
    assert batch["superpixels"].shape == (4, 1, 32, 32)
    for image, moved, ids in zip(images, batch["image"], batch["superpixels"], strict=True):
        both = torch.cat([image, superpixels(image)])
        eight = [torch.rot90(one, turns, (1, 2)) for one in (both, both.flip(2)) for turns in range(4)]
        assert any(torch.equal(torch.cat([moved, ids]), expected) for expected in eight)
    assert len(files_of(tmp_path / "cache")) == 4
