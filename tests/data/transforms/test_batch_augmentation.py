import math

import pytest
import torch

from shared.data import scale_stains
from shared.data.transforms.batch_augmentation import (
    LUMA,
    TileAugmentation,
    _dihedral_by_masks,
    apply_colour,
    colour_matrices,
    dihedral,
    scale_tile_stains,
)

FORMATS = [torch.contiguous_format, torch.channels_last]
UNCHANGED = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}


def random_tiles(num_tiles=6, size_px=10, low=0, high=256, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (num_tiles, 3, size_px, size_px), generator=generator, dtype=torch.uint8)


def orientations(tile):
    """The eight, built by quarter turns and a mirror: other operations than the ones tested."""
    return [torch.rot90(image, turns, dims=(-2, -1)) for image in (tile, tile.flip(-1)) for turns in range(4)]


def changed(tiles, **changes):
    """Tiles after the same colour change of each."""
    matrices, grey_shares = colour_matrices(*(torch.full((len(tiles),), value) for value in (UNCHANGED | changes).values()))
    return apply_colour(tiles, matrices, grey_shares)


def grey_of(tiles):
    return torch.einsum("c,nchw->nhw", LUMA, tiles.double())


def naive_colour(tile, brightness, contrast, saturation, hue):
    """One tile ``(3, H, W)``, step by step in float64, the hue by its angle in the (I, Q) plane."""
    to_grey = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)[:, None, None]
    tile = tile.double() * brightness
    mean_grey = (tile * to_grey).sum(0).mean()
    tile = contrast * tile + (1 - contrast) * mean_grey
    tile = saturation * tile + (1 - saturation) * (tile * to_grey).sum(0)
    red, green, blue = tile
    luma = (tile * to_grey).sum(0)
    chroma = torch.complex(0.596 * red - 0.274 * green - 0.322 * blue, 0.211 * red - 0.523 * green + 0.312 * blue)
    chroma = chroma * complex(math.cos(2 * math.pi * hue), math.sin(2 * math.pi * hue))
    yiq = torch.stack([luma, chroma.real, chroma.imag]).reshape(3, -1)
    rows = [[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]]
    return torch.linalg.solve(torch.tensor(rows, dtype=torch.float64), yiq).reshape(tile.shape).clamp(0, 255)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_eight_orientations(device, memory_format, dtype):
    tile = random_tiles(1, size_px=5).to(dtype)
    tiles = tile.repeat(8, 1, 1, 1).to(device).contiguous(memory_format=memory_format)
    turned = dihedral(tiles, torch.arange(8))
    assert turned.is_contiguous(memory_format=memory_format)
    assert turned.dtype == dtype
    found = [next(i for i, want in enumerate(orientations(tile[0])) if torch.equal(image, want)) for image in turned.cpu()]
    assert sorted(found) == list(range(8))
    # As the docstring says: the tile itself, half a turn, the quarter turns to the right and to the left.
    assert [found[which] for which in (0, 3, 5, 6)] == [0, 2, 3, 1]


@pytest.mark.parametrize("memory_format", FORMATS)
def test_both_ways_to_turn_agree(memory_format):
    tiles = random_tiles(40).contiguous(memory_format=memory_format)
    which = torch.arange(40) % 8
    by_masks = _dihedral_by_masks(tiles, which)
    assert torch.equal(by_masks, dihedral(tiles, which))
    assert by_masks.is_contiguous(memory_format=memory_format)


def test_zero_jitters_give_exactly_the_turned_pixels(device):
    tiles = random_tiles(400, size_px=4)
    torch.manual_seed(0)
    turned = TileAugmentation(colour_jitter=0.0, hue_jitter=0.0)(tiles.to(device)).cpu()
    assert turned.dtype == torch.float32
    counts = [0] * 8
    for tile, image in zip(tiles.float(), turned, strict=True):
        counts[next(i for i, want in enumerate(orientations(tile)) if torch.equal(image, want))] += 1
    # 50 of each are expected, with a standard deviation of 6.6.
    assert 25 < min(counts) <= max(counts) < 75


