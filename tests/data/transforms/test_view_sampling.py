import numpy as np
import pytest
import torch
from monai.transforms import Compose, Lambdad
from PIL import Image

from shared.data import RegionDataset, RegionLoader, normalized_and_augmented, training_augmentation
from shared.data.transforms.view_sampling import VIEW, sample_views

KEYS = ["image", "mask", "superpixels"]
TURNS_ALONE = {"free_rotation": False, "max_scale": 1.0}
OPTIONS = [
    {},
    {"crop_size_px": 40},
    {"crop_size_px": 1},
    {"free_rotation": False, "crop_size_px": 31},
    {"max_scale": 1.0},
    {"isotropic": True, "crop_size_px": 40},
    {"stain_jitter": 0.2, "crop_size_px": 57},
]
# Of the float32 roundings in a place, by MONAI and here, fewer than 16; each is at most 2^-23 of it, and no place is beyond
# twice the largest image of 96 px, where it is reflected.
PLACE_TOLERANCE_PX = 16 * 2**-23 * 2 * 96
# Between neighbouring pixels a grey value changes by 255 at most, along each axis.
GREY_TOLERANCE = 2 * 255 * PLACE_TOLERANCE_PX


def noise(height=96, width=96, seed=0):
    """An image without any smoothness, its mask and super-pixels of single pixels; no grey value is too dark for stains."""
    rng = np.random.default_rng(seed)
    return {
        "image": torch.from_numpy(rng.integers(64, 256, (3, height, width), dtype=np.uint8)),
        "mask": torch.from_numpy(rng.integers(0, 2, (1, height, width), dtype=np.uint8)),
        "superpixels": torch.from_numpy(rng.permutation(height * width).astype(np.int32).reshape(1, height, width)),
        "label": 1,
    }


def seeded(transform, item, seed):
    transform.set_random_state(seed=seed)
    return transform(dict(item))


def chain_of(sampling, rounds=True):
    """MONAI's chain of the steps, one after the other; without its rounding images stay as they were sampled."""
    steps = list(sampling.transforms)
    return Compose(steps if rounds else steps[: next(i for i, step in enumerate(steps) if isinstance(step, Lambdad))])


def distance_to_border(view):
    """How far the place of each kept pixel is from the nearest border between two pixels, along the nearer axis."""
    rows, columns = (np.arange(side) for side in view["size_px"].tolist())
    r, c = np.meshgrid(rows, columns, indexing="ij")
    places = np.einsum("ij,jhw->ihw", view["matrix"].numpy(), np.stack([r, c, np.ones_like(r)]).astype(float))
    return np.abs(places - np.floor(places) - 0.5).min(0)


@pytest.mark.parametrize("size", [(96, 96), (64, 90), (91, 58)])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_same_images_and_labels_as_the_chain(options, size):
    sampling = training_augmentation(KEYS, **options)
    # A stain that is strong and dark steepens what one place differs from the next: at 64 grey values by 4 * 1.2 at most.
    tolerance = GREY_TOLERANCE * (5 if "stain_jitter" in options else 1)
    for seed in range(6):
        item = noise(*size, seed=seed)
        got = seeded(sampling, item, seed)
        expected = seeded(chain_of(sampling), item, seed)
        before_rounding = seeded(chain_of(sampling, rounds=False), item, seed)["image"]
        for key in KEYS:
            assert (got[key].shape, got[key].dtype, type(got[key])) == (expected[key].shape, expected[key].dtype, torch.Tensor)
        assert (got["image"].float() - before_rounding).abs().max() <= 0.5 + tolerance
        sampling.set_random_state(seed=seed)
        is_ambiguous = distance_to_border(sampling.draw(item["image"].shape[-2:])) <= PLACE_TOLERANCE_PX
        for key in ("mask", "superpixels"):
            differs = (got[key] != expected[key])[0].numpy()
            assert not (differs & ~is_ambiguous).any()
        assert got["label"] == 1


@pytest.mark.parametrize("options", [TURNS_ALONE, {**TURNS_ALONE, "crop_size_px": 23}, {**TURNS_ALONE, "stain_jitter": 0.2}])
@pytest.mark.parametrize("size", [(96, 96), (64, 90)])
def test_turns_and_crops_are_exact(options, size):
    sampling = training_augmentation(KEYS, **options)
    for seed in range(16):
        item = noise(*size, seed=seed)
        got, expected = (seeded(transform, item, seed) for transform in (sampling, chain_of(sampling)))
        assert torch.equal(got["mask"], expected["mask"])
        assert torch.equal(got["superpixels"], expected["superpixels"])
        # Stains are changed by sums in another order.
        assert (got["image"].int() - expected["image"].int()).abs().max() <= ("stain_jitter" in options)


@pytest.mark.parametrize("options", [*OPTIONS, TURNS_ALONE, {**TURNS_ALONE, "crop_size_px": 23}], ids=str)
def test_a_deferred_batch_is_what_its_items_would_have_been(tmp_path, options):
    datasets = [region_dataset(tmp_path, training_augmentation(["image", "mask"], **options), size_px=48) for _ in range(2)]
    loaders = [RegionLoader(dataset, 4) for dataset in datasets]
    loaders[1].defer_augmentation()
    for at_once, deferred in zip(*loaders, strict=True):
        assert VIEW in deferred
        assert deferred["image"].shape[-2:] == (48, 48)
        sampled = sample_views(deferred, "cpu")
        assert sampled.keys() == at_once.keys()
        for key in ("image", "mask", "label", "index"):
            assert torch.equal(sampled[key], at_once[key]), key


def region_dataset(folder, transform, size_px, sizes=(48, 48, 48, 48, 48)):
    records = []
    for number, size in enumerate(sizes):
        item = noise(size, size, seed=number)
        paths = {key: str(folder / f"{number}_{key}.png") for key in ("image", "mask")}
        Image.fromarray(item["image"].permute(1, 2, 0).numpy()).save(paths["image"])
        Image.fromarray(item["mask"][0].numpy()).save(paths["mask"])
        records.append({**paths, "label": 1, "row": number + 2})
    return RegionDataset(records, size_px=size_px, transform=transform, pixel_labels="mask", seed=3)


def test_stains_are_normalized_before_an_image_is_deferred(tmp_path):
    transform = normalized_and_augmented(["image", "mask"], "monai", augment=True, stain_jitter=0.1)
    dataset = region_dataset(tmp_path, transform, 48)
    at_once = dataset[2]
    dataset.defer_augmentation()
    deferred = dataset[2]
    batch = {name: part[None] for name, part in deferred.items() if isinstance(part, torch.Tensor)}
    sampled = sample_views({**batch, VIEW: {name: part[None] for name, part in deferred[VIEW].items()}}, "cpu")
    assert not torch.equal(deferred["image"], at_once["image"])
    assert torch.equal(sampled["image"][0], at_once["image"])
    assert torch.equal(sampled["mask"][0], at_once["mask"])
    # The transform itself may belong to other data sets.
    assert VIEW not in transform(noise(48, 48))


def test_images_of_several_sizes_are_not_deferred(tmp_path):
    dataset = region_dataset(tmp_path, training_augmentation(["image", "mask"], crop_size_px=20), None, sizes=(30, 48))
    dataset.defer_augmentation()
    assert [dataset[index]["image"].shape for index in range(2)] == [(3, 20, 20)] * 2
