"""Training on a folder of another program's features: it is read as it is, and nothing is written into it."""

import json
from pathlib import Path

import h5py
import pytest
import torch

from shared.encoders import factory, load_encoder
from shared.inference import Compute, SlideEmbedder

from .runs import Bundle, mapped_row, messages_of, metrics_of, weights_of

pytestmark = pytest.mark.slow

MPP, STRIDE_PX = 0.5, 16
TINY = {
    "amp_dtype": "$None",
    "num_workers": 0,
    "mpp": MPP,
    "smoothing": 1,
    "feature_stride_px": STRIDE_PX,
    "tile_size_px": 256,
    "margin_px": 32,
    "tissue_mpp": 4.0,
    "num_epochs": 2,
}
LONGER = {"num_epochs": 20, "lr": 0.003}
BUNDLES = {
    "attention_mil": ((), {"features_per_slide": 40, "min_steps": 0}),
    "alpha_beta_mil": (("features",), {"tiles_per_slide": 40}),
}


@pytest.fixture(scope="module")
def trident(easy_slides, tmp_path_factory) -> Path:
    """A folder of the slides' features as TRIDENT writes them."""
    folder = tmp_path_factory.mktemp("trident")
    encoder = load_encoder("efficientnet_lite0", stride_px=STRIDE_PX)
    embedder = SlideEmbedder(encoder, MPP, tile_size_px=256, margin_px=32, compute=Compute(device="cpu", amp=False))
    embedder.run(easy_slides / "slides.csv", folder / "own")
    (folder / "my").mkdir()
    for path in (folder / "own").glob("*.h5"):
        rewrite(path, folder / "my" / path.name, "EfficientNet-Lite0", least_tissue=1e-6)
    return folder / "my"


def rewrite(path: Path, target: Path, encoder: str, least_tissue: float = 0.0) -> None:
    """A file of features of this project as TRIDENT writes it, with the name of an encoder."""
    with h5py.File(path, locking=False) as own, h5py.File(target, "w") as file:
        is_kept = own["tissue"][:] >= least_tissue
        file["features"], file["coords"] = own["features"][is_kept], own["coords"][is_kept]
        file["features"].attrs.update({"name": path.stem, "encoder": encoder})
        file["coords"].attrs.update(own["coords"].attrs)


@pytest.mark.parametrize("name", BUNDLES)
def test_a_training_reads_them_as_they_are(easy_slides, trident, tmp_path, name):
    overlays, options = BUNDLES[name]
    bundle = Bundle(name, easy_slides, TINY | options)
    before = {path: path.read_bytes() for path in trident.iterdir()}
    given = {"slide_features": str(trident), "run_embed": "$None"}
    bundle.train_here(*overlays, output_dir=tmp_path / "run", **given)
    assert {path: path.read_bytes() for path in trident.iterdir()} == before
    assert len(metrics_of(tmp_path / "run")["pixels_tissue"]) > 0


@pytest.fixture
def of_uni(trident, tmp_path) -> Path:
    """Every feature of the slides under the name of an encoder whose weights cannot be had here."""
    (tmp_path / "uni").mkdir()
    for path in (trident.parent / "own").glob("*.h5"):
        rewrite(path, tmp_path / "uni" / path.name, "uni_v1")
    return tmp_path / "uni"


