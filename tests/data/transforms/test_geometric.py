import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from shared.data import NormalizeStains, normalized_and_augmented, training_augmentation
from shared.synthetic import synthesize_breast_patch

SIZE_PX = 48


def blobs(seed=0):
    """A smooth field as an image ``(3, H, W)`` uint8 and the mask ``(1, H, W)`` of where it is above 128."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(SIZE_PX, SIZE_PX)), 5)
    field = np.uint8(np.interp(noise, (noise.min(), noise.max()), (0, 255)))
    image = torch.from_numpy(field)[None].repeat(3, 1, 1)
    return {"image": image, "mask": (image[:1] > 128).to(torch.uint8), "label": 1, "index": 5}


def applied(transform, item, seed):
    return transform.set_random_state(seed=seed)(dict(item))


@pytest.mark.parametrize("seed", range(8))
def test_image_and_mask_move_together(seed):
    transform = training_augmentation(["image", "mask"])
    result = applied(transform, blobs(), seed)
    image, mask = result["image"], result["mask"]
    assert (image.dtype, mask.dtype) == (torch.uint8, torch.uint8)
    assert image.shape == (3, SIZE_PX, SIZE_PX)
    assert mask.shape == (1, SIZE_PX, SIZE_PX)
    assert set(mask.unique().tolist()) <= {0, 1}
    assert not torch.equal(mask, blobs()["mask"])
    # Nearest and bilinear sampling differ within a pixel of the edge, where the field is near 128.
    disagree = (image[:1] > 128) != mask.bool()
    assert disagree.float().mean() < 0.04
    assert ((image[:1][disagree].int() - 128).abs() < 40).all()
    assert (result["label"], result["index"]) == (1, 5)


def test_only_quarter_turns_and_mirrors_without_the_rest():
    item = blobs()
    item["image"][1] = torch.arange(SIZE_PX * SIZE_PX).reshape(SIZE_PX, SIZE_PX) % 251
    transform = training_augmentation(["image", "mask"], free_rotation=False, max_scale=1.0)
    both = torch.cat([item["image"], item["mask"]])
    eight = [torch.rot90(image, turns, (1, 2)) for image in (both, both.flip(2)) for turns in range(4)]
    seen = set()
    for seed in range(60):
        result = applied(transform, item, seed)
        moved = torch.cat([result["image"], result["mask"]])
        seen.add(next(number for number, expected in enumerate(eight) if torch.equal(moved, expected)))
    assert seen == set(range(8))


def test_scale_only_magnifies():
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX] - (SIZE_PX - 1) / 2
    disc = torch.from_numpy(np.uint8(np.hypot(x, y) < 10))[None]
    item = {"image": disc.repeat(3, 1, 1) * 200, "mask": disc}
    transform = training_augmentation(["image", "mask"], free_rotation=False, max_scale=1.2)
    growth = [applied(transform, item, seed)["mask"].sum().item() / disc.sum().item() for seed in range(60)]
    # Area: each axis by 1 to 1.2; a pixel of rounding at the edge.
    assert min(growth) > 0.97
    assert 1.3 < max(growth) < 1.47


def test_a_free_rotation_alone_keeps_areas():
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX] - (SIZE_PX - 1) / 2
    bar = torch.from_numpy(np.uint8((abs(x) < 12) & (abs(y) < 4)))[None]
    transform = training_augmentation(["image", "mask"], max_scale=1.0)
    angles = []
    for seed in range(40):
        mask = applied(transform, {"image": bar.repeat(3, 1, 1), "mask": bar}, seed)["mask"][0].numpy()
        assert abs(mask.sum() / bar.sum().item() - 1) < 0.1
        rows, columns = np.nonzero(mask)
        (xx, xy), (_, yy) = np.cov(columns, rows)
        angles.append(np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)) % 180)
    # Any angle, not quarter turns only.
    assert (np.histogram(angles, bins=6, range=(0, 180))[0] > 0).all()


def test_uncovered_corners_are_filled_with_tissue():
    item = {"image": torch.full((3, SIZE_PX, SIZE_PX), 90, dtype=torch.uint8)}
    for seed in range(5):
        assert (applied(training_augmentation(), item, seed)["image"] == 90).all()


def test_grey_values_are_rounded_and_not_cut_off():
    item = blobs()
    transform = training_augmentation(max_scale=1.2)
    means = [applied(transform, {"image": item["image"] // 8 + 100}, seed)["image"].float().mean() for seed in range(30)]
    assert abs(float(np.mean(means)) - (item["image"] // 8 + 100).float().mean().item()) < 0.3


@pytest.mark.parametrize("crop_size_px", [1, 17, SIZE_PX])
def test_crop(crop_size_px):
    transform = training_augmentation(["image", "mask"], crop_size_px=crop_size_px, free_rotation=False, max_scale=1.0)
    results = [applied(transform, blobs(), seed) for seed in range(4)]
    for result in results:
        assert result["image"].shape == (3, crop_size_px, crop_size_px)
        assert torch.equal(result["image"][:1] > 128, result["mask"] == 1)
    assert crop_size_px == 1 or any(not torch.equal(results[0]["image"], result["image"]) for result in results[1:])


def test_stain_jitter_leaves_the_mask_alone():
    options = {"keys": ["image", "mask"], "free_rotation": False, "max_scale": 1.0}
    item = blobs()
    plain = applied(training_augmentation(**options), item, seed=3)
    jittered = applied(training_augmentation(**options, stain_jitter=0.2), item, seed=3)
    assert torch.equal(plain["mask"], jittered["mask"])
    assert not torch.equal(plain["image"], jittered["image"])
    assert jittered["image"].dtype == torch.uint8


def test_plain_tensors_come_out():
    result = applied(training_augmentation(["image", "mask"]), blobs(), seed=0)
    assert type(result["image"]) is torch.Tensor
    assert type(result["mask"]) is torch.Tensor


def numbered():
    """`blobs` with super-pixels of 3 px whose ids go up to 65535, and the image's grey values at each of them."""
    item = blobs()
    blocks = SIZE_PX // 3
    ids = torch.linspace(0, 65535, blocks * blocks).round().int().reshape(1, blocks, blocks)
    item["superpixels"] = ids.repeat_interleave(3, 1).repeat_interleave(3, 2)
    return item


