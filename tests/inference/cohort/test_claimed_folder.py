"""A folder of features is of one setting from the first slide that begins, also while several processes claim it."""

import json

import numpy as np
import pytest
from PIL import Image
from torch import nn

from shared.inference import Compute, ImageInput, InferenceFailures, SlideEmbedder, SlideMapper, run_cohort
from shared.inference.cohort.folder_settings import claim_folder
from shared.inference.cohort.worker import CohortWorker
from tests.inference.stored import Headed, Means, options, picture

CPU = Compute(device="cpu", amp=False, num_workers=1)


@pytest.fixture
def slide(tmp_path, write_slide):
    return write_slide(tmp_path / "a.tif", picture(), mpp=0.5)


def embedder(tile_size_px=128):
    return SlideEmbedder(Means(), 0.5, tile_size_px=tile_size_px, margin_px=32, compute=CPU)


def settings_of(folder):
    return json.loads((folder / "settings.json").read_text())


class Intruded:
    """An embedder during whose first slide something else happens."""

    def __init__(self, intrude):
        self._embedder, self._intrude = embedder(), intrude
        self.settings, self.prepare = self._embedder.settings, self._embedder.prepare

    def map_image(self, image, output_dir, title=""):
        self._intrude()
        return self._embedder.map_image(image, output_dir, title)


def test_other_settings_are_refused_while_the_first_slide_is_under_way(tmp_path, slide):
    refused = []

    def intrude():
        assert not list((tmp_path / "out").glob("*.h5"))
        with pytest.raises(
            ValueError, match=r"a is under way, .*tile_size_px: expected 256, found 128.*--tile_size_px 128"
        ) as error:
            CohortWorker(embedder(256), tmp_path / "out")
        refused.append(str(error.value))
        with pytest.raises(ValueError, match="out contains features: give maps a separate folder"):
            CohortWorker(SlideMapper(Headed(Means()), **options()), tmp_path / "out")
        # The same settings are welcome.
        CohortWorker(embedder(), tmp_path / "out")

    worker = CohortWorker(Intruded(intrude), tmp_path / "out")
    outcome = worker.attempt(ImageInput(slide, "a"), None)
    assert (outcome.row["status"], len(refused)) == ("ok", 1)
    assert settings_of(tmp_path / "out")["tile_size_px"] == 128


def test_a_process_that_had_not_begun_makes_way_for_other_settings(tmp_path, slide):
    """Both have claimed the folder while it was empty: the one that has lost it must not write there."""
    early, late = (CohortWorker(embedder(side), tmp_path / "out") for side in (128, 256))
    with pytest.raises(ValueError, match=r"out was claimed by another run .*tile_size_px: expected 128, found 256"):
        early.attempt(ImageInput(slide, "a"), None)
    assert not list((tmp_path / "out/rows").glob("*.json"))
    assert late.attempt(ImageInput(slide, "a"), None).row["status"] == "ok"
    assert settings_of(tmp_path / "out")["tile_size_px"] == 256


def test_slides_that_could_not_be_embedded_keep_no_one_from_trying_other_settings(tmp_path):
    """Nothing of these settings was made, and nothing is on the way."""
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    worker = CohortWorker(Intruded(lambda: 1 / 0), tmp_path / "out")
    assert worker.attempt(ImageInput(tmp_path / "a.png", "a"), None).row["status"] == "failed"
    CohortWorker(embedder(256), tmp_path / "out")
    assert settings_of(tmp_path / "out")["tile_size_px"] == 256


def test_what_is_refused_leaves_nothing_in_the_folder(tmp_path):
    (tmp_path / "a.h5").touch()
    with pytest.raises(ValueError, match=r"contains 1 files of features \(a\.h5\) and no settings\.json"):
        claim_folder(tmp_path, embedder().settings())
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


FOREIGN = ["a.geojson", "a.png", "a.ome.tif", "a.tiles.csv", "a.nii.gz", "a.ome.zarr"]


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("has_failed_before", [False, True])
def test_files_that_no_run_has_written_are_not_replaced(tmp_path, slide, name, has_failed_before):
    """A user's own annotations, say, beside which maps are to be written; also where a run has left a row, and no file."""
    out = tmp_path / "out"
    out.mkdir()
    image, mapper = ImageInput(slide, "a"), SlideMapper(Headed(Means()), **options())
    if has_failed_before:
        outcome = CohortWorker(SlideMapper(Raising(), **options()), out).attempt(image, None)
        assert outcome.row["status"] == "failed"
    if name.endswith(".zarr"):
        (out / name).mkdir()
        (out / name / "own").touch()
    else:
        (out / name).write_text("own")
    for _ in range(2):
        with pytest.raises(InferenceFailures, match=rf"{name} exists and was not written by these runs: move it away, or give"):
            run_cohort(mapper, [image], out)
    assert (out / name / "own").exists() if name.endswith(".zarr") else (out / name).read_text() == "own"
    assert not [path for path in out.iterdir() if path.name.startswith("a.") and path.name != name]


class Raising(nn.Module):
    def forward(self, images):
        raise ValueError("no answer")


@pytest.mark.parametrize(
    ("name", "text"), [("slides.csv", "image,label\na.tif,1\n"), ("slides.csv", "slide,label\na,1\n"), ("settings.json", "{}")]
)
def test_a_table_or_settings_of_something_else_are_not_replaced(tmp_path, slide, name, text):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name} (exists and )?was not written by these runs.*give another output folder"):
        run_cohort(SlideMapper(Headed(Means()), **options()), [ImageInput(slide, "a")], out)
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, text)]
