"""Slides are embedded once: the right cells, with the encoder's own features, whatever interrupts it."""

import json
import signal
import sys
import time

import numpy as np
import pytest
import torch

from shared.data import TissueCache
from shared.features import SlideFeatures
from shared.inference import Compute, InferenceFailures, SlideEmbedder, SlideMapper, Tissue, find_images
from shared.wsi import Slide, find_tissue
from shared.wsi.notices import warn_once
from tests.inference.cohort_processes import start, table_of
from tests.inference.stored import Headed, Means, options, picture

CPU = {"device": "cpu", "amp": False, "num_workers": 1}
GIVEN = {"mpp": 0.5, "tile_size_px": 128, "margin_px": 32}
SETUP = f"""
    import sys, time, torch
    from pathlib import Path
    from shared.inference import Compute, SlideEmbedder
    from tests.inference.cohort_processes import in_step
    from tests.inference.stored import Means

    torch.set_num_threads(1)

    def embedder(encoder):
        return SlideEmbedder(encoder, compute=Compute(batch_size=4, **{CPU!r}), **{GIVEN!r})
"""


def embedder(encoder=None, batch_size=4, **changed):
    return SlideEmbedder(encoder or Means(), **GIVEN | {"compute": Compute(batch_size=batch_size, **CPU)} | changed)


@pytest.fixture
def slides(tmp_path, write_slide):
    """Four slides, c one without tissue."""
    (tmp_path / "slides").mkdir()
    for seed, name in enumerate("abcd"):
        rgb = np.full((300, 400, 3), 245, np.uint8) if name == "c" else picture((600, 400), seed)
        write_slide(tmp_path / "slides" / f"{name}.tif", rgb)
    return tmp_path / "slides"


def test_features_are_those_of_the_whole_slide(tmp_path, slides):
    (row,) = embedder().run(slides / "a.tif", tmp_path / "out")
    encoder = Means()
    with Slide(slides / "a.tif") as slide, SlideFeatures.open(tmp_path / "out" / "a.h5") as features:
        # 600 x 400 px in 38 x 25 cells, the last column of 8 of 16 px: its centre is no more on the slide.
        assert features.grid_shape == (25, 37)
        pixels = slide.read_region((0, 0), (592, 400))
        whole = encoder(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())[0].permute(1, 2, 0).detach().half().numpy()
        np.testing.assert_array_equal(features.read(), whole[features.grid[:, 0], features.grid[:, 1]])
        np.testing.assert_array_equal(features.coords, features.grid[:, ::-1] * 16)
        features.check(slide, encoder)
        assert (features.mpp, features.slide_mpp, features.dim) == (0.5, 0.5, 4)
        assert (row["num_features"], row["status"]) == (len(features), "ok")
        assert row["num_tiles"] < 7 * 10


@pytest.mark.parametrize("kept", [False, True])
def test_cells_with_tissue_and_their_neighbours_are_stored(tmp_path, slides, kept):
    cache = TissueCache(tmp_path / "tissue", mpp=4.0) if kept else None
    embedder(tissue=Tissue(cache=cache)).run(slides / "a.tif", tmp_path / "out")
    with Slide(slides / "a.tif") as slide, SlideFeatures.open(tmp_path / "out" / "a.h5") as features:
        rows, columns = features.grid_shape
        corners = np.array([(column, row) for row in range(rows) for column in range(columns)]) * 16
        shares = find_tissue(slide, mpp=4.0 if kept else 8.0).shares(corners, 16).reshape(rows, columns)
        np.testing.assert_allclose(features.tissue, shares[tuple(features.grid.T)], atol=1e-3)
        wanted = {
            (row, column)
            for row, column in np.ndindex(rows, columns)
            if (shares[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] > 0).any()
        }
        stored = list(map(tuple, features.grid.tolist()))
        assert set(stored) == wanted
        assert len(stored) == len(wanted) < rows * columns
    assert (tmp_path / "tissue").exists() == kept


