import json

import pytest
import torch
from mlflow import MlflowClient
from torch import nn

from shared.calibration import Calibration, load_threshold
from shared.calibration.threshold import map_threshold
from shared.data import SlideBagDataset, TissueCache
from shared.evaluation import SplitMaps
from shared.handlers import Tracking
from shared.inference import Compute, SlideMapper, Tiles
from shared.metrics.bag_ranking import bag_scores, top_share_of_histogram
from tests.engines.conftest import in_processes

# Far below the slides' share of tumour, so that whatever tiles are drawn, the top ones lie on paint.
ALPHA, NUM_TILES = 0.1, 24


@pytest.fixture
def bags(cohort, tmp_path):
    tissue = TissueCache(tmp_path / "tissue")

    def make(with_shares=True):
        return SlideBagDataset(cohort, tissue, tiles_per_slide=NUM_TILES, tile_size_px=32, mpp=1.0, with_shares=with_shares)

    return make


@pytest.fixture
def calibration(bags, cohort, tmp_path):
    def make(network, name="calibration.json", with_shares=True):
        mapper = SlideMapper(
            network or nn.Identity(), mpp=1.0, tiles=Tiles(tile_size_px=32, margin_px=0), compute=Compute(device="cpu", amp=False)
        )
        folder = tmp_path / f"maps of {name}"
        maps = SplitMaps(folder, cohort, mapper, TissueCache(tmp_path / "tissue"), truth=False)
        return Calibration(tmp_path / name, bags(with_shares), network, ALPHA, "cpu", maps)

    return make


def row(label, eval_scores, train_scores=None, share=None):
    return {
        "label": label,
        "eval": torch.tensor(eval_scores),
        "train": torch.tensor(train_scores or eval_scores),
        "tumour_share": None if share is None else torch.tensor(share),
    }


def test_summary_by_hand(calibration):
    rows = [
        row(1, [0.75, 0.25, 0.5, 0.125], [0.5, 0.25, 0.25, 0.125], [1.0, 0.0, 0.75, 0.25]),
        row(0, [0.125, 0.5, 0.25, 0.25], [0.125, 0.75, 0.25, 0.25], [0.0] * 4),
        row(1, [0.25, 0.625, 0.5, 0.375], [0.25, 0.625, 0.5, 0.375], [0.0, 0.5, 0.0, 0.0]),
    ]
    summary = calibration(nn.Identity()).summarise(rows)
    assert summary["num_slides"] == 3
    # |0.75 - 0.5| + |0.5 - 0.25| + |0.5 - 0.75| over 12 tiles.
    assert summary["mode_gap"] == pytest.approx(0.75 / 12)
    # Tumour tiles 0.75, 0.5 and 0.625; of the 9 others two are 0.5: 9 + 8 + 9 of 27 pairs.
    assert summary["eval"] == pytest.approx({"slide_auc": 1.0, "proxy_auc": 1.0, "tile_auc": 26 / 27})
    # Slides 0.5 and 0.625 against 0.75.
    assert summary["train"]["slide_auc"] == 0.0
    assert summary["train"]["proxy_auc"] == pytest.approx(6 / 8)


def test_summary_without_masks_or_with_some(calibration):
    rows = [row(1, [0.75, 0.25], share=[1.0, 0.0]), row(0, [0.5, 0.5])]
    summary = calibration(nn.Identity()).summarise(rows)
    assert set(summary["eval"]) == {"slide_auc", "proxy_auc"}


def test_summary_is_json_where_a_score_is_missing(calibration):
    # No tile is tumour for the larger part.
    rows = [row(1, [0.75, 0.25], share=[0.25, 0.0]), row(0, [0.5, 0.5], share=[0.0, 0.0])]
    assert calibration(nn.Identity()).summarise(rows)["eval"]["tile_auc"] is None


def histogram(**counts):
    values = torch.zeros(256, dtype=torch.int64)
    for name, count in counts.items():
        values[int(name[1:])] = count
    return values


def test_threshold_of_maps_by_hand():
    # A quarter of 8 tumour pixels is 2: of 200 and of 180. Normal ones end at 100: midway from 101 to 180 lies 140.
    maps = [histogram(v200=1, v180=3, v50=4), histogram(v100=5, v20=95)]
    assert map_threshold(maps, [1, 0], 0.25) == 140 / 255


def test_every_slide_counts_alike_in_the_threshold():
    # By pixels the large normal slide alone would decide, by slides the small one has as much to say.
    large, small = histogram(v10=10**6), histogram(v150=10)
    tumour = histogram(v120=40, v200=60)
    assert map_threshold([large, small, tumour], [0, 0, 1], 1.0) > 150 / 255
    assert map_threshold([large, tumour], [0, 1], 1.0) < 120 / 255


def test_slides_without_tissue_say_nothing():
    empty = histogram()
    maps = [histogram(v200=5), histogram(v100=5)]
    assert map_threshold([*maps, empty, empty], [1, 0, 0, 1], 0.5) == map_threshold(maps, [1, 0], 0.5)
    with pytest.raises(ValueError, match="need both classes"):
        map_threshold([maps[0], empty], [1, 0], 0.5)


def test_glass_is_never_above_the_threshold():
    assert map_threshold([histogram(v0=5), histogram(v0=5)], [1, 0], 0.5) == 1 / 255


