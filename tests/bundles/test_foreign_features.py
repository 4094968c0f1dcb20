"""Training on a folder of another program's features: it is read as it is, and nothing is written into it."""

from pathlib import Path

import h5py
import pytest

from shared.encoders import load_encoder
from shared.inference import Compute, SlideEmbedder

from .runs import Bundle, messages_of, metrics_of

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
        with h5py.File(path) as own, h5py.File(folder / "my" / path.name, "w") as file:
            on_tissue = own["tissue"][:] > 0
            file["features"], file["coords"] = own["features"][on_tissue], own["coords"][on_tissue]
            file["features"].attrs.update({"name": path.stem, "encoder": "EfficientNet-Lite0"})
            file["coords"].attrs.update(own["coords"].attrs)
    return folder / "my"


@pytest.mark.parametrize("name", BUNDLES)
def test_a_training_reads_them_as_they_are(easy_slides, trident, tmp_path, name):
    overlays, options = BUNDLES[name]
    bundle = Bundle(name, easy_slides, TINY | options)
    before = {path: path.read_bytes() for path in trident.iterdir()}
    given = {"slide_features": str(trident), "run_embed": "$None"}
    bundle.train_here(*overlays, output_dir=tmp_path / "run", **given)
    assert {path: path.read_bytes() for path in trident.iterdir()} == before
    assert len(metrics_of(tmp_path / "run")["pixels_tissue"]) > 0


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