@pytest.mark.parametrize("stain_jitter", [0.0, 0.2])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_manual_seed_repeats_it_on_every_device(device, memory_format, stain_jitter):
    tiles = random_tiles().contiguous(memory_format=memory_format)
    results = []
    for seed, place, batch in ((0, "cpu", tiles), (0, device, tiles), (0, device, tiles.float()), (1, device, tiles)):
        torch.manual_seed(seed)
        results.append(TileAugmentation(stain_jitter=stain_jitter)(batch.to(place)).cpu())
    assert all(result.is_contiguous(memory_format=memory_format) for result in results)
    assert all(result.dtype == torch.float32 for result in results)
    torch.testing.assert_close(results[0], results[1], atol=1e-2 if device == "cuda" else 0, rtol=0)
    assert torch.equal(results[1], results[2])
    assert not torch.equal(results[1], results[3])


def test_draws_depend_on_the_number_of_tiles_only():
    states = []
    for options in ({}, {"stain_jitter": 0.3}, {"colour_jitter": 0.0, "hue_jitter": 0.0}):
        for tiles in (random_tiles(), torch.zeros(6, 3, 4, 4)):
            torch.manual_seed(0)
            TileAugmentation(**options)(tiles)
            states.append(torch.get_rng_state())
    assert all(torch.equal(state, states[0]) for state in states)


def test_tiles_given_stay_as_they_are():
    for tiles in (random_tiles(), random_tiles().float(), random_tiles().float().contiguous(memory_format=torch.channels_last)):
        before = tiles.clone()
        TileAugmentation(stain_jitter=0.2)(tiles).zero_()
        assert torch.equal(tiles, before)


def test_memory_with_gaps_or_transposed():
    whole = random_tiles(6, size_px=12)
    for batch in (whole[::2, :, 1:9, 2:10], whole.contiguous(memory_format=torch.channels_last)[::2, :, 1:9, 2:10], whole.mT):
        results = []
        for tiles in (batch, batch.contiguous()):
            torch.manual_seed(0)
            results.append(TileAugmentation(stain_jitter=0.1)(tiles))
        torch.testing.assert_close(*results, atol=1e-3, rtol=0)
    strided = whole.contiguous(memory_format=torch.channels_last)[::2]
    assert TileAugmentation()(strided).is_contiguous(memory_format=torch.channels_last)