def test_top_share():
    assert top_share_of_histogram(torch.tensor([5, 2, 3]), 0.1).tolist() == [0, 0, 1]
    assert top_share_of_histogram(torch.tensor([5, 2, 3]), 1.0).tolist() == [5, 2, 3]
    assert top_share_of_histogram(torch.tensor([0, 0]), 0.5).tolist() == [0, 0]


@pytest.mark.parametrize("with_shares", [True, False])
def test_threshold_lies_between_the_classes(calibration, bags, paint_finder, cohort, with_shares):
    network = paint_finder()
    once = calibration(network, with_shares=with_shares)
    result = once.run()
    assert json.loads(once.file.read_text()) == result
    dataset = bags()
    scores = [network(item["tiles"].permute(0, 3, 1, 2)).detach().sigmoid()[:, 0] for item in map(dataset.__getitem__, range(4))]
    labels = [record["label"] for record in cohort]
    assert labels == [1, 0, 1, 0]
    # The maps' pixels of normal slides, and the surest tenth of the tumour slides'.
    histograms = once.maps.tissue_histograms()
    normal = max(int(histograms[index].nonzero().max()) for index in (1, 3))
    tumour = min(int(top_share_of_histogram(histograms[index], ALPHA).nonzero().min()) for index in (0, 2))
    assert normal < 255 * result["threshold"] <= tumour
    shares = [dataset[index]["tumour_share"] for index in range(4)] if with_shares else None
    assert result["eval"] == pytest.approx(bag_scores(scores, labels, ALPHA, shares), abs=0.01)
    assert result["eval"]["slide_auc"] == result["eval"]["proxy_auc"] == 1.0
    assert result["mode_gap"] == 0.0
    assert load_threshold([once.file.parent / "model.pt"]) == result["threshold"]


def test_the_file_is_written_once(calibration, paint_finder):
    network = paint_finder()
    once = calibration(network)
    result = once.run()
    before = once.file.stat().st_mtime_ns
    assert [path.name for path in once.file.parent.iterdir() if path.is_file()] == ["calibration.json"]
    assert (once.maps.folder / "maps/slides.csv").is_file()
    with torch.no_grad():
        network.scale.neg_()
    assert calibration(network).run() == result
    assert once.file.stat().st_mtime_ns == before


def test_a_run_that_was_killed_before_it_was_logged_is_logged(calibration, paint_finder, tracked_folder):
    """The file is there, and MLflow knows nothing of it."""
    result = calibration(paint_finder()).run()
    again = calibration(paint_finder())
    again.tracking = Tracking(tracked_folder, "test")
    assert again.run() == result
    stage = MlflowClient(again.tracking.uri).get_run(again.tracking.stage_run("calibration"))
    assert stage.info.status == "FINISHED"
    assert stage.data.metrics["threshold"] == pytest.approx(result["threshold"])
    assert stage.data.metrics["eval.slide_auc"] == result["eval"]["slide_auc"]


@pytest.mark.parametrize("norm", ["batch", "group", "frozen"])
def test_the_network_is_not_changed_and_the_gap_is_that_of_batch_norm(calibration, make_classifier, norm):
    network = make_classifier(norm).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    result = calibration(network).run()
    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad and not parameter.is_inference() for parameter in network.parameters())
    if norm == "batch":
        # The running statistics are the initial ones, far from those of a slide.
        assert result["mode_gap"] > 0.01
    else:
        assert result["mode_gap"] == 0.0
        assert result["eval"] == result["train"]


def test_train_mode_takes_its_statistics_from_one_slide(calibration, bags, make_classifier):
    network = make_classifier("batch").eval()
    rows = calibration(network)._score()
    dataset = bags()
    for index, found in enumerate(rows):
        tiles = dataset[index]["tiles"].permute(0, 3, 1, 2)
        for mode in ("eval", "train"):
            fresh = make_classifier("batch").train(mode == "train")
            with torch.no_grad():
                torch.testing.assert_close(found[mode], fresh(tiles).sigmoid()[:, 0], atol=0.02, rtol=0)


def test_a_dense_network_is_scored_by_tile(calibration, paint_finder):
    plain, dense = calibration(paint_finder()).run(), calibration(paint_finder(16), "dense.json").run()
    assert dense["eval"] == pytest.approx(plain["eval"])
    assert 0 < dense["threshold"] <= 1


def test_two_processes_find_what_one_does(calibration, make_classifier):
    alone = calibration(make_classifier("batch")).run()
    in_processes(lambda _: calibration(make_classifier("batch"), "two.json").run())
    assert calibration(None, "two.json").run() == alone


def test_loading_a_threshold(tmp_path):
    model = tmp_path / "model.pt"
    with pytest.raises(ValueError, match=r"calibration\.json does not exist: train first .* --threshold a number"):
        load_threshold([model])
    (tmp_path / "calibration.json").write_text('{"threshold": 0.25}')
    assert load_threshold([str(model)]) == 0.25
    with pytest.raises(ValueError, match=r"2 networks are averaged, .* --threshold a number"):
        load_threshold([model, model])
    (tmp_path / "calibration.json").write_text("{}")
    with pytest.raises(ValueError, match=r"calibration\.json holds no threshold"):
        load_threshold([model])
