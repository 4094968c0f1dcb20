import copy
import csv
import shutil
from functools import partial

import pytest
import torch
from ignite.engine import Events
from monai.engines import Evaluator
from torch import nn

from shared.calibration.carried_threshold import carried_threshold, carry_threshold
from shared.data import PairedLoader, RegionDataset, RegionLoader
from shared.engines import (
    ConstrainedRetrainInferer,
    SelectedInstanceInferer,
    TrainingDevice,
    Weights,
    bag_and_label,
    constrained_instances,
    image_and_mask,
    lattice_validator,
    pixel_validator,
)
from shared.losses import ConstrainedRetrainLoss
from shared.writers import StorageError

PUBLISHED = Weights(publish=True)


def weights_of(path):
    return torch.load(path, weights_only=True)


def assert_equal(first, second):
    """Two state dicts, bit by bit."""
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


class CountEpochs:
    """The weights and the number at the start of each epoch."""

    def __init__(self):
        self.epochs, self.weights = [], []

    def attach(self, engine):
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine):
        self.epochs.append(engine.state.epoch)
        self.weights.append(copy.deepcopy(engine.plain_network.state_dict()))


class ScriptedValidator(Evaluator):
    """Says `scores` one after the other, keeping the network of each time."""

    def __init__(self, scores, network):
        super().__init__(
            device=torch.device("cpu"), val_data_loader=RegionLoader(RegionDataset([{"image": "none", "label": 0}]), 1)
        )
        self.scores, self.network, self.seen = list(scores), network, []

    def run(self, global_epoch=1):
        self.state.metrics = {"val_image_accuracy": self.scores[global_epoch - 1]}
        self.seen.append(copy.deepcopy(self.network.state_dict()))


def test_a_run_to_the_end(tmp_path, make_stage, records):
    validator = partial(lattice_validator, RegionDataset(records, pixel_labels="mask"), instances_per_side=2, device="cpu")
    stage = make_stage(tmp_path / "stage", validator=validator, weights=PUBLISHED)
    before = copy.deepcopy(stage.plain_network.state_dict())
    assert not stage.is_finished
    stage.run()
    assert stage.is_finished
    assert files(tmp_path / "stage") == ["history.csv", "model.pt"]
    final = weights_of(tmp_path / "stage/model.pt")
    assert_equal(final, stage.plain_network.state_dict())
    assert_equal(final, weights_of(tmp_path / "model.pt"))
    assert not torch.equal(final["1.weight"], before["1.weight"])
    assert not stage.plain_network.training
    with (tmp_path / "stage/history.csv").open(newline="") as file:
        history = list(csv.DictReader(file))
    assert [float(row["epoch"]) for row in history] == [1, 2, 3, 4]
    assert {"train_loss", "val_image_accuracy", "val_instance_sensitivity", "val_instance_accuracy"} <= set(history[0])
    assert all(0 < float(row["train_loss"]) < 5 for row in history)


def test_it_learns(tmp_path, make_stage, make_classifier):
    stage = make_stage(tmp_path, max_epochs=12, network=make_classifier())
    stage.run()
    losses = [row["train_loss"] for row in stage.history]
    assert losses[-1] < 0.5 * losses[0]


def test_a_finished_stage_only_loads(tmp_path, make_stage, make_classifier):
    make_stage(tmp_path).run()
    final = weights_of(tmp_path / "model.pt")
    count = CountEpochs()
    again = make_stage(tmp_path, network=make_classifier(seed=5, dropout=0.3), train_handlers=[count])
    again.run()
    assert count.epochs == []
    assert_equal(again.plain_network.state_dict(), final)
    assert_equal(make_stage(tmp_path).trained().state_dict(), final)


def test_weights_that_were_published_and_lost_are_published_again(tmp_path, make_stage):
    published = tmp_path / "model.pt"
    make_stage(tmp_path / "stage", weights=PUBLISHED).run()
    expected = published.read_bytes()
    published.unlink()
    make_stage(tmp_path / "stage", weights=PUBLISHED).run()
    assert published.read_bytes() == expected


