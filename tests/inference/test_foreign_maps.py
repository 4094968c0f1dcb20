"""Maps from the features of TRIDENT, CLAM and STAMP: laid out from their own patches, exactly, and without the encoder."""

import shutil
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import tifffile

from shared.encoders import foreign_encoder
from shared.features import SlideFeatures, foreign_patches
from shared.inference import Compute, ImageInput, SlideEmbedder, SlideMapper, own_features
from shared.inference.tiles.stored_tiles import patch_weights
from tests.inference.stored import Headed, Means, options, picture

CPU = Compute(device="cpu", amp=False, num_workers=1)
STRIDE_PX = 16


@pytest.fixture
def slide(tmp_path, write_slide):
    return write_slide(tmp_path / "a.tif", picture(), mpp=0.5)


def write(path, convention, vectors, corners, patch_px, mpp=0.5, overlap_px=0, name="means"):
    """A file as a program writes it of patches of `patch_px` level-0 pixels, of 0.5 um."""
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        if convention == "STAMP":
            file["feats"], file["coords"] = vectors, (corners * 0.5).astype(np.float32)
            tile = {"tile_size_um": patch_px * 0.5, "tile_size_px": round(patch_px * 0.5 / mpp), "unit": "um"}
            file.attrs.update({"stamp_version": "2.1.0", "extractor": f"{name}-0b1d4bf2", **tile})
            return
        file["features"], file["coords"] = vectors, corners
        if convention == "TRIDENT":
            file["features"].attrs["encoder"] = name
            sizes = {"patch_size": round(patch_px * 0.5 / mpp), "patch_size_level0": patch_px, "overlap": overlap_px}
            file["coords"].attrs.update({**sizes, "target_magnification": 10 / mpp, "level0_magnification": 20})


def network_of(folder, stride_px=STRIDE_PX):
    """The head of `Headed` on the features of a folder."""
    network = Headed(foreign_encoder("means", stride_px, foreign_patches(folder)))
    network.head.load_state_dict(Headed(Means()).head.state_dict())
    return network


def mapped(network, slide, folder, features, **changed):
    """The map of a slide, uint8 (H, W)."""
    foreign = not isinstance(network.encoder, Means)
    mapper = SlideMapper(network, features=features, foreign_features=foreign, **options(**changed))
    folder.mkdir()
    mapper.map_image(ImageInput(slide, "a"), folder)
    return tifffile.imread(folder / "a.ome.tif", level=0)


def test_the_class_tokens_that_trident_stores_of_midnight(tmp_path):
    """Its authors' embedding has twice as many values: docs/encoders.md names two ways of reading these."""
    path = tmp_path / "features/a.h5"
    write(path, "TRIDENT", np.ones((2, 1536), np.float32), np.array([[0, 0], [224, 0]]), 224, name="midnight12k")
    of_class, embedding = (SimpleNamespace(name="midnight-12k", aliases=["midnight-12k"], channels=n) for n in (1536, 3072))
    with SlideFeatures.open(path) as features:
        features.check(None, of_class)
        features.check(None, foreign_encoder("midnight-12k", None, foreign_patches(path.parent)))
        with pytest.raises(ValueError, match=r"gives 3072 values, found 1536 of midnight12k\. They may be class tokens alone: "):
            features.check(None, embedding)


@pytest.mark.parametrize("mpp", [0.5, 1.0])
@pytest.mark.parametrize("convention", ["TRIDENT", "CLAM", "STAMP"])
def test_our_features_as_another_program_writes_them_make_our_map(tmp_path, slide, convention, mpp):
    given = {"tile_size_px": 128, "margin_px": 32, "mpp": mpp}
    SlideEmbedder(Means(), compute=CPU, **given).run(slide, tmp_path / "own")
    with SlideFeatures.open(tmp_path / "own/a.h5") as own:
        # In another order: nothing depends on it.
        order = np.random.default_rng(0).permutation(len(own))
        write(tmp_path / "theirs/a.h5", convention, own.read(order), own.coords[order], STRIDE_PX * round(mpp / 0.5), mpp)
    ours = mapped(Headed(Means()), slide, tmp_path / "ours", tmp_path / "own", **given)
    theirs = mapped(network_of(tmp_path / "theirs"), slide, tmp_path / "foreign", tmp_path / "theirs", **given)
    assert np.ptp(ours) > 150
    np.testing.assert_array_equal(theirs, ours)


