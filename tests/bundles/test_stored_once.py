"""What scripts/embed.py has stored is what trainings and maps read, and the other way round: nothing is embedded twice."""

import json
from pathlib import Path

import pytest

from shared.encoders.efficientnet_lite import EfficientNetLite0Encoder

from .runs import Bundle, mapped_row, messages_of, metrics_of

pytestmark = pytest.mark.slow

BUNDLES = {"alpha_beta_mil": ("features",), "attention_mil": ()}
# Of the training alone: encoder, pixel size, tiles and tissue are those of the plain commands.
SHORT = {"amp_dtype": "$None", "num_workers": 0, "num_epochs": 1, "min_steps": 0}
NUM_SLIDES = 11


@pytest.fixture(scope="module", params=BUNDLES)
def bundle(request, easy_slides) -> Bundle:
    return Bundle(request.param, easy_slides, SHORT)


def embed(slides: Path, out: Path, *options: str) -> str:
    """`scripts/embed.py` as docs/features.md shows it: what it said."""
    given = ("--manifest", slides / "slides.csv", "--encoder", "efficientnet_lite0", "--out", out, *options)
    process = Bundle("attention_mil", slides, {}).run_well(["scripts/embed.py", *map(str, given)])
    return process.stdout + process.stderr


@pytest.fixture(scope="module")
def stored(easy_slides, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stored") / "features"
    assert f"{NUM_SLIDES} embedded now" in embed(easy_slides, folder)
    return folder


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*.h5")}


@pytest.fixture
def no_encoding(monkeypatch):
    """Whoever encodes an image fails."""
    monkeypatch.setattr(EfficientNetLite0Encoder, "native_features", lambda *_: pytest.fail("an image was encoded"))


def maps_are_from_features(folder: Path) -> bool:
    return json.loads((folder / "settings.json").read_text()).get("from_features", False)


def test_the_two_commands_embed_once(bundle, stored, tmp_path):
    """And a third, which maps a slide."""
    before = contents(stored)
    assert len(before) == NUM_SLIDES
    overlays, run = BUNDLES[bundle.name], tmp_path / "run"
    process = bundle.run_well(bundle.command("train", *overlays, slide_features=stored, output_dir=run, **SHORT))
    said = process.stdout + process.stderr
    assert f"{NUM_SLIDES} of {NUM_SLIDES} images are already finished and skipped" in said
    maps = {"stored_features": stored, "checkpoints": f"['{run}/model.pt']"}
    inference = bundle.command(
        "inference", *overlays, source=bundle.data / "slides/slide_08.tif", output_dir=tmp_path / "maps", **maps
    )
    process = bundle.run_well(inference)
    said += process.stdout + process.stderr
    assert "from its pixels" not in said
    assert "from their pixels" not in said
    mapped_row(tmp_path / "maps", "slide_08")
    assert maps_are_from_features(tmp_path / "maps")
    assert maps_are_from_features(run / "evaluation/maps")
    assert f"{NUM_SLIDES} images, 0 embedded now" in embed(bundle.data, stored)
    assert contents(stored) == before


@pytest.mark.parametrize("options", [{}, {"run_embed": "$None"}], ids=["embedding on", "embedding off"])
def test_no_image_is_encoded(bundle, stored, tmp_path, no_encoding, options):
    """In the training, the maps of its evaluation, evaluate.json and inference.json."""
    overlays, run = BUNDLES[bundle.name], tmp_path / "run"
    options = options | {"slide_features": str(stored)}
    bundle.train_here(*overlays, output_dir=run, **options)
    again = bundle.evaluate_here(*overlays, output_dir=run, evaluation_dir=tmp_path / "again", num_workers=0, **options)
    assert again == metrics_of(run)
    folders = {"source": str(bundle.data / "slides/slide_09.tif"), "output_dir": str(tmp_path / "maps")}
    given = {**folders, "stored_features": str(stored), "checkpoints": [str(run / "model.pt")]}
    bundle.workflow("inference", *overlays, workflow_type="infer", **given).run()
    mapped_row(tmp_path / "maps", "slide_09")


def test_what_a_training_has_embedded_is_done(bundle, tmp_path):
    out = tmp_path / "features"
    options = {**SHORT, "slide_features": str(out), "output_dir": str(tmp_path / "run"), "tracking::enabled": False}
    bundle.workflow("train", *BUNDLES[bundle.name], **options).parser.get_parsed_content("run_embed")
    before = contents(out)
    assert len(before) == NUM_SLIDES
    assert f"{NUM_SLIDES} images, 0 embedded now" in embed(bundle.data, out)
    assert contents(out) == before


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "mpp",
            0.5,
            "(mpp: expected 0.5, found 1.0). To use these features give the settings with which they were made: --mpp 1.0.",
        ),
        ("smoothing", 1, "(smoothing: expected 1, found 3). To use these features give"),
        ("tile_size_px", 256, "were made: --tile_size_px 512. Otherwise give another folder, or delete this one"),
    ],
)
def test_what_differs_is_refused_with_its_remedy(bundle, stored, tmp_path, key, value, message):
    before = contents(stored)
    with pytest.raises(RuntimeError) as caught:
        bundle.train_here(*BUNDLES[bundle.name], output_dir=tmp_path / "run", slide_features=str(stored), **{key: value})
    assert message in messages_of(caught.value)
    assert contents(stored) == before