def test_new_weights_have_no_threshold_of_the_old_ones(tmp_path, make_stage):
    """Nor have they where the training stops before they are published."""
    published, chosen = tmp_path / "model.pt", tmp_path / "calibration.json"
    make_stage(tmp_path / "stage", weights=PUBLISHED).run()
    chosen.write_text('{"threshold": 0.3}')
    carry_threshold(published, 0.3)
    # A finished one keeps it.
    make_stage(tmp_path / "stage", weights=PUBLISHED).run()
    assert chosen.is_file()
    shutil.rmtree(tmp_path / "stage")
    in_the_way = tmp_path / "model.pt.part"
    in_the_way.mkdir()
    with pytest.raises((OSError, StorageError)):
        make_stage(tmp_path / "stage", weights=PUBLISHED, max_epochs=1).run()
    assert (chosen.exists(), carried_threshold(published)) == (False, 0.3)
    in_the_way.rmdir()
    make_stage(tmp_path / "stage", weights=PUBLISHED, max_epochs=1).run()
    assert (chosen.exists(), carried_threshold(published)) == (False, None)


def test_trained_before_the_run(tmp_path, make_stage):
    with pytest.raises(ValueError, match=r"run the stage 'max_max' first \(run_max_max\)"):
        make_stage(tmp_path / "max_max").trained()


@pytest.mark.parametrize(
    ("epoch", "event", "first_epoch"),
    [
        (1, Events.ITERATION_COMPLETED(once=2), 1),
        (2, Events.ITERATION_COMPLETED(every=2), 2),
        (2, Events.EPOCH_COMPLETED, 2),
        (3, Events.EPOCH_STARTED, 3),
        (4, Events.EPOCH_COMPLETED, 4),
    ],
)
def test_an_interrupted_training_ends_as_one_without_interruption(
    tmp_path, make_stage, records, interrupt_at, interruption, epoch, event, first_epoch
):
    validator = partial(lattice_validator, RegionDataset(records, pixel_labels="mask"), instances_per_side=2, device="cpu")
    make_stage(tmp_path / "whole", validator=validator).run()

    folder = tmp_path / "interrupted"
    with pytest.raises(interruption):
        make_stage(folder, validator=validator, train_handlers=[interrupt_at(epoch, event)]).run()
    assert not (folder / "model.pt").exists()
    assert (folder / "resume.pt").exists() == (first_epoch > 1)
    count = CountEpochs()
    make_stage(folder, validator=validator, train_handlers=[count]).run()
    assert count.epochs == list(range(first_epoch, 5))
    assert files(folder) == ["history.csv", "model.pt"]
    assert_equal(weights_of(folder / "model.pt"), weights_of(tmp_path / "whole/model.pt"))
    assert (folder / "history.csv").read_bytes() == (tmp_path / "whole/history.csv").read_bytes()


def test_neither_workers_nor_two_interruptions_matter(tmp_path, make_stage, interrupt_at, interruption):
    make_stage(tmp_path / "whole").run()
    for epoch in (2, 3):
        interrupt = interrupt_at(epoch, Events.ITERATION_COMPLETED(every=2))
        with pytest.raises(interruption):
            make_stage(tmp_path / "workers", num_workers=1, train_handlers=[interrupt]).run()
    make_stage(tmp_path / "workers", num_workers=1).run()
    assert_equal(weights_of(tmp_path / "workers/model.pt"), weights_of(tmp_path / "whole/model.pt"))


@pytest.mark.parametrize("stage_of_camel", ["cmil", "constrained"])
def test_camels_stages_resume_too(tmp_path, make_stage, records, interrupt_at, interruption, stage_of_camel):
    def loader(batch_size, **region):
        return RegionLoader(RegionDataset([{**record, **region} for record in records]), batch_size)

    if stage_of_camel == "cmil":
        options = {
            "train_data_loader": loader(4),
            "inferer": SelectedInstanceInferer("max_min", 2),
            "prepare_batch": bag_and_label,
        }
    else:
        options = {
            "train_data_loader": PairedLoader(
                {"instances": loader(3, x=4, y=0, width_px=4, height_px=4), "images": loader(5)}, leading="instances"
            ),
            "inferer": ConstrainedRetrainInferer(2),
            "prepare_batch": constrained_instances,
            "loss_function": ConstrainedRetrainLoss(),
        }
    make_stage(tmp_path / "whole", max_epochs=3, **options).run()
    interrupt = interrupt_at(2, Events.ITERATION_COMPLETED(every=2))
    with pytest.raises(interruption):
        make_stage(tmp_path / "interrupted", max_epochs=3, train_handlers=[interrupt], **options).run()
    make_stage(tmp_path / "interrupted", max_epochs=3, **options).run()
    assert_equal(weights_of(tmp_path / "interrupted/model.pt"), weights_of(tmp_path / "whole/model.pt"))