@pytest.mark.parametrize("side", [8, 5, 12, 30])
def test_weights_are_those_of_counted_pixels(side):
    """Places of 8 x 8 px; patches that begin anywhere, also beyond the border, and overlap.

    A place whose centre lies on one patch has this patch alone.
    """
    place_px, shape = 8, (6, 9)
    rng = np.random.default_rng(side)
    corners = np.stack([rng.integers(-4, 60, 7), rng.integers(-4, 40, 7)], axis=1)
    expected, has_centre = np.zeros((*shape, 7)), np.zeros((*shape, 7), bool)
    for number, (x, y) in enumerate(corners):
        for row, column in np.ndindex(*shape):
            inside = 0
            for pixel_y, pixel_x in np.ndindex(place_px, place_px):
                at = column * place_px + pixel_x, row * place_px + pixel_y
                inside += x <= at[0] < x + side and y <= at[1] < y + side
            expected[row, column, number] = inside / place_px**2
            centre = (column + 0.5) * place_px, (row + 0.5) * place_px
            has_centre[row, column, number] = x <= centre[0] < x + side and y <= centre[1] < y + side
    found = patch_weights(corners / place_px, side / place_px, shape).toarray().reshape(*shape, 7)
    patches = has_centre.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(found, expected * np.where(patches == 1, has_centre, patches > 1), atol=1e-12)