def test_whole_slides_are_embedded_where_asked(tmp_path, slides):
    embedder(tissue=Tissue(only=False)).run(slides / "c.tif", tmp_path / "out")
    with SlideFeatures.open(tmp_path / "out" / "c.h5") as features:
        assert len(features) == np.prod(features.grid_shape) == 19 * 25


def test_batches_tiles_and_margins_change_nothing_for_an_encoder_that_sees_its_cell_alone(tmp_path, slides):
    found = {}
    for number, changed in enumerate(({}, {"batch_size": 1}, {"tile_size_px": 64, "margin_px": 0}, {"tile_size_px": 1024})):
        embedder(**changed).run(slides / "a.tif", tmp_path / str(number))
        with SlideFeatures.open(tmp_path / str(number) / "a.h5") as features:
            found[number] = features.lay_out(features.read())
    for other in found.values():
        np.testing.assert_array_equal(other, found[0])


def test_a_coarser_pixel_size_is_read_where_asked(tmp_path, slides):
    embedder(mpp=1.0).run(slides / "a.tif", tmp_path / "out")
    with SlideFeatures.open(tmp_path / "out" / "a.h5") as features:
        assert (features.mpp, features.stride_px, features.grid_shape) == (1.0, 32, (12, 19))


def test_the_encoder_s_own_pixel_and_image_size_are_the_default():
    def pixels_and_tiles(encoder, **changed):
        return [SlideEmbedder(encoder, **changed).settings()[name] for name in ("mpp", "tile_size_px", "margin_px")]

    encoder = Means()
    assert pixels_and_tiles(encoder) == [1.0, 512, 64]
    encoder.mpp, encoder.input_size_px = 0.25, 224
    assert pixels_and_tiles(encoder) == [0.25, 224, 0]
    assert pixels_and_tiles(encoder, mpp=0.5) == [0.5, 224, 0]
    assert pixels_and_tiles(Means(stride_px=48)) == [1.0, 528, 96]


