"""Stain normalisation: against MONAI, on images of known stains, and on images without any."""

import pickle

import numpy as np
import pytest
import torch
from monai.apps.pathology.transforms import ExtractHEStains, NormalizeHEStains
from PIL import Image

from shared.data import NormalizeStains, NormalizeStainsd, RegionDataset, StainNormalization, StainReference
from shared.wsi import Slide, find_tissue

LIGHT = 240


def stained(stains, strength=(1.0, 1.0), size_px=(48, 40), seed=0):
    """An image of two stains of known colour: some pixels hold one, some the other, some both; uint8 ``(H, W, 3)``."""
    rng = np.random.default_rng(seed)
    amounts = rng.uniform(0.3, 1.2, (size_px[1] * size_px[0], 2)) * np.array(strength)
    kind = rng.integers(0, 3, len(amounts))
    amounts[kind == 0, 0] = 0
    amounts[kind == 1, 1] = 0
    colours = LIGHT * np.exp(-amounts @ np.asarray(stains).T) - 1
    return np.uint8(np.clip(colours.round(), 0, 255).reshape(size_px[1], size_px[0], 3))


def unit(vectors):
    vectors = np.asarray(vectors, dtype=float)
    return vectors / np.linalg.norm(vectors, axis=0)


# Columns; both dense enough in every channel that a pixel with one of them counts as stained.
PURPLE_PINK = unit([[0.60, 0.30], [0.70, 0.85], [0.35, 0.40]])
BLUE_RED = unit([[0.70, 0.25], [0.60, 0.90], [0.30, 0.50]])


def as_tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)


@pytest.fixture
def reference_file(tmp_path):
    Image.fromarray(stained(BLUE_RED, (1.5, 0.8))).save(tmp_path / "reference.png")
    return tmp_path / "reference.png"


def test_defaults_are_those_of_monai():
    monai = NormalizeHEStains()
    assert np.array_equal(StainReference().stains, monai.target_he)
    assert np.array_equal(StainReference().concentrations, monai.max_cref)


def test_is_monai_with_haematoxylin_first():
    image, reference = stained(PURPLE_PINK), StainReference()
    found = ExtractHEStains()(image)
    # MONAI 1.6 gives eosin first, so that its target has to come in that order, too.
    order = [0, 1] if found[0, 0] > found[0, 1] else [1, 0]
    monai = NormalizeHEStains(target_he=np.array(reference.stains)[:, order], max_cref=np.array(reference.concentrations)[order])
    assert np.array_equal(NormalizeStains()(as_tensor(image)).permute(1, 2, 0).numpy(), monai(image))


@pytest.mark.parametrize("of", [NormalizeStains, StainNormalization])
def test_haematoxylin_stays_haematoxylin(of):
    image = stained(PURPLE_PINK)
    density = -np.log((image.reshape(-1, 3) + 1.0).clip(max=LIGHT) / LIGHT)
    haematoxylin, eosin = np.linalg.lstsq(PURPLE_PINK, density.T, rcond=None)[0]
    result = of()(as_tensor(image)[None])[0] if of is StainNormalization else of()(as_tensor(image))
    red, _, blue = result.flatten(1).float().numpy()
    # Beer and Lambert: haematoxylin takes more red than blue light away.
    assert (blue - red)[haematoxylin > 2 * eosin].mean() > 10
    assert (blue - red)[eosin > 2 * haematoxylin].mean() < -10


def test_stains_of_a_reference_file(reference_file):
    reference = StainReference.of_image(reference_file)
    assert np.allclose(reference.stains, BLUE_RED, atol=0.03)
    # Amounts are even in 0.3 ... 1.2 for two thirds of the pixels: the 99th percentile of all is the 98.5th of those.
    expected = (0.3 + 0.985 * 0.9) * np.array([1.5, 0.8])
    assert np.allclose(reference.concentrations, expected, rtol=0.05)


@pytest.mark.parametrize("of", [NormalizeStains, StainNormalization])
def test_an_image_of_other_stains_becomes_the_reference(of, reference_file):
    normalize = of(reference_file)
    # The same amounts of other stains: exactly the reference is wanted.
    image = as_tensor(stained(PURPLE_PINK, (0.7, 1.1)))
    wanted = as_tensor(np.array(Image.open(reference_file))).float()
    result = normalize(image[None])[0] if of is StainNormalization else normalize(image)
    assert (result.dtype, result.shape) == (torch.uint8, image.shape)
    assert (result.float() - wanted).abs().mean() < 4 < (image.float() - wanted).abs().mean() / 5


def test_is_idempotent(reference_file):
    normalize = NormalizeStains(reference_file)
    once = normalize(as_tensor(stained(PURPLE_PINK)))
    assert (normalize(once).float() - once.float()).abs().mean() < 1.5


def test_batches_are_as_monai():
    rng = np.random.default_rng(1)
    strengths = rng.uniform(0.6, 1.6, (6, 2))
    images = torch.stack([as_tensor(stained(PURPLE_PINK, strength, seed=i)) for i, strength in enumerate(strengths)])
    expected = torch.stack([NormalizeStains()(image) for image in images])
    difference = (StainNormalization()(images).int() - expected.int()).abs()
    assert difference.max() <= 1
    assert difference.float().mean() < 0.01
    assert StainNormalization()(images[:0]).shape == (0, 3, 40, 48)