def test_killed_between_the_last_epoch_and_the_weights(tmp_path, make_stage):
    make_stage(tmp_path / "whole").run()
    # A folder stands where the weights should go.
    taken = tmp_path / "run/model.pt"
    taken.mkdir(parents=True)
    with pytest.raises(StorageError, match=r"model\.pt cannot be written: there is a folder of this name"):
        make_stage(tmp_path / "run/stage", weights=PUBLISHED).run()
    assert files(tmp_path / "run/stage") == ["history.csv", "resume.pt"]
    taken.rmdir()
    count = CountEpochs()
    make_stage(tmp_path / "run/stage", weights=PUBLISHED, train_handlers=[count]).run()
    assert count.epochs == []
    assert files(tmp_path / "run/stage") == ["history.csv", "model.pt"]
    for path in ("run/stage/model.pt", "run/model.pt"):
        assert_equal(weights_of(tmp_path / path), weights_of(tmp_path / "whole/model.pt"))


def test_a_resume_point_of_another_network(tmp_path, make_stage, make_classifier, interrupt_at, interruption):
    with pytest.raises(interruption):
        make_stage(tmp_path, train_handlers=[interrupt_at(2, Events.EPOCH_STARTED)]).run()
    point = (tmp_path / "resume.pt").read_bytes()
    with pytest.raises(ValueError, match=r"resume\.pt belongs to another network"):
        make_stage(tmp_path, network=make_classifier(width=4)).run()
    assert (tmp_path / "resume.pt").read_bytes() == point


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite(tmp_path, make_stage, value):
    count = CountEpochs()

    def loss(logits, labels):
        factor = value if count.epochs[-1] == 3 else 1.0
        return nn.functional.binary_cross_entropy_with_logits(logits, labels) * factor

    with pytest.raises(ValueError, match=r"the loss of epoch 3 is (nan|inf); .*resume\.pt"):
        make_stage(tmp_path / "stage", loss_function=loss, train_handlers=[count]).run()
    assert files(tmp_path / "stage") == ["history.csv", "resume.pt"]
    saved = torch.load(tmp_path / "stage/resume.pt", weights_only=True)
    assert saved["epoch"] == 2
    assert_equal(saved["network"], count.weights[2])


NAN = float("nan")


@pytest.mark.parametrize(
    ("scores", "best"),
    [([0.1, 0.9, 0.3, 0.4], 2), ([0.9, 1.0, 1.0, 0.3], 3), ([NAN, 0.2, NAN, 0.1], 2), ([NAN] * 4, 4), ([0.1, 0.2, 0.3, 0.4], 4)],
)
@pytest.mark.parametrize("interrupted", [False, True])
def test_keep_best(tmp_path, make_stage, make_classifier, interrupt_at, interruption, scores, best, interrupted):
    network = make_classifier()
    validator = ScriptedValidator(scores, network)
    options = {"validator": validator, "weights": Weights(keep_best="val_image_accuracy")}
    if interrupted:
        interrupt = interrupt_at(3, Events.EPOCH_STARTED)
        with pytest.raises(interruption):
            make_stage(tmp_path, network=network, train_handlers=[interrupt], **options).run()
    stage = make_stage(tmp_path, network=network, **options)
    stage.run()
    assert stage.best["epoch"] == best
    assert_equal(weights_of(tmp_path / "model.pt"), validator.seen[best - 1])
    assert_equal(network.state_dict(), validator.seen[best - 1])