def test_no_tiles():
    assert TileAugmentation(stain_jitter=0.1)(torch.zeros(0, 3, 8, 8, dtype=torch.uint8)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_colour_equals_a_naive_reference(device, memory_format):
    tiles = random_tiles(50).contiguous(memory_format=memory_format)
    generator = torch.Generator().manual_seed(1)
    factors, hue = 0.5 + torch.rand(3, 50, generator=generator), torch.rand(50, generator=generator) - 0.5
    matrices, grey_shares = colour_matrices(*factors, hue)
    for batch in (tiles, tiles.float()):
        result = apply_colour(batch.to(device), matrices, grey_shares)
        assert result.is_contiguous(memory_format=memory_format)
        for tile, image, amounts, turn in zip(tiles, result.cpu(), factors.T.tolist(), hue.tolist(), strict=True):
            expected = naive_colour(tile, *amounts, turn)
            torch.testing.assert_close(image.double(), expected, atol=2e-3 if device == "cpu" else 0.5, rtol=0)


def test_brightness_doubles():
    tiles = random_tiles(high=120)
    torch.testing.assert_close(changed(tiles, brightness=2.0), 2 * tiles.float())


def test_contrast_keeps_the_mean_grey_of_each_tile():
    tiles = random_tiles(low=80, high=180)
    result = changed(tiles, contrast=1.3)
    torch.testing.assert_close(grey_of(result).mean((1, 2)), grey_of(tiles).mean((1, 2)), atol=1e-3, rtol=0)
    torch.testing.assert_close(grey_of(result).std((1, 2)), 1.3 * grey_of(tiles).std((1, 2)), atol=1e-3, rtol=0)


def test_saturation_and_hue_keep_grey():
    grey = random_tiles()[:, :1].expand(-1, 3, -1, -1)
    for changes in ({"saturation": 0.0}, {"saturation": 2.0}, {"hue": 0.3}, {"saturation": 1.5, "hue": -0.2}):
        torch.testing.assert_close(changed(grey, **changes), grey.float(), atol=1e-3, rtol=0)
    tiles = random_tiles(low=100, high=150)
    without_colour = changed(tiles, saturation=0.0)
    torch.testing.assert_close(without_colour.double(), grey_of(tiles)[:, None].expand_as(tiles), atol=1e-3, rtol=0)


def test_hue_keeps_luma_and_comes_round_in_a_full_turn():
    tiles = random_tiles(low=110, high=145)
    torch.testing.assert_close(grey_of(changed(tiles, hue=0.2)), grey_of(tiles), atol=1e-3, rtol=0)
    torch.testing.assert_close(changed(tiles, hue=1.0), tiles.float(), atol=1e-3, rtol=0)
    # Half a turn is the complementary colour: its chroma is the opposite one.
    both = changed(tiles, hue=0.5) + tiles
    torch.testing.assert_close(both, 2 * grey_of(tiles)[:, None].float().expand_as(tiles), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["contrast", "saturation"])
def test_colours_are_clamped(name):
    result = changed(random_tiles(), **{name: 4.0})
    assert (result.min(), result.max()) == (0, 255)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_stains_equal_those_of_single_images(device, memory_format):
    tiles = random_tiles().contiguous(memory_format=memory_format)
    generator = torch.Generator().manual_seed(1)
    factors, shifts = 0.6 + 0.8 * torch.rand(6, 3, generator=generator), 0.1 * torch.rand(6, 3, generator=generator) - 0.05
    for batch in (tiles, tiles.float()):
        result = scale_tile_stains(batch.to(device), factors, shifts)
        assert result.is_contiguous(memory_format=memory_format)
        expected = torch.stack([scale_stains(*each) for each in zip(tiles, factors, shifts, strict=True)])
        torch.testing.assert_close(result.cpu(), expected, atol=1e-3 if device == "cpu" else 0.5, rtol=0)


def test_jitters_stay_within_their_strength():
    # White and uniform: contrast, saturation and hue do nothing, and the factor of the brightness can be read off.
    tiles = torch.full((500, 3, 2, 2), 200.0)
    torch.manual_seed(0)
    factors = TileAugmentation(colour_jitter=0.2, hue_jitter=0.5)(tiles)[:, 0, 0, 0] / 200
    assert 0.799 < factors.min() < 0.81
    assert 1.19 < factors.max() < 1.201
    assert abs(factors.mean() - 1) < 0.02
    torch.manual_seed(0)
    stained = TileAugmentation(colour_jitter=0.0, hue_jitter=0.0, stain_jitter=0.2)(torch.full((500, 3, 2, 2), 255.0))
    # White has no stain to multiply: the shifts alone, of at most 0.02 in optical density for each of three stains.
    assert 255 * math.exp(-0.06) < stained.min() < 250


def test_rejects_what_does_not_fit():
    with pytest.raises(ValueError, match=r"square, \(N, C, S, S\); got \(2, 3, 4, 5\)"):
        TileAugmentation()(torch.zeros(2, 3, 4, 5))
    for shape in ((2, 4, 4, 3), (3, 4, 4), (2, 1, 4, 4)):
        with pytest.raises(ValueError, match=rf"\(N, 3, S, S\); got \({', '.join(map(str, shape))}\)"):
            TileAugmentation()(torch.zeros(shape))
    for which in ([0, 8], [-1, 0], [0]):
        with pytest.raises(ValueError, match=rf"2 integers in 0 \.\.\. 7; got \[{', '.join(map(str, which))}\]"):
            dihedral(torch.zeros(2, 3, 4, 4), torch.tensor(which))
    for options in ({"colour_jitter": -0.1}, {"hue_jitter": 0.6}, {"stain_jitter": 1.5}):
        name, value = next(iter(options.items()))
        with pytest.raises(ValueError, match=f"{name}={value}"):
            TileAugmentation(**options)
