"""The training of boosted patches: bags, files, resumption, what the trees look at, misuse."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from shared.boosting import MILBoost
from shared.data import RandomStainJitterd, RegionDataset
from shared.engines import BoostingTrainer, pixel_validator
from shared.engines.boosting_trainer import patch_bags, spoken_features
from shared.networks import BoostedPatches
from tests.engines.conftest import Interruption, in_processes

SIZE_PX = 48


class Colours(nn.Module):
    """A patch a pixel, whose features are its colours."""

    def forward(self, images):
        return images.float()


@pytest.fixture
def tiles(tmp_path):
    """Twelve images of noise, every second one with a red square."""
    rng = np.random.default_rng(0)
    made = []
    for index in range(12):
        pixels = rng.integers(90, 160, (SIZE_PX, SIZE_PX, 3))
        mask = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
        if index % 2:
            row, column = rng.integers(0, SIZE_PX - 24, 2)
            mask[row : row + 24, column : column + 24] = 255
            pixels[mask > 0, 0] += 90
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{index}.png")
        Image.fromarray(mask).save(tmp_path / f"{index}_mask.png")
        record = {"image": str(tmp_path / f"{index}.png"), "mask": str(tmp_path / f"{index}_mask.png"), "row": index + 2}
        made.append(record | {"label": index % 2})
    return made


@pytest.fixture
def make_stage(tiles):
    def make(folder, **options):
        network = BoostedPatches(8, patch_size_px=16)
        defaults = {
            "device": "cpu",
            "max_epochs": 4,
            "rounds_per_epoch": 2,
            "dataset": RegionDataset(tiles, transform=RandomStainJitterd(["image"], 0.05)),
            "network": network,
            "booster": MILBoost(n_estimators=8, r=8.0, max_features=20),
            "patches_per_image": 20,
            "validator": pixel_validator(RegionDataset(tiles, pixel_labels="mask"), network, "cpu"),
        }
        return BoostingTrainer(folder.parent, folder.name, **(defaults | options))

    return make


def weights_of(path):
    return torch.load(path, weights_only=True)


def test_bags_are_patches_of_the_images(tiles):
    dataset = RegionDataset(tiles)
    bags, labels = patch_bags(dataset, Colours(), None)
    assert labels.tolist() == [record["label"] for record in tiles]
    pixels = np.array(Image.open(tiles[3]["image"]))
    np.testing.assert_array_equal(bags[3], pixels.reshape(-1, 3))
    few, _ = patch_bags(dataset, Colours(), 50)
    # Without replacement, and of each image others.
    rows = [[np.flatnonzero((whole == patch).all(axis=1)) for patch in bag] for whole, bag in zip(bags, few, strict=True)]
    assert all(bag.shape == (50, 3) for bag in few)
    firsts = [[found[0] for found in bag] for bag in rows]
    assert len({tuple(first) for first in firsts}) == 12
    again, _ = patch_bags(dataset, Colours(), 50)
    assert all(np.array_equal(one, other) for one, other in zip(few, again, strict=True))
    others, _ = patch_bags(dataset, Colours(), 50, seed=1)
    assert not np.array_equal(few[0], others[0])


def test_every_pass_has_stains_of_its_own(tiles):
    dataset = RegionDataset(tiles, transform=RandomStainJitterd(["image"], 0.2))
    bags, labels = patch_bags(dataset, Colours(), None, passes=2)
    assert len(bags) == 24
    assert labels.tolist() == [0, 1] * 12
    assert not np.array_equal(bags[0], bags[12])


def test_a_training_finds_the_squares(make_stage, tmp_path):
    stage = make_stage(tmp_path / "boosting")
    stage.run()
    assert {path.name for path in stage.folder.iterdir()} == {"features.csv", "history.csv", "model.pt"}
    history = pd.read_csv(stage.history_file)
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert history["num_trees"].tolist() == [2, 4, 6, 8]
    assert history["train_loss"].is_monotonic_decreasing
    # "Everything is tumour" has an eighth.
    assert history["val_pixel_iou"].iloc[-1] > 0.35
    for name, values in weights_of(tmp_path / "model.pt").items():
        assert torch.equal(values, weights_of(stage.weights_file)[name])
    assert torch.equal(stage.trained().value, weights_of(stage.weights_file)["value"])
    # What was fitted is a copy.
    assert not hasattr(make_stage(tmp_path / "other").booster, "value_")


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_interrupted_it_ends_with_the_same_trees(make_stage, tmp_path, epoch):
    make_stage(tmp_path / "whole").run()
    interrupted = make_stage(tmp_path / "interrupted")

    def stop(engine):
        if engine.state.epoch == epoch:
            raise Interruption

    interrupted.add_event_handler("EPOCH_COMPLETED", stop)
    with pytest.raises(Interruption):
        interrupted.run()
    assert not interrupted.is_finished
    resumed = make_stage(tmp_path / "interrupted")
    resumed.run()
    for name in ("history.csv", "features.csv"):
        whole = pd.read_csv(tmp_path / "whole" / name)
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "interrupted" / name), whole)
    torch.testing.assert_close(weights_of(resumed.weights_file), weights_of(tmp_path / "whole/model.pt"))
    assert not (resumed.folder / "resume.pt").exists()


def test_a_finished_stage_is_not_run_again(make_stage, tmp_path):
    make_stage(tmp_path / "boosting").run()
    (tmp_path / "model.pt").unlink()
    again = make_stage(tmp_path / "boosting", dataset=None)
    again.run()
    assert (tmp_path / "model.pt").read_bytes() == again.weights_file.read_bytes()
    assert again.network.value.abs().sum() > 0


def test_it_ends_early_where_no_tree_lowers_the_loss(make_stage, tmp_path, tiles):
    """The same image under both labels."""
    same = [{**tiles[0], "label": label} for label in (0, 1)]
    stage = make_stage(tmp_path / "boosting", dataset=RegionDataset(same), patches_per_image=None, validator=None)
    stage.run()
    assert pd.read_csv(stage.history_file)["num_trees"].tolist() == [0]
    assert stage.network.value.eq(0).all()


def test_spoken_features_by_hand():
    model = MILBoost(max_depth=2).set_trees(
        np.array([[1, 0, 0], [2, 2, 2]]),
        np.array([[0.5, np.inf, 0.1], [0.1, 0.2, np.inf]], np.float32),
        np.array([[-3.0, -3, 3, 3], [1, -1, 1, 1]]),
        [],
        3,
    )
    table = spoken_features(model, ["red", "green", "blue"])
    # The first tree's weight of 3 goes to two features, the second one's 1 to one.
    assert table.to_dict("list") == {
        "feature": ["red", "green", "blue"],
        "num_nodes": [1, 1, 2],
        "weight": [0.375, 0.375, 0.25],
    }


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"network": BoostedPatches(7, patch_size_px=16)}, "room for 7 trees, but 8 are to be grown"),
        ({"rounds_per_epoch": 0}, "rounds_per_epoch=0"),
        ({"patches_per_image": 0}, "patches_per_image=0"),
    ],
)
def test_says_what_does_not_fit(make_stage, tmp_path, options, problem):
    with pytest.raises(ValueError, match=problem):
        make_stage(tmp_path / "boosting", **options)


def test_weights_of_an_unfinished_stage(make_stage, tmp_path):
    with pytest.raises(ValueError, match="run the stage 'boosting' first"):
        make_stage(tmp_path / "boosting").trained()


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_grow_the_trees_of_one(make_stage, tmp_path, world):
    make_stage(tmp_path / "one", passes=2).run()

    def train(_rank):
        stage = make_stage(tmp_path / "several", passes=2)
        stage.run()
        # Every process has the trees.
        assert all(
            torch.equal(values, stage.network.state_dict()[name]) for name, values in weights_of(stage.weights_file).items()
        )

    in_processes(train, world)
    for name in ("features.csv", "history.csv"):
        assert (tmp_path / "several" / name).read_text() == (tmp_path / "one" / name).read_text()
    expected = weights_of(tmp_path / "one/model.pt")
    assert all(torch.equal(values, expected[name]) for name, values in weights_of(tmp_path / "several/model.pt").items())


def test_killed_between_epochs_several_processes_go_on(make_stage, tmp_path):
    make_stage(tmp_path / "one").run()

    def stop(engine):
        if engine.state.epoch == 2:
            raise Interruption

    def interrupted(_rank):
        stage = make_stage(tmp_path / "several")
        stage.add_event_handler("EPOCH_COMPLETED", stop)
        with pytest.raises(Interruption):
            stage.run()

    in_processes(interrupted)
    assert (tmp_path / "several/resume.pt").is_file()
    in_processes(lambda _rank: make_stage(tmp_path / "several").run())
    assert (tmp_path / "several/history.csv").read_text() == (tmp_path / "one/history.csv").read_text()