@pytest.mark.parametrize("keys", [["image", "superpixels"], ["image", "mask", "superpixels"]])
def test_superpixels_keep_their_ids(keys):
    item = {key: value for key, value in numbered().items() if key in keys}
    ids = set(item["superpixels"].unique().tolist())
    assert {0, 65535} < ids
    seen = set()
    for seed in range(8):
        result = applied(training_augmentation(keys), item, seed)
        assert result["superpixels"].dtype == torch.int32
        assert type(result["superpixels"]) is torch.Tensor
        assert result["superpixels"].shape == (1, SIZE_PX, SIZE_PX)
        assert {result[key].dtype for key in keys if key != "superpixels"} == {torch.uint8}
        seen |= set(result["superpixels"].unique().tolist())
    assert seen <= ids
    assert {0, 65535} < seen


@pytest.mark.parametrize("seed", range(4))
def test_superpixels_move_with_the_mask(seed):
    item = numbered()
    # Super-pixels that say where the mask is.
    item["superpixels"] = 65000 + item["mask"].int()
    result = applied(training_augmentation(["image", "mask", "superpixels"], crop_size_px=40, stain_jitter=0.1), item, seed)
    assert torch.equal(result["superpixels"] - 65000, result["mask"].int())


def test_superpixels_change_nothing_for_the_others():
    for seed in range(3):
        plain = applied(training_augmentation(["image", "mask"]), blobs(), seed)
        beside = applied(training_augmentation(["image", "mask", "superpixels"]), numbered(), seed)
        assert torch.equal(plain["image"], beside["image"])
        assert torch.equal(plain["mask"], beside["mask"])


def test_superpixels_are_turned_and_mirrored_exactly():
    item = numbered()
    transform = training_augmentation(["image", "superpixels"], free_rotation=False, max_scale=1.0)
    both = torch.cat([item["image"].int(), item["superpixels"]])
    eight = [torch.rot90(one, turns, (1, 2)) for one in (both, both.flip(2)) for turns in range(4)]
    for seed in range(20):
        result = applied(transform, item, seed)
        moved = torch.cat([result["image"].int(), result["superpixels"]])
        assert any(torch.equal(moved, expected) for expected in eight)


def stained(seed=0):
    """A generated image with its mask: stains that can be distinguished."""
    image = synthesize_breast_patch(seed, label=2, size_px=SIZE_PX)
    return {
        "image": torch.from_numpy(image.image).permute(2, 0, 1).contiguous(),
        "mask": torch.from_numpy(image.labels)[None],
        "label": 2,
    }