def glass(tissue_px=0):
    image = np.full((40, 48, 3), 245, np.uint8)
    image.reshape(-1, 3)[:tissue_px] = stained(PURPLE_PINK).reshape(-1, 3)[:tissue_px]
    return image


STAINLESS = {
    "white": np.full((40, 48, 3), 255, np.uint8),
    "glass": glass(),
    "one pixel": glass(1),
    "two pixels": glass(2),
    "3 % tissue": glass(76),
    "black": np.zeros((40, 48, 3), np.uint8),
    "grey": np.full((40, 48, 3), 120, np.uint8),
    "greys": np.random.default_rng(0).integers(0, 200, (40, 48, 1), dtype=np.uint8).repeat(3, axis=2),
    "one colour": np.full((40, 48, 3), (150, 90, 160), np.uint8),
}


# But not what the garbage collector says of earlier tests.
@pytest.mark.filterwarnings("error", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", STAINLESS)
def test_images_without_stains_stay_as_they_are(name):
    image = as_tensor(STAINLESS[name])
    assert torch.equal(NormalizeStains()(image), image)
    # Also together with one that changes.
    batch = torch.stack([image, as_tensor(stained(PURPLE_PINK))])
    result = StainNormalization()(batch)
    assert torch.equal(result[0], image)
    assert not torch.equal(result[1], batch[1])


def test_a_tenth_of_tissue_is_enough():
    image = as_tensor(glass(192))
    result = NormalizeStains()(image)
    assert not torch.equal(result, image)
    # Glass stays glass.
    assert result[:, 10:].min() > 225


def test_survives_pickling(reference_file):
    normalize = NormalizeStains(reference_file)
    reference_file.unlink()
    image = as_tensor(stained(PURPLE_PINK))
    assert torch.equal(pickle.loads(pickle.dumps(normalize))(image), normalize(image))
    assert torch.equal(NormalizeStains(normalize.reference)(image), normalize(image))


def test_as_the_transform_of_a_data_set(tmp_path, reference_file):
    Image.fromarray(stained(PURPLE_PINK)).save(tmp_path / "a.png")
    record = {"image": str(tmp_path / "a.png"), "label": 2}
    item = RegionDataset([record], transform=NormalizeStainsd("image", reference_file))[0]
    assert torch.equal(item["image"], NormalizeStains(reference_file)(as_tensor(stained(PURPLE_PINK))))
    assert item["label"] == 2


def test_a_reference_without_stains_names_the_file(tmp_path):
    Image.fromarray(STAINLESS["grey"]).save(tmp_path / "grey.png")
    with pytest.raises(ValueError, match=r"grey\.png: not usable as a stain reference: its pixels have one colour"):
        NormalizeStains(tmp_path / "grey.png")
    Image.fromarray(STAINLESS["3 % tissue"]).save(tmp_path / "glass.png")
    with pytest.raises(ValueError, match=r"glass\.png: .* \d\.\d% of its pixels are stained, and at least 5% are needed"):
        StainReference.of_image(tmp_path / "glass.png")
    Image.fromarray(np.zeros((2048, 8193, 3), np.uint8)).save(tmp_path / "wide.png")
    with pytest.raises(ValueError, match=r"wide\.png: a stain reference is a tile of up to 4096 x 4096 px, got 8193 x 2048 px"):
        NormalizeStains(tmp_path / "wide.png")
    with pytest.raises(ValueError, match=r"none\.png"):
        NormalizeStains(tmp_path / "none.png")


@pytest.mark.parametrize("image", [torch.zeros(3, 4, 5), torch.zeros(4, 4, 3, dtype=torch.uint8)])
def test_rejects_other_images(image):
    with pytest.raises(ValueError, match=r"uint8 \(3, H, W\); got"):
        NormalizeStains()(image)
    with pytest.raises(ValueError, match=r"uint8 or float \(N, 3, H, W\); got"):
        StainNormalization()(image.movedim(0, -1)[None])


def test_float_images_are_those_of_their_rounded_values():
    images = torch.randint(30, 220, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    normalize = StainNormalization()
    assert torch.equal(normalize(images.float() + 0.2), normalize(images))


def test_real_tissue(wsi_test_data):
    with Slide(wsi_test_data / "slides/tcga-cr-7395-01a-01-ts1.svs", mpp=0.5) as slide:
        xys = find_tissue(slide, method="saturation").sample_tiles(np.random.default_rng(0), 12, 256, 0.5)
        tiles = torch.from_numpy(slide.read_regions(xys, 128, 1.0)).permute(0, 3, 1, 2)
    expected = torch.stack([NormalizeStains()(tile) for tile in tiles])
    difference = (StainNormalization()(tiles).int() - expected.int()).abs().float()
    assert difference.mean() < 0.02
    assert expected.float().mean((0, 2, 3)).sub(tiles.float().mean((0, 2, 3))).abs().max() > 5


@pytest.mark.gpu
def test_batches_on_a_gpu():
    images = torch.stack([as_tensor(stained(PURPLE_PINK, seed=seed)) for seed in range(4)] + [as_tensor(STAINLESS["grey"])])
    expected = StainNormalization()(images)
    result = StainNormalization().cuda()(images.cuda()).cpu()
    assert (result.int() - expected.int()).abs().max() <= 1