@pytest.mark.parametrize("mpp", [0.487, 0.5, 0.506])
def test_patches_of_a_nominal_size_keep_their_vectors(tmp_path, write_slide, mpp):
    """A scanner's true pixel size differs from the nominal 0.5 um: places drift along the patches, and none is a mixture."""
    corners = np.array([(x, y) for y in range(224, 480, 16) for x in range(304, 592, 16)])
    vectors = np.random.default_rng(0).random((len(corners), 4)).astype(np.float16)
    write(tmp_path / "theirs/a.h5", "TRIDENT", vectors, corners, 16)
    network = network_of(tmp_path / "theirs")
    slide = write_slide(tmp_path / "a.tif", picture(), mpp=mpp)
    found = mapped(network, slide, tmp_path / "maps", tmp_path / "theirs", map_downsample=16)
    weight, bias = network.head.weight.detach().numpy().reshape(4), network.head.bias.item()
    scores = 255 / (1 + np.exp(-(vectors.astype(float).reshape(16, 18, 4) @ weight + bias)))
    below = [((np.arange(*places) + 0.5) * 16 * 0.5 / mpp - start) // 16 for places, start in (((15, 29), 224), ((20, 36), 304))]
    rows, columns = np.meshgrid(*np.asarray(below, dtype=object), indexing="ij")
    np.testing.assert_allclose(found[15:29, 20:36], scores[rows.astype(int), columns.astype(int)], atol=1.0)


def test_overlapping_patches_are_averaged_and_gaps_are_zero(tmp_path, slide):
    """Patches of 32 px every 16 px in one row, all in tissue: a place has the mean of the two patches that cover it."""
    left, row = 400, 336
    corners = np.array([(left + 16 * number, row) for number in range(4)])
    vectors = np.random.default_rng(0).random((4, 4)).astype(np.float16)
    write(tmp_path / "theirs/a.h5", "TRIDENT", vectors, corners, 32, overlap_px=16)
    network = network_of(tmp_path / "theirs")
    found = mapped(network, slide, tmp_path / "maps", tmp_path / "theirs", map_downsample=16)
    covering = [[0], [0, 1], [1, 2], [2, 3], [3]]
    weight, bias = network.head.weight.detach().numpy().reshape(4), network.head.bias.item()
    expected = np.zeros((2, 5))
    expected[:] = [1 / (1 + np.exp(-(vectors[patches].astype(float).mean(axis=0) @ weight + bias))) for patches in covering]
    np.testing.assert_allclose(found[21:23, 25:30], expected * 255, atol=1.0)
    found[21:23, 25:30] = 0
    assert not found.any()


def test_a_slide_too_coarse_to_be_read_is_mapped_from_its_features(tmp_path, write_slide):
    """Whoever made them has decided how it was read. From its pixels it is not mapped at this mpp."""
    corners = np.array([(x, y) for y in range(224, 480, 16) for x in range(304, 592, 16)])
    write(tmp_path / "theirs/a.h5", "TRIDENT", np.ones((len(corners), 4), np.float16), corners, 16)
    slide = write_slide(tmp_path / "a.tif", picture(), mpp=0.65)
    assert mapped(network_of(tmp_path / "theirs"), slide, tmp_path / "maps", tmp_path / "theirs").any()
    with pytest.raises(ValueError, match=r"a\.tif: its pixels are 0\.65 um, coarser than the mpp=0\.5"):
        mapped(Headed(Means()), slide, tmp_path / "refused", None)


def test_new_features_in_the_folder_make_new_maps(tmp_path, slide):
    """The encoder's weights are not known: a slide is finished with the content of its file, in this folder or a copy."""
    corners = np.array([(x, y) for y in range(224, 480, 16) for x in range(304, 592, 16)])
    first, second = np.random.default_rng(0).random((2, len(corners), 4)).astype(np.float16)
    write(tmp_path / "theirs/a.h5", "TRIDENT", first, corners, 16)
    network = network_of(tmp_path / "theirs")

    def run(folder):
        mapper = SlideMapper(network, features=folder, foreign_features=True, **options())
        rows = mapper.run(slide, tmp_path / "maps")
        return len(rows), tifffile.imread(tmp_path / "maps/a.ome.tif", level=0)

    (number, found), (again, same) = run(tmp_path / "theirs"), run(tmp_path / "theirs")
    assert (number, again) == (1, 0)
    shutil.copytree(tmp_path / "theirs", tmp_path / "copy")
    assert run(tmp_path / "copy")[0] == 0
    write(tmp_path / "theirs/a.h5", "TRIDENT", second, corners, 16)
    number, changed = run(tmp_path / "theirs")
    assert number == 1
    assert not np.array_equal(changed, found)
    np.testing.assert_array_equal(same, found)


def test_a_slide_without_a_patch_is_a_map_of_zeros(tmp_path, slide):
    write(tmp_path / "theirs/b.h5", "CLAM", np.ones((2, 4)), np.array([[0, 0], [16, 0]]), 16)
    write(tmp_path / "theirs/a.h5", "TRIDENT", np.zeros(0), np.zeros((0, 2), int), 16)
    assert not mapped(network_of(tmp_path / "theirs"), slide, tmp_path / "maps", tmp_path / "theirs").any()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "uni"}, r"a\.h5 contains features of another encoder: expected means .*, found uni"),
        ({"vectors": np.ones((2, 5))}, r"a\.h5 contains features of another encoder: means gives 4 values, found 5"),
        ({"mpp": 1.0, "patch_px": 32}, r"a\.h5 contains features of images at another pixel size: expected mpp 0\.5, found 1\."),
        ({"patch_px": 64}, r"a\.h5 contains features of patches of another size: expected 16 px, found 64 px\."),
        ({"corners": np.array([[0, 0], [900, 16]])}, r"a\.h5 contains features at other coordinates"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, slide, changed, message):
    fits = {"vectors": np.ones((2, 4)), "corners": np.array([[0, 0], [16, 0]]), "patch_px": 16}
    write(tmp_path / "of the training/a.h5", "TRIDENT", **fits)
    write(tmp_path / "theirs/a.h5", "TRIDENT", **fits | changed)
    with pytest.raises(ValueError, match=message):
        mapped(network_of(tmp_path / "of the training"), slide, tmp_path / "maps", tmp_path / "theirs")


