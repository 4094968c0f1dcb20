"""A folder of features is of one setting from the first slide that begins, also while several processes claim it."""

import json
import shutil

import numpy as np
import pytest
import tifffile
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


class OfClasses(nn.Module):
    def forward(self, images):
        return images


def of_classes(**changed):
    return SlideMapper(OfClasses(), **options(class_names=["glass", "pink", "purple"], **changed))


def of_tumour(**changed):
    return SlideMapper(Headed(Means()), **options(**changed))


def damage(out):
    (out / "rows/a.json").write_text('{"slide": "a", "sta')


@pytest.mark.parametrize("make", [of_tumour, of_classes])
@pytest.mark.parametrize(
    "lose",
    [damage, lambda out: (out / "rows/a.json").unlink(), lambda out: shutil.rmtree(out / "rows")],
    ids=["damaged", "removed", "no rows"],
)
def test_maps_whose_row_is_lost_are_made_again(tmp_path, slide, make, lose):
    out, image = tmp_path / "out", ImageInput(slide, "a")
    run_cohort(make(min_area_um2=9.0), [image], out)
    lose(out)
    (row,) = run_cohort(make(), [image], out)
    assert (row["status"], row["min_area_um2"]) == ("ok", 0.0)
    assert run_cohort(make(), [image], out) == []


def test_maps_that_map_slide_of_version_0_10_0_made_are_made_again(tmp_path, slide):
    """Its files alone, without rows and settings."""
    image = ImageInput(slide, "a")
    (tmp_path / "out").mkdir()
    of_tumour().map_image(image, tmp_path / "out")
    assert [row["status"] for row in run_cohort(of_tumour(), [image], tmp_path / "out")] == ["ok"]


def test_outlines_that_somebody_has_changed_are_not_taken_for_those_of_a_map(tmp_path, slide):
    """QuPath exports them without the frame that ours begin with."""
    image, outlines = ImageInput(slide, "a"), tmp_path / "out/a.geojson"
    outlines.parent.mkdir()
    of_tumour().map_image(image, tmp_path / "out")
    outlines.write_text('{"type":"FeatureCollection","features":[]}')
    with pytest.raises(InferenceFailures, match=r"a\.geojson exists and .* rows/a\.json does not exist, and nothing else says"):
        run_cohort(of_tumour(), [image], tmp_path / "out")
    assert "annotation_frame" not in outlines.read_text()


@pytest.mark.parametrize(
    ("axes", "names"), [("YX", ["DAPI"]), ("CYX", ["DAPI", "CD3", "CD8"]), ("CYX", ["glass", "pink", "purple"])]
)
def test_other_ome_tiffs_are_none_of_our_maps(tmp_path, slide, axes, names):
    out = tmp_path / "out"
    out.mkdir()
    pixels = np.zeros((len(names), 8, 8) if len(names) > 1 else (8, 8), np.uint8)
    tifffile.imwrite(out / "a.ome.tif", pixels, metadata={"axes": axes, "Channel": {"Name": names}})
    before = (out / "a.ome.tif").read_bytes()
    with pytest.raises(InferenceFailures, match=r"a\.ome\.tif exists and was not written by these runs"):
        run_cohort(of_classes(), [ImageInput(slide, "a")], out)
    assert (out / "a.ome.tif").read_bytes() == before


def test_features_whose_row_is_lost_are_made_again(tmp_path, slide):
    out, image = tmp_path / "out", ImageInput(slide, "a")
    for lose in (lambda: damage(out), (out / "rows/a.json").unlink):
        run_cohort(embedder(), [image], out)
        lose()
        assert [row["status"] for row in run_cohort(embedder(), [image], out)] == ["ok"]


def test_features_of_another_encoder_are_not_replaced(tmp_path, slide):
    """Copied there, beside the settings of this one."""
    out, image = tmp_path / "out", ImageInput(slide, "a")
    run_cohort(SlideEmbedder(Means(gain=2.0), 0.5, tile_size_px=128, margin_px=32, compute=CPU), [image], tmp_path / "others")
    CohortWorker(embedder(), out)
    before = shutil.copy(tmp_path / "others/a.h5", out / "a.h5").read_bytes()
    with pytest.raises(InferenceFailures, match=r"a\.h5 exists and was not written by these runs"):
        run_cohort(embedder(), [image], out)
    assert (out / "a.h5").read_bytes() == before