@pytest.mark.parametrize("name", BUNDLES)
def test_training_evaluation_maps_and_outlines_need_no_encoder(easy_slides, trident, of_uni, tmp_path, monkeypatch, name):
    bundle, expected = Bundle(name, easy_slides, TINY | BUNDLES[name][1] | LONGER), tmp_path / "own"
    own = {"slide_features": str(trident.parent / "own"), "run_embed": "$None"}
    bundle.train_here(*BUNDLES[name][0], output_dir=expected, **own)
    monkeypatch.setattr(factory, "_load", lambda *_: pytest.fail("an encoder was loaded"))
    overlays, run = (*BUNDLES[name][0], "foreign_features"), tmp_path / "run"
    before = {path: path.read_bytes() for path in of_uni.iterdir()}
    given = {"slide_features": str(of_uni), "encoder": "uni"}
    bundle.train_here(*overlays, output_dir=run, **given)
    assert_the_same_but_for_the_key(weights_of(run / "model.pt"), weights_of(expected / "model.pt"))
    assert (run / "calibration.json").read_text() == (expected / "calibration.json").read_text()
    metrics = metrics_of(run)
    assert metrics == metrics_of(expected)
    seen = {key: TINY[key] for key in ("mpp", "smoothing", "feature_stride_px", "tile_size_px", "margin_px", "tissue_mpp")}
    again = bundle.evaluate_here(*overlays, output_dir=run, evaluation_dir=tmp_path / "again", num_workers=0, **seen, **given)
    assert again == metrics
    folders = {"source": str(easy_slides / "slides/slide_08.tif"), "output_dir": str(tmp_path / "maps")}
    model = {"checkpoints": [str(run / "model.pt")]}
    bundle.workflow("inference", *overlays, workflow_type="infer", **folders, **model, **seen, **given).run()
    assert int(mapped_row(tmp_path / "maps", "slide_08")["num_regions"]) > 0
    assert json.loads((tmp_path / "maps/slide_08.geojson").read_text())["features"]
    assert {path: path.read_bytes() for path in of_uni.iterdir()} == before


def assert_the_same_but_for_the_key(ours, theirs):
    """The heads of two trainings on the same features."""
    assert ours.keys() == theirs.keys()
    assert not torch.equal(ours.pop("encoder_key"), theirs.pop("encoder_key"))
    for name, values in ours.items():
        torch.testing.assert_close(values, theirs[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"encoder": "uni"}, "Give --slide_features FOLDER"),
        ({"slide_features": True}, "Give --encoder NAME"),
        ({"slide_features": True, "encoder": "virchow2"}, "expected virchow2"),
    ],
)
def test_what_another_program_s_files_do_not_say_must_be_given(easy_slides, of_uni, tmp_path, given, message):
    folder = {"slide_features": str(of_uni)} if "slide_features" in given else {}
    bundle = Bundle("attention_mil", easy_slides, TINY)
    with pytest.raises((RuntimeError, ValueError)) as caught:
        bundle.train_here("foreign_features", output_dir=tmp_path / "run", **given | folder)
    assert message in messages_of(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, "contains 11 files of features"),
        ({"run_embed": "$None", "mpp": 1.0}, "at another pixel size: expected mpp 1, found 0.5"),
    ],
)
def test_what_does_not_fit_is_refused(easy_slides, trident, tmp_path, changed, message):
    before = {path: path.read_bytes() for path in trident.iterdir()}
    bundle = Bundle("attention_mil", easy_slides, TINY)
    with pytest.raises((RuntimeError, ValueError)) as caught:
        bundle.train_here(output_dir=tmp_path / "run", slide_features=str(trident), **changed)
    assert message in messages_of(caught.value)
    assert {path: path.read_bytes() for path in trident.iterdir()} == before


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize("side_px", [224, 250, 299])
def test_places_and_tiles_follow_the_patches(tmp_path, name, side_px):
    """Tiles and margins are whole places, and whole pixels of a slide's map."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"], file["coords"] = torch.ones(1, 4).numpy(), [[0, 0]]
        file["features"].attrs["encoder"] = "uni"
        sizes = {"patch_size": side_px, "patch_size_level0": 2 * side_px, "target_magnification": 20, "level0_magnification": 40}
        file["coords"].attrs.update(sizes)
    overlays = [*BUNDLES[name][0], "foreign_features"]
    parser = Bundle(name, tmp_path, {}).configuration("inference", *overlays, slide_features=str(tmp_path), encoder="uni")
    tile_px, margin_px = parser.get_parsed_content("tile_size_px"), parser.get_parsed_content("margin_px")
    assert parser.get_parsed_content("encoder_def").stride_px == side_px
    assert tile_px > 2 * margin_px
    assert all(length_px % side_px == length_px % 4 == 0 for length_px in (tile_px, margin_px))