def test_a_score_that_is_no_number_is_said_once(tmp_path, make_stage, make_classifier, records, caplog):
    """A validation split with images of one class has no area under a curve."""
    normal = RegionDataset([record for record in records if record["label"] == 0])
    validator = partial(lattice_validator, normal, instances_per_side=2, device="cpu")
    stage = make_stage(tmp_path / "max_max", validator=validator, weights=Weights(keep_best="val_image_auc"))
    stage.run()
    assert stage.best["epoch"] == 4
    (said,) = [record.getMessage() for record in caplog.records if "keep_best" in record.getMessage()]
    assert said.startswith("max_max: val_image_auc, by which keep_best chooses the epoch, is NaN")


def test_keep_best_of_a_metric_that_is_not_there(tmp_path, make_stage, make_classifier):
    network = make_classifier()
    stage = make_stage(
        tmp_path, network=network, validator=ScriptedValidator([0.5] * 4, network), weights=Weights(keep_best="val_dice")
    )
    with pytest.raises(ValueError, match="keep_best is 'val_dice', but the validation metrics are val_image_accuracy"):
        stage.run()


def test_the_last_epoch_without_keep_best(tmp_path, make_stage, make_classifier):
    network = make_classifier()
    validator = ScriptedValidator([0.9, 0.1, 0.1, 0.1], network)
    make_stage(tmp_path, network=network, validator=validator).run()
    assert_equal(weights_of(tmp_path / "model.pt"), validator.seen[-1])


def test_warm_start(tmp_path, make_stage, make_classifier, interrupt_at, interruption):
    start = make_classifier(seed=9).state_dict()
    torch.save(start, tmp_path / "start.pt")
    count = CountEpochs()
    options = {"weights": Weights(initial=tmp_path / "start.pt")}
    with pytest.raises(interruption):
        make_stage(tmp_path / "a", train_handlers=[count, interrupt_at(2, Events.ITERATION_COMPLETED(every=2))], **options).run()
    assert_equal(count.weights[0], start)
    # Only the beginning asks for it.
    (tmp_path / "start.pt").unlink()
    make_stage(tmp_path / "a", **options).run()
    with pytest.raises(ValueError, match=r"start\.pt do not exist"):
        make_stage(tmp_path / "b", **options).run()


def test_an_optimizer_of_another_network_is_refused(tmp_path, make_stage, make_classifier):
    other = torch.optim.SGD(make_classifier().parameters(), lr=0.1)
    number = len(list(make_classifier().parameters()))
    with pytest.raises(ValueError, match=f"max_max: {number} parameters of its optimizer do not belong to its Sequential"):
        make_stage(tmp_path / "max_max", optimizer=lambda _: other)


def test_segmentation_with_pixel_validation(tmp_path, make_stage, records):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    dataset = RegionDataset(records, transform=lambda item: {**item, "image": item["image"] / 255}, pixel_labels="mask")
    stage = make_stage(
        tmp_path,
        network=network,
        train_data_loader=RegionLoader(dataset, 4),
        loss_function=nn.CrossEntropyLoss(),
        prepare_batch=image_and_mask,
        validator=pixel_validator(dataset, network, "cpu"),
    )
    stage.run()
    last = stage.history[-1]
    assert last["val_pixel_iou"] == pytest.approx(last["val_pixel_f1"] / (2 - last["val_pixel_f1"]))


def test_other_seeds_train_otherwise(tmp_path, make_stage):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_stage(tmp_path / name, max_epochs=1, seed=seed).run()
    weights = [weights_of(tmp_path / name / "model.pt") for name in "abc"]
    assert_equal(weights[0], weights[1])
    assert not torch.equal(weights[0]["1.weight"], weights[2]["1.weight"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_scaler_of_float16_is_resumed(tmp_path, make_stage, interrupt_at, interruption):
    options = {"compute": TrainingDevice("cuda", "float16")}
    with pytest.raises(interruption):
        make_stage(tmp_path, train_handlers=[interrupt_at(3, Events.EPOCH_STARTED)], **options).run()
    saved = torch.load(tmp_path / "resume.pt", weights_only=True)["scaler"]
    # No scale that a scaler would begin with.
    point = torch.load(tmp_path / "resume.pt", weights_only=True)
    point["scaler"] = {**saved, "scale": 1024.0}
    torch.save(point, tmp_path / "resume.pt")
    stage = make_stage(tmp_path, **options)
    stage.run()
    assert stage.scaler.get_scale() == 1024.0
