"""A map from stored features is the map from pixels where there is tissue, and what does not fit is refused."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from shared.data import TissueCache
from shared.encoders import load_encoder
from shared.features import SlideFeatures
from shared.inference import Compute, ImageInput, SlideEmbedder, SlideMapper, Tissue
from shared.inference.tiles.map_grid import MapGrid
from shared.inference.tiles.stored_network import StoredTileNetwork
from shared.inference.tiles.tile_network import TileNetwork
from shared.networks import EncodedClassifier, EncodedSegmentation, ProbabilityEnsemble
from tests.inference.stored import Headed, Means, options, picture

CPU = Compute(device="cpu", amp=False, num_workers=1)


@pytest.fixture
def slide(tmp_path, write_slide):
    return write_slide(tmp_path / "a.tif", picture(), mpp=0.5)


def embed(encoder, slide, folder, **changed):
    given = {"tile_size_px": 128, "margin_px": 32, "compute": CPU, "mpp": 0.5} | changed
    SlideEmbedder(encoder, **given).run(slide, folder)
    return folder


def mapped(network, slide, folder, features=None, **changed):
    """The map of a slide, uint8 (H, W)."""
    folder.mkdir()
    SlideMapper(network, features=features, **options(**changed)).map_image(ImageInput(slide, "a"), folder)
    return tifffile.imread(folder / "a.ome.tif", level=0).astype(int)


def stored_cells(path, cell_px, map_downsample=4):
    """Which map pixels lie on stored cells alone, and which on cells whose neighbours are all stored too."""
    with SlideFeatures.open(path) as features:
        is_stored = features.lay_out(np.ones(len(features), bool))
    is_inner = ~binary_dilation(np.pad(~is_stored, 1), np.ones((3, 3)))[1:-1, 1:-1]
    return (_on_map(cells, cell_px, map_downsample) for cells in (is_stored, is_inner))


def _on_map(cells, cell_px, map_downsample):
    if map_downsample <= cell_px:
        return np.kron(cells, np.ones((cell_px // map_downsample,) * 2, bool))
    step = map_downsample // cell_px
    height, width = (side // step for side in cells.shape)
    return cells[: height * step, : width * step].reshape(height, step, width, step).all(axis=(1, 3))


def difference(pixels, stored, where):
    """The largest difference of two maps where a mask, which may end elsewhere at the slide's border, is True."""
    height, width = np.minimum(pixels.shape, where.shape)
    return np.abs(pixels - stored)[:height, :width][where[:height, :width]].max()


@pytest.mark.parametrize("stitching", ["crop", "blend"])
@pytest.mark.parametrize(("stride_px", "map_downsample"), [(16, 4), (32, 4), (16, 16), (16, 32)])
def test_the_map_is_that_of_the_pixels(tmp_path, slide, stride_px, map_downsample, stitching):
    network = Headed(Means(stride_px))
    features = embed(network.encoder, slide, tmp_path / "features")
    given = {"map_downsample": map_downsample, "stitching": stitching}
    pixels = mapped(network, slide, tmp_path / "pixels", **given)
    stored = mapped(network, slide, tmp_path / "stored", features, **given)
    is_stored, is_inner = stored_cells(features / "a.h5", stride_px, map_downsample)
    assert is_inner.mean() > 0.3
    # Up to half precision of the features.
    assert difference(pixels, stored, is_inner) <= 1
    assert np.ptp(stored[stored > 0]) > 150
    if map_downsample <= stride_px:
        # Glass, of which the network thinks otherwise.
        assert not difference(stored, 0, ~is_stored)


def test_the_default_encoder_s_map_is_that_of_the_pixels(tmp_path, slide):
    """Of an encoder that sees far beyond a cell, in tiles of the same size and margin: one map pixel a cell.

    Between the cells of two tiles' cores the map from pixels is interpolated with the cells in the margin of one tile, of which
    the other tile saw more.
    """
    network = Headed(load_encoder("efficientnet_lite0"))
    given = {"tile_size_px": 256, "margin_px": 64}
    features = embed(network.encoder, slide, tmp_path / "features", **given)
    pixels = mapped(network, slide, tmp_path / "pixels", map_downsample=32, **given)
    stored = mapped(network, slide, tmp_path / "stored", features, map_downsample=32, **given)
    is_stored, _ = stored_cells(features / "a.h5", 32, 32)
    assert difference(pixels, stored, is_stored) <= 1
    assert np.ptp(pixels[pixels > 0]) > 20