def test_a_slide_without_a_file_is_not_mapped(tmp_path, slide):
    write(tmp_path / "theirs/b.h5", "TRIDENT", np.ones((1, 4)), np.array([[0, 0]]), 16)
    with pytest.raises(ValueError, match=r"a\.h5 does not exist: slides without features are not mapped, because the weights"):
        mapped(network_of(tmp_path / "theirs"), slide, tmp_path / "maps", tmp_path / "theirs")


def test_features_of_ome_tiff_are_found_by_the_name_that_other_programs_give_them(tmp_path, slide):
    """A map is finished with the content of that file."""
    slide = slide.rename(tmp_path / "a.ome.tif")
    write(tmp_path / "theirs/b.h5", "TRIDENT", np.ones((1, 4)), np.array([[0, 0]]), 16)
    network = network_of(tmp_path / "theirs")
    with pytest.raises(ValueError, match=r"/a\.h5 does not exist, and neither does \S*/a\.ome\.h5: slides without features are"):
        mapped(network, slide, tmp_path / "none", tmp_path / "theirs")
    mapper = SlideMapper(network, features=tmp_path / "theirs", foreign_features=True, **options())
    for value, number in ((1, 1), (1, 0), (2, 1)):
        write(tmp_path / "theirs/a.ome.h5", "TRIDENT", np.full((1, 4), value), np.array([[448, 336]]), 16)
        assert len(mapper.run(slide, tmp_path / "maps")) == number


def test_what_needs_the_encoder_is_refused(tmp_path, slide):
    write(tmp_path / "theirs/a.h5", "TRIDENT", np.ones((1, 4)), np.array([[0, 0]]), 16)
    network = network_of(tmp_path / "theirs")
    with pytest.raises(ValueError, match=r"tta flips .* are mapped without the encoder: leave tta out"):
        SlideMapper(network, features=tmp_path / "theirs", foreign_features=True, **options(tta="flips"))
    with pytest.raises(ValueError, match="foreign_features needs features: expected the folder"):
        SlideMapper(network, foreign_features=True, **options())


def test_the_key_of_a_head_is_the_encoder_s_name_and_the_sizes(tmp_path):
    keys = set()
    for number, (name, dim, patch_px) in enumerate([("uni", 4, 16), ("uni", 5, 16), ("uni", 4, 32), ("virchow", 4, 16)]):
        path = tmp_path / f"{number}/a.h5"
        write(path, "TRIDENT", np.ones((1, dim)), np.array([[0, 0]]), patch_px, name=name)
        keys.add(foreign_encoder(name, 16, foreign_patches(path.parent)).key)
        # A finer map is of the same features.
        assert foreign_encoder(name, 8, foreign_patches(path.parent)).key in keys
    assert len(keys) == 4


def test_what_is_missing_is_said(tmp_path, slide):
    with pytest.raises(ValueError, match="Give --slide_features FOLDER"):
        foreign_patches(None)
    with pytest.raises(ValueError, match=r"contains no features \(\*\.h5\) of TRIDENT, CLAM or STAMP"):
        foreign_patches(tmp_path)
    SlideEmbedder(Means(), 0.5, tile_size_px=128, margin_px=32, compute=CPU).run(slide, tmp_path / "own")
    with pytest.raises(ValueError, match=r"a\.h5 was written by this project: .* Leave foreign_features\.json out"):
        foreign_patches(tmp_path / "own")
    write(tmp_path / "theirs/a.h5", "CLAM", np.ones((1, 4)), np.array([[0, 0]]), 16)
    with pytest.raises(ValueError, match="Give --encoder NAME"):
        foreign_encoder(None, 16, foreign_patches(tmp_path / "theirs"))


def test_only_features_of_this_project_are_maps_without_being_asked_for(tmp_path, slide):
    assert own_features(tmp_path) is None
    SlideEmbedder(Means(), 0.5, tile_size_px=128, margin_px=32, compute=CPU).run(slide, tmp_path / "own")
    # A damaged file is the concern of its slide.
    (tmp_path / "own/0.h5").write_bytes(b"half a file")
    assert own_features(tmp_path / "own") == str(tmp_path / "own")
    write(tmp_path / "theirs/a.h5", "CLAM", np.ones((1, 4)), np.array([[0, 0]]), 16)
    assert own_features(tmp_path / "theirs") is None