def test_nothing_asked_for_is_no_transform():
    assert normalized_and_augmented() is None
    # Jitter is of augmented images only.
    assert normalized_and_augmented(["image", "mask"], stain_jitter=0.2) is None


def test_stains_alone_are_normalized():
    result = normalized_and_augmented(["image", "mask"], stain_reference="monai")(stained())
    assert torch.equal(result["image"], NormalizeStains()(stained()["image"]))
    assert not torch.equal(result["image"], stained()["image"])
    assert torch.equal(result["mask"], stained()["mask"])


def test_stains_are_normalized_to_an_image(tmp_path):
    reference = tmp_path / "reference.png"
    Image.fromarray(stained(seed=1)["image"].permute(1, 2, 0).numpy()).save(reference)
    result = normalized_and_augmented(stain_reference=str(reference))(stained())
    assert torch.equal(result["image"], NormalizeStains(reference)(stained()["image"]))
    assert not torch.equal(result["image"], NormalizeStains()(stained()["image"]))
    with pytest.raises(ValueError, match=r"missing\.png"):
        normalized_and_augmented(stain_reference=str(tmp_path / "missing.png"))


def test_quarter_turns_alone_are_those_of_training():
    item = stained()
    transform = normalized_and_augmented(["image", "mask"], augment=True)
    both = torch.cat([item["image"], item["mask"]])
    eight = [torch.rot90(image, turns, (1, 2)) for image in (both, both.flip(2)) for turns in range(4)]
    seen = set()
    for seed in range(60):
        result = applied(transform, item, seed)
        assert type(result["image"]) is torch.Tensor
        moved = torch.cat([result["image"], result["mask"]])
        seen.add(next(number for number, expected in enumerate(eight) if torch.equal(moved, expected)))
    assert seen == set(range(8))


@pytest.mark.parametrize("seed", range(4))
def test_augmentation_follows_the_normalization(seed):
    """A turned image is normalised as the image is: percentiles know no places."""
    options = {"augment": True, "stain_jitter": 0.1}
    result = applied(normalized_and_augmented(["image", "mask"], "monai", **options), stained(), seed)
    normalized = stained() | {"image": NormalizeStains()(stained()["image"])}
    expected = applied(normalized_and_augmented(["image", "mask"], **options), normalized, seed)
    assert torch.equal(result["image"], expected["image"])
    assert torch.equal(result["mask"], expected["mask"])
    assert result["image"].dtype == result["mask"].dtype == torch.uint8


def test_a_seed_reaches_the_random_transforms():
    transform = normalized_and_augmented(augment=True, stain_jitter=0.2)
    images = [applied(transform, stained(), seed)["image"] for seed in (0, 0, 1, 2)]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
    assert not torch.equal(images[2], images[3])


def test_images_that_are_not_square_keep_their_shape():
    image = torch.arange(3 * 4 * 6, dtype=torch.uint8).reshape(3, 4, 6)
    item = {"image": image, "mask": image[:1].clone()}
    transform = training_augmentation(["image", "mask"], free_rotation=False, max_scale=1.0)
    transform.set_random_state(seed=0)
    seen = set()
    for _ in range(40):
        result = transform(item)
        assert result["image"].shape == (3, 4, 6)
        assert torch.equal(result["image"][:1], result["mask"])
        seen.add(tuple(result["mask"].flatten().tolist()))
    # As it was, turned by half a turn, and both mirrored.
    assert len(seen) == 4


@pytest.mark.parametrize("free_rotation", [False, True])
def test_one_magnification_for_both_axes(free_rotation):
    """A turn and one scale keep right angles right and sides equal, two scales do not; the scales stay what they were."""
    views = {}
    for isotropic in (True, False):
        transform = training_augmentation(free_rotation=free_rotation, max_scale=1.2, isotropic=isotropic)
        drawn = []
        for seed in range(40):
            transform.set_random_state(seed=seed)
            drawn.append(transform.draw(torch.Size((SIZE_PX, SIZE_PX)))["matrix"][:, :2])
        views[isotropic] = torch.stack(drawn)
    gram = views[True].mT @ views[True]
    scales = gram[:, 0, 0].sqrt()
    torch.testing.assert_close(gram, scales[:, None, None] ** 2 * torch.eye(2).double().expand_as(gram), rtol=0, atol=1e-6)
    assert 1 / 1.2 <= scales.min() < 0.86
    assert 0.97 < scales.max() <= 1
    assert not torch.allclose(torch.linalg.cond(views[False]), torch.ones(40).double(), atol=1e-3)