def test_a_feature_of_a_whole_tile_makes_the_same_map(tmp_path, slide):
    network = Headed(Means(16, tokens="class"))
    given = {"tile_size_px": 64, "margin_px": 0}
    features = embed(network.encoder, slide, tmp_path / "features", **given)
    with SlideFeatures.open(features / "a.h5") as opened:
        assert (opened.stride_px, opened.patch_px, opened.grid_shape) == (64, 64, (11, 14))
    pixels = mapped(network, slide, tmp_path / "pixels", **given)
    stored = mapped(network, slide, tmp_path / "stored", features, **given)
    is_stored, _ = stored_cells(features / "a.h5", 64)
    assert difference(pixels, stored, is_stored) <= 1


def test_pixels_are_not_encoded_where_features_are_stored(tmp_path, slide, write_slide, caplog):
    network = Headed(Means())
    features = embed(network.encoder, slide, tmp_path / "features")
    other = write_slide(tmp_path / "b.tif", picture(seed=1), mpp=0.5)
    network.encoder.forward = lambda images: pytest.fail("the encoder was called")
    mapper = SlideMapper(network, features=features, **options())
    assert mapper.map_image(ImageInput(slide, "a"), tmp_path)["num_tiles"] > 0
    caplog.set_level("INFO")
    for name in ("b", "c"):
        with pytest.raises(pytest.fail.Exception, match="the encoder was called"):
            mapper.map_image(ImageInput(other, name), tmp_path)
    (said,) = [record.message for record in caplog.records if "no features of" in record.message]
    assert "no features of b" in said


def test_an_ensemble_of_heads_shares_the_features(tmp_path, slide):
    encoder = Means()
    ensemble = ProbabilityEnsemble([Headed(encoder), Headed(encoder)])
    features = embed(encoder, slide, tmp_path / "features")
    one = mapped(Headed(encoder), slide, tmp_path / "one", features)
    np.testing.assert_array_equal(mapped(ensemble, slide, tmp_path / "both", features), one)
    with pytest.raises(ValueError, match="different encoders"):
        SlideMapper(ProbabilityEnsemble([Headed(encoder), Headed(Means(gain=2.0))]), features=features, **options())


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_a_segmentation_that_answers_at_every_pixel_makes_the_same_map(tmp_path, slide, kernel_size):
    torch.manual_seed(0)
    network = EncodedSegmentation(Means(), out_channels=2, kernel_size=kernel_size)
    network.standardise([torch.from_numpy(picture()[:640, :640]).permute(2, 0, 1)[None].float()])
    torch.nn.init.normal_(next(iter(network.head.parameters())))
    features = embed(network.encoder, slide, tmp_path / "features")
    pixels = mapped(network, slide, tmp_path / "pixels")
    stored = mapped(network, slide, tmp_path / "stored", features)
    _, is_inner = stored_cells(features / "a.h5", 16)
    if kernel_size == 3:
        # The ring of neighbours is of use to the head: one of its own is missing then.
        is_inner = binary_erosion(is_inner, np.ones((3, 3)), iterations=4)
    assert is_inner.mean() > 0.2
    assert difference(pixels, stored, is_inner) <= 1
    assert np.ptp(stored[stored > 0]) > 20


def head_of_neighbours(kernel_size, sample=None):
    """A segmentation whose head has random weights and sees `kernel_size` features a side."""
    torch.manual_seed(0)
    network = EncodedSegmentation(Means(), out_channels=2, kernel_size=kernel_size).eval()
    network.standardise([torch.from_numpy(picture() if sample is None else sample).permute(2, 0, 1)[None, :, :640, :640].float()])
    torch.nn.init.normal_(next(iter(network.head.parameters())), std=0.5)
    return network