@pytest.mark.parametrize(
    ("encoder", "changed", "message"),
    [
        (Means(), {"tile_size_px": 100}, "multiples of the stride of means, 16"),
        (Means(), {"margin_px": 64}, "2 \\* margin_px < tile_size_px"),
        (Means(tokens="class"), {}, "so its tiles must not overlap; got margin_px=32"),
        (object(), {}, "the encoder must be a torch.nn.Module, got object"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_at_once(encoder, changed, message):
    with pytest.raises(ValueError, match=message):
        SlideEmbedder(encoder, **GIVEN | changed)


def test_a_slide_coarser_than_the_encoder_s_pixels_fails_alone(tmp_path, slides, write_slide):
    write_slide(slides / "b.tif", picture((600, 400)), mpp=2.0)
    with pytest.raises(InferenceFailures, match=r"1 of 4.*\n.*b\.tif.*pixels are 2 um, coarser than the mpp=0.5 at which means"):
        embedder().run(slides, tmp_path / "out")
    statuses = {name: row["status"] for name, row in table_of(tmp_path / "out").items()}
    assert statuses == {"a": "ok", "b": "failed", "c": "no tissue", "d": "ok"}
    assert sorted(path.name for path in (tmp_path / "out").glob("*.h5*")) == ["a.h5", "c.h5", "d.h5"]


def test_features_beyond_half_precision_fail_the_slide(tmp_path, slides):
    with pytest.raises(InferenceFailures, match="beyond 65504"):
        embedder(Means(gain=1e6)).run(slides / "a.tif", tmp_path / "out")
    assert not list((tmp_path / "out").glob("a.h5*"))


def test_nothing_is_computed_twice(tmp_path, slides, write_slide):
    out = tmp_path / "out"
    assert len(embedder().run(slides, out)) == 4
    encoder = Means()
    encoder.forward = lambda images: pytest.fail("computed again")
    assert embedder(encoder, batch_size=16).run(slides, out) == []
    write_slide(slides / "d.tif", picture((600, 400), seed=9))
    (out / "a.h5").unlink()
    assert [row["slide"] for row in embedder().run(slides, out)] == ["a", "d"]


def test_a_folder_holds_features_of_one_encoder_with_one_set_of_options(tmp_path, slides):
    out = tmp_path / "out"
    embedder().run(slides, out)
    before = {path.name: path.read_bytes() for path in out.glob("*.h5")}
    for changed, message in (
        ({"encoder": Means(gain=2.0)}, f"encoder_key: expected {Means(gain=2.0).key}, found {Means().key}"),
        ({"mpp": 1.0}, "mpp: expected 1.0, found 0.5"),
    ):
        with pytest.raises(ValueError, match=f"out contains features that were made with other settings.*{message}"):
            embedder(**changed).run(slides, out)
    with pytest.raises(ValueError, match="out contains features: give maps a separate folder"):
        SlideMapper(Headed(Means()), **options()).run(slides, out)
    assert {path.name: path.read_bytes() for path in out.glob("*.h5")} == before
    assert json.loads((out / "settings.json").read_text())["encoder_key"] == Means().key
    SlideMapper(Headed(Means()), **options()).run(slides / "a.tif", tmp_path / "maps")
    with pytest.raises(ValueError, match="maps contains maps: give features a separate folder"):
        embedder().run(slides, tmp_path / "maps")


def test_a_killed_run_leaves_no_half_file_and_is_resumed(tmp_path, slides):
    out = tmp_path / "out"
    process = start(
        f"""
        class Standing(Means):
            calls = 0
            def forward(self, images):
                # The second slide stands still in its second batch, with features that are not yet a file.
                Standing.calls += 1
                if Path({str(out)!r}, "a.h5").exists() and Standing.calls > {_batches_of(slides / "a.tif", tmp_path)} + 1:
                    print("busy", flush=True)
                    time.sleep(600)
                return super().forward(images)
        embedder(Standing()).run({str(slides)!r}, {str(out)!r})
    """,
        SETUP,
    )
    assert process.stdout.readline() == "busy\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert sorted(path.name for path in out.glob("*.h5*")) == ["a.h5", "b.h5.part"]
    first = (out / "a.h5").stat().st_mtime_ns
    assert [row["slide"] for row in embedder().run(slides, out)] == ["b", "c", "d"]
    assert (out / "a.h5").stat().st_mtime_ns == first
    assert sorted(path.name for path in out.glob("*.h5*")) == ["a.h5", "b.h5", "c.h5", "d.h5"]
    for path in out.glob("*.h5"):
        with SlideFeatures.open(path) as features, Slide(slides / f"{path.stem}.tif") as slide:
            features.check(slide, Means())
            assert len(features.read()) == int(table_of(out)[path.stem]["num_features"])


def _batches_of(slide, tmp_path):
    (row,) = embedder().run(slide, tmp_path / "counted")
    return -(-row["num_tiles"] // 4)


@pytest.mark.slow
def test_two_processes_share_the_slides(tmp_path, slides, write_slide):
    for seed in range(4, 10):
        write_slide(slides / f"{seed}.tif", picture((600, 400), seed))
    out = tmp_path / "out"
    processes = [
        start(
            f"""
            ready = SlideEmbedder(Means(), compute=Compute(batch_size=4, **{CPU!r}), **{GIVEN!r})
            ready.map_image = in_step(ready.map_image, Path({str(tmp_path / "begun")!r}))
            print(*(row["slide"] for row in ready.run({str(slides)!r}, {str(out)!r})))
        """,
            SETUP,
        )
        for _ in range(2)
    ]
    done = [process.communicate()[0].split() for process in processes]
    assert sorted(done[0] + done[1]) == sorted(path.stem for path in slides.glob("*.tif"))
    assert min(map(len, done)) >= 2
    assert {row["attempts"] for row in table_of(out).values()} == {"1"}


def build_means():
    return embedder()


@pytest.mark.slow
def test_a_ray_cluster_embeds_each_slide_once(tmp_path, slides):
    ray = pytest.importorskip("ray", reason="needs Ray: pip install -r requirements-ray.txt")
    from shared.inference.cohort.ray_cohort import RayCohort

    ray.init(num_cpus=2, object_store_memory=80 * 2**20, log_to_driver=False, include_dashboard=False)
    try:
        # Workers have no module of this file's name.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        images = find_images(slides)
        rows = RayCohort(build_means, num_cpus=1).run(images, tmp_path / "out")
        assert [row["slide"] for row in rows] == ["a", "b", "c", "d"]
        assert RayCohort(build_means, num_cpus=1).run(images, tmp_path / "out") == []
    finally:
        ray.shutdown()
    # What the workers have made is what this process would make.
    embedder().run(slides, tmp_path / "here")
    for name in "abcd":
        with (
            SlideFeatures.open(tmp_path / "out" / f"{name}.h5") as there,
            SlideFeatures.open(tmp_path / "here" / f"{name}.h5") as here,
        ):
            np.testing.assert_array_equal(there.read(), here.read())


def test_the_next_slide_is_opened_while_this_one_is_embedded(tmp_path, slides):
    opened = []

    class Watched(SlideEmbedder):
        def _open_slide(self, image):
            result = super()._open_slide(image)
            opened.append(image.name)
            return result

        def map_image(self, image, output_dir, title=""):
            following = chr(ord(image.name) + 1)
            deadline = time.monotonic() + 300
            while following in "abcd" and following not in opened and time.monotonic() < deadline:
                time.sleep(0.01)
            return super().map_image(image, output_dir, title)

    Watched(Means(), compute=Compute(**CPU), **GIVEN).run(slides, tmp_path / "out")
    # The second while the first one waits.
    assert opened == ["b", "a", "c", "d"]


@pytest.mark.parametrize("settings", [None, "{}"], ids=["alone", "beside settings that are not of features"])
def test_features_that_another_program_wrote_are_not_replaced(tmp_path, slides, settings):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.h5").write_bytes(b"of another program")
    if settings:
        (out / "settings.json").write_text(settings)
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(
        ValueError, match=r"out contains 1 files of features \(a\.h5\).*Give another folder.*--run_embed '\$None'"
    ):
        embedder().run(slides, out)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_a_file_that_was_cut_off_is_written_again(tmp_path, slides):
    out = tmp_path / "out"
    embedder().run(slides / "a.tif", out)
    whole = (out / "a.h5").read_bytes()
    (out / "a.h5").write_bytes(whole[:2000])
    assert [row["slide"] for row in embedder().run(slides / "a.tif", out)] == ["a"]
    with SlideFeatures.open(out / "a.h5") as features:
        assert len(features) > 0
    assert embedder().run(slides / "a.tif", out) == []


def test_a_file_that_another_program_put_beside_ours_is_not_replaced(tmp_path, slides):
    out = tmp_path / "out"
    embedder().run(slides / "b.tif", out)
    (out / "a.h5").write_bytes(b"of another program")
    with pytest.raises(InferenceFailures, match=r"a\.h5 exists and was not written by these runs: move it away"):
        embedder().run(slides, out)
    assert (out / "a.h5").read_bytes() == b"of another program"
    (out / "a.h5").unlink()
    assert "a" in [row["slide"] for row in embedder().run(slides, out)]


@pytest.mark.parametrize(("own", "is_warned"), [(0.25, True), (0.5, False), (None, False)])
def test_another_pixel_size_than_the_encoders_is_warned_of(caplog, own, is_warned):
    warn_once.cache_clear()
    encoder = Means()
    encoder.mpp = own
    embedder(encoder)
    assert ("the encoder means was trained at 0.25 um per pixel and is given images of 0.5 um" in caplog.text) == is_warned