def test_a_head_that_sees_neighbours_finds_them_beyond_the_edge_of_the_slide(tmp_path, write_slide):
    """Where tissue is cut off at the edge: pixels are mirrored there, and so are cells."""
    y, x = np.mgrid[:704, :896]
    rgb = np.where(((x // 96 + y // 80) % 2)[..., None], (215, 130, 180), (120, 60, 150)).astype(np.uint8)
    slide, network = write_slide(tmp_path / "a.tif", rgb, mpp=0.5), head_of_neighbours(3, rgb)
    features = embed(network.encoder, slide, tmp_path / "features", tissue=Tissue(only=False))
    pixels = mapped(network, slide, tmp_path / "pixels", tissue_only=False)
    stored = mapped(network, slide, tmp_path / "stored", features, tissue_only=False)
    assert np.ptp(pixels) > 100
    # A mirrored cell is one pixel of its 16 off: the outermost pixels are not repeated.
    assert np.abs(pixels - stored).max() <= 8


def test_a_missing_neighbour_is_one_of_average_features():
    network = head_of_neighbours(3)
    grid = MapGrid.of_image((160, 160), 160, 0, 16)
    cells = torch.rand(1, 10, 10, 5, generator=torch.Generator().manual_seed(0)) + 0.2
    cells[..., -1] = 1
    average = cells.clone()
    average[0, 4, 4, :-1] = network.mean.flatten()
    cells[0, 4, 4] = 0
    answer = StoredTileNetwork(TileNetwork(network), 16, grid)
    with torch.inference_mode():
        missing, expected = (answer(tile.half(), grid.map_shape)[0, 0] for tile in (cells, average))
    # It has no answer, which is interpolated with those of the cells beside it.
    is_beside = torch.zeros(10, 10, dtype=torch.bool)
    is_beside[3:6, 3:6] = True
    assert missing[4, 4] == 0
    torch.testing.assert_close(missing[~is_beside], expected[~is_beside], rtol=0, atol=2e-3)


def test_a_head_that_sees_more_neighbours_than_are_stored_maps_from_pixels(tmp_path, slide, caplog):
    network = head_of_neighbours(5)
    features = embed(network.encoder, slide, tmp_path / "features")
    stored = mapped(network, slide, tmp_path / "stored", features)
    (said,) = [record.message for record in caplog.records if "the head sees 5 x 5 features (kernel_size)" in record.message]
    assert "maps are made from the slides" in said
    np.testing.assert_array_equal(stored, mapped(network, slide, tmp_path / "pixels"))
    with pytest.raises(ValueError, match=r"5 x 5 features .* train a head with kernel_size 1 on features of another program"):
        SlideMapper(network, features=features, foreign_features=True, **options())


def test_one_answer_a_tile_is_not_made_from_parts_of_tiles(tmp_path, slide):
    network = EncodedClassifier(Means())
    features = embed(network.encoder, slide, tmp_path / "features")
    with pytest.raises(ValueError, match="one output per tile cannot make a map from features"):
        mapped(network, slide, tmp_path / "maps", features)
    dense = EncodedClassifier(network.encoder, dense=True)
    assert mapped(dense, slide, tmp_path / "dense", features).max() > 0


def test_features_are_a_setting(tmp_path, slide):
    network = Headed(Means())
    features = embed(network.encoder, slide, tmp_path / "features")
    without, with_features = (SlideMapper(network, features=folder, **options()).settings() for folder in (None, features))
    assert with_features == without | {"from_features": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": Means(gain=2.0)}, rf"a\.h5 contains features of another encoder: expected means \({Means().key}\)"),
        ({"mpp": 1.0}, r"a\.h5 contains features at other coordinates: expected one every 16 level-0 pixels, found one every 32"),
    ],
)
def test_features_that_do_not_fit_the_network_are_refused(tmp_path, slide, change, message):
    given = {"encoder": Means(), "slide": slide, "folder": tmp_path / "features"} | change
    features = embed(**given)
    with pytest.raises(ValueError, match=message):
        mapped(Headed(Means()), slide, tmp_path / "maps", features)


def test_a_slide_of_the_same_name_is_mapped_from_its_pixels(tmp_path, slide, write_slide, caplog):
    network = Headed(Means())
    features = embed(network.encoder, slide, tmp_path / "features")
    write_slide(slide, picture(seed=3), mpp=0.5)
    stored = mapped(network, slide, tmp_path / "stored", features)
    (said,) = [record.message for record in caplog.records if "contains features of another slide than" in record.message]
    assert "a.h5" in said
    assert "a.tif" in said
    np.testing.assert_array_equal(stored, mapped(network, slide, tmp_path / "pixels"))


def test_tissue_that_was_not_embedded_is_mapped_from_pixels(tmp_path, slide, caplog):
    """A mask that was edited, and whole slides: what is not stored would score 0."""
    network = Headed(Means())
    cache = TissueCache(tmp_path / "tissue", mpp=4.0)
    features = embed(network.encoder, slide, tmp_path / "features", tissue=Tissue(cache=cache))
    with SlideFeatures.open(features / "a.h5") as opened:
        num_cells = len(opened)
    mapped(network, slide, tmp_path / "as embedded", features, tissue=cache)
    assert "is mapped from its pixels" not in caplog.text
    (file,) = (tmp_path / "tissue").glob("a.*.png")
    Image.fromarray(np.ones_like(np.asarray(Image.open(file)))).save(file)
    for name, changed in (("edited", {"tissue": cache}), ("whole", {"tissue_only": False})):
        caplog.clear()
        stored = mapped(network, slide, tmp_path / name, features, **changed)
        rows, columns = np.ceil(np.array([700, 900]) / 16 - 0.5).astype(int)
        (said,) = [record.message for record in caplog.records if "is mapped from its pixels" in record.message]
        assert f"a.h5 lacks {rows * columns - num_cells} of the {rows * columns} cells" in said
        np.testing.assert_array_equal(stored, mapped(network, slide, tmp_path / f"pixels {name}", **changed))


def test_with_augmentation_features_are_left_alone(tmp_path, slide, caplog):
    network = Headed(Means())
    features = embed(network.encoder, slide, tmp_path / "features")
    stored = mapped(network, slide, tmp_path / "stored", features, tta="flips")
    assert len([record for record in caplog.records if "tta flips averages over symmetries" in record.message]) == 1
    np.testing.assert_array_equal(stored, mapped(network, slide, tmp_path / "pixels", tta="flips"))


def test_half_a_file_is_refused(tmp_path, slide):
    network = Headed(Means())
    features = embed(network.encoder, slide, tmp_path / "features")
    (features / "a.h5").write_bytes((features / "a.h5").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"a\.h5 is not a complete HDF5 file"):
        mapped(network, slide, tmp_path / "again", features)


def test_features_of_another_program_make_no_map(tmp_path, slide, write_slide):
    import h5py

    (tmp_path / "features").mkdir()
    with h5py.File(tmp_path / "features" / "a.h5", "w") as file:
        file["features"], file["coords"] = np.zeros((2, 4)), np.array([[0, 0], [16, 0]])
    with pytest.raises(ValueError, match="written by CLAM and does not state the weights"):
        mapped(Headed(Means()), slide, tmp_path / "maps", tmp_path / "features")


def test_what_cannot_be_made_of_features_is_said_at_once(tmp_path, redness):
    (tmp_path / "features").mkdir()
    with pytest.raises(ValueError, match="Redness has no encoder"):
        SlideMapper(redness, features=tmp_path / "features", **options())
    with pytest.raises(ValueError, match="does not exist"):
        SlideMapper(Headed(Means()), features=tmp_path / "none", **options())


def test_a_fine_tuned_encoder_maps_from_pixels(tmp_path, slide, caplog):
    """The features were made by the encoder as it was before."""
    network = Headed(Means())
    features = embed(network.encoder, slide, tmp_path / "features")
    network.saves_encoder = True
    with torch.no_grad():
        network.encoder.gain *= 0.5
    expected = mapped(network, slide, tmp_path / "pixels")
    assert "fine-tuned" not in caplog.text
    np.testing.assert_array_equal(mapped(network, slide, tmp_path / "stored", features), expected)
    assert "the encoder was fine-tuned" in caplog.text
    with pytest.raises(ValueError, match="encoder of this Headed was fine-tuned with it, so it has no stored features"):
        SlideMapper(network, **options()).embedder()


def test_tiles_of_broken_cells_are_refused(tmp_path, slide):
    network = Headed(Means(32))
    features = embed(network.encoder, slide, tmp_path / "features")
    with pytest.raises(ValueError, match=r"tiles of whole cells.*multiples of 32.*got 128 and 16"):
        mapped(network, slide, tmp_path / "maps", features, margin_px=16)
