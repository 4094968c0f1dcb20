import math
import multiprocessing
import os
from collections import Counter

import numpy as np
import pytest
import torch

from shared.data import EvenBatchSampler, PairedLoader, RegionDataset, RegionLoader, training_augmentation
from shared.data.seeded import draw_key

WORLDS = [1, 2, 3, 8]


def samplers(labels, batch_size, world, **options):
    return [EvenBatchSampler(labels, batch_size, rank=rank, num_processes=world, **options) for rank in range(world)]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("batch_size", [1, 4, 8, 24])
@pytest.mark.parametrize("num_images", [1, 5, 8, 23, 100])
def test_every_image_once_in_equal_steps(num_images, batch_size, world):
    if num_images < world:
        with pytest.raises(ValueError, match="processes"):
            samplers([0] * num_images, batch_size, world)
        return
    ranks = [list(sampler) for sampler in samplers([0] * num_images, batch_size, world, seed=7)]
    steps = len(ranks[0])
    assert {len(batches) for batches in ranks} == {steps}
    assert steps == len(EvenBatchSampler([0] * num_images, batch_size, rank=0, num_processes=world))
    assert Counter(index for batches in ranks for batch in batches for index in batch) == Counter(range(num_images))
    assert all(batches[step] for batches in ranks for step in range(steps))
    sizes = [sum(len(batches[step]) for batches in ranks) for step in range(steps)]
    assert max(sizes) - min(sizes) <= 1
    batch_size = max(batch_size, world)
    if num_images // world >= math.ceil(num_images / batch_size):
        assert max(sizes) <= batch_size
        alone = list(EvenBatchSampler([0] * num_images, batch_size, seed=7, rank=0, num_processes=1))
        together = [[index for batches in ranks for index in batches[step]] for step in range(steps)]
        assert together == alone


def test_each_epoch_has_its_order_and_the_seed_another():
    def order(epoch, seed=0):
        sampler = EvenBatchSampler([0] * 50, 8, seed=seed)
        sampler.set_epoch(epoch)
        return [index for batch in sampler for index in batch]

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0) != order(0, seed=1)
    assert order(3) != sorted(order(3))
    unshuffled = EvenBatchSampler([0] * 10, 4, shuffle=False)
    assert list(unshuffled) == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]


@pytest.mark.parametrize("world", [1, 3])
def test_balance_gives_every_class_its_share(world):
    labels = [0] * 17 + [1] * 5 + [2] * 9
    ranks = samplers(labels, 6, world, balance=True)
    assert ranks[0].num_samples == 51
    assert len(ranks[0]) == math.ceil(51 / 6)
    counts = Counter(index for sampler in ranks for batch in sampler for index in batch)
    assert [sum(counts[i] for i in np.flatnonzero(np.equal(labels, c))) for c in (0, 1, 2)] == [17, 17, 17]
    # As evenly as can be: 17 = 3 * 5 + 2 and 17 = 1 * 9 + 8.
    assert sorted(counts[i] for i in range(17, 22)) == [3, 3, 3, 4, 4]
    assert sorted(counts[i] for i in range(22, 31)) == [1] + [2] * 8
    assert {counts[i] for i in range(17)} == {1}


def test_balance_over_samples_others_in_another_epoch():
    sampler = EvenBatchSampler([0] * 20 + [1] * 7, 8, balance=True)

    def favoured(epoch):
        sampler.set_epoch(epoch)
        counts = Counter(index for batch in sampler for index in batch)
        return tuple(index for index in range(20, 27) if counts[index] == 3)

    assert len({favoured(epoch) for epoch in range(6)}) > 1


@pytest.mark.parametrize("world", WORLDS)
def test_the_draws_of_an_image_are_counted_over_all_processes(world):
    labels = [0] * 17 + [1] * 5 + [2] * 9
    ranks = [list(sampler.draws()) for sampler in samplers(labels, 8, world, balance=True, seed=3)]
    drawn = [draw for step in range(len(ranks[0])) for batches in ranks for draw in batches[step]]
    # In the order of the epoch, and the same however many processes share it.
    for index in range(len(labels)):
        occurrences = [occurrence for number, occurrence in drawn if number == index]
        assert occurrences == list(range(len(occurrences)))
    alone = EvenBatchSampler(labels, 8, balance=True, seed=3, rank=0, num_processes=1)
    assert drawn == [draw for batch in alone.draws() for draw in batch]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_over_sampled_image_comes_anew_each_time(write_image, num_workers):
    """One tumour image among nine is shown nine times an epoch: nine versions of it, the same whoever reads them."""
    records = [{"image": str(write_image(f"o{i}", (32, 32))), "label": int(i == 0), "row": i + 2} for i in range(10)]
    dataset = RegionDataset(records, transform=training_augmentation(stain_jitter=0.2), seed=4)
    loader = RegionLoader(dataset, 3, balance=True, num_workers=num_workers, seed=4)
    loader.set_epoch(2)
    seen = [(int(i), image) for batch in loader for i, image in zip(batch["index"], batch["image"], strict=True)]
    versions = [image for index, image in seen if index == 0]
    assert len(versions) == 9
    assert len({image.numpy().tobytes() for image in versions}) == 9
    dataset.set_epoch(2)
    assert all(torch.equal(image, dataset.draw(0, occurrence)["image"]) for occurrence, image in enumerate(versions))
    # Whatever comes once is what it is without over-sampling.
    assert torch.equal(versions[0], dataset[0]["image"])
    assert all(torch.equal(image, dataset[index]["image"]) for index, image in seen if index)
    loader.close()


def test_the_key_of_a_first_draw_knows_of_no_occurrence():
    expected = np.random.SeedSequence((7, 2, 5)).generate_state(4)
    assert np.array_equal(draw_key(7, 2, 5).generate_state(4), expected)
    keys = [draw_key(7, 2, 5, occurrence).generate_state(4) for occurrence in range(20)]
    keys += [draw_key(7, 2, index).generate_state(4) for index in range(6, 26)]
    assert len({key.tobytes() for key in keys}) == 40


def test_each_process_has_an_image_of_a_step_that_is_too_small(caplog):
    """The paper's one slide a step, on four processes: four a step, which is said once."""
    ranks = [EvenBatchSampler([0] * 9, 1, seed=3, rank=rank, num_processes=4) for rank in range(4)]
    steps = [[index for batch in step for index in batch] for step in zip(*ranks, strict=True)]
    # A single process, which is given four a step, may have a smaller last one.
    assert [len(step) for step in steps] == [5, 4]
    assert sorted(index for step in steps for index in step) == list(range(9))
    (said,) = caplog.messages
    assert "counted over all processes: 1 is fewer than 4 processes, so each step takes 4" in said


@pytest.mark.parametrize(
    ("num_images", "num_batches"), [(1, [1, 0, 0, 0, 0]), (4, [1, 1, 1, 1, 0]), (6, [2, 2, 2, 0, 0]), (10, [2] * 5)]
)
def test_processes_without_an_image(num_images, num_batches):
    """As validation has them: each image still comes once."""
    ranks = [EvenBatchSampler([0] * num_images, 4, shuffle=False, rank=rank, num_processes=5, may_idle=True) for rank in range(5)]
    assert [len(sampler) for sampler in ranks] == [len(list(sampler)) for sampler in ranks] == num_batches
    assert sorted(index for sampler in ranks for batch in sampler for index in batch) == list(range(num_images))
    # Slides of which each has features in another number cannot share a batch.
    assert all(len(batch) == 1 for sampler in ranks for batch in sampler)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("num_images", [4, 12, 20, 23])
def test_whole_batches(num_images, world):
    """12 images make two steps of 10 and not of 6: every image comes, none twice more often than another."""
    ranks = samplers([0] * num_images, 10, world, fill=True, seed=3)
    steps = -(-num_images // 10)
    assert [len(sampler) for sampler in ranks] == [steps] * world
    draws = [list(sampler.draws()) for sampler in ranks]
    assert [sum(len(of_rank[step]) for of_rank in draws) for step in range(steps)] == [10] * steps
    seen = Counter(index for of_rank in draws for batch in of_rank for index, _ in batch)
    assert sum(seen.values()) == 10 * steps == ranks[0].num_samples
    assert len(seen) == num_images
    assert max(seen.values()) - min(seen.values()) <= 1
    # A new draw each time.
    assert len({draw for of_rank in draws for batch in of_rank for draw in batch}) == 10 * steps


def test_errors():
    with pytest.raises(ValueError, match="3 images are too few for 4 processes"):
        EvenBatchSampler([0] * 3, 4, rank=0, num_processes=4)
    for may_idle in (False, True):
        with pytest.raises(ValueError, match="0 images are too few"):
            EvenBatchSampler([], 4, may_idle=may_idle)


@pytest.fixture
def dataset(write_image):
    records = [{"image": str(write_image(f"t{i}", (8, 8))), "label": int(i % 3 == 0), "row": i + 2} for i in range(7)]
    return RegionDataset(records, size_px=8)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_of_a_loader(dataset, num_workers):
    loader = RegionLoader(dataset, 3, num_workers=num_workers, seed=5)
    loader.set_epoch(2)
    expected = EvenBatchSampler([1, 0, 0, 1, 0, 0, 1], 3, seed=5)
    expected.set_epoch(2)
    batches = list(loader)
    assert dataset.epoch == (2 if num_workers == 0 else 0)
    assert len(batches) == len(loader) == 3
    assert [batch["index"].tolist() for batch in batches] == list(expected)
    assert batches[0]["image"].shape == (3, 3, 8, 8)
    for batch in batches:
        assert batch["label"].tolist() == [int(index % 3 == 0) for index in batch["index"].tolist()]


def test_a_loader_that_balances(dataset):
    labels = [label for batch in RegionLoader(dataset, 4, balance=True) for label in batch["label"].tolist()]
    assert Counter(labels) == {0: 4, 1: 4}


class Epochs(RegionLoader):
    """Keeps the epochs that were asked for."""

    def set_epoch(self, epoch):
        self.__dict__.setdefault("asked", []).append(epoch)
        super().set_epoch(epoch)


def paired_loader(instances, images):
    return PairedLoader({"instances": instances, "images": images}, leading="instances")


def test_pairs(dataset):
    # 7 instances one by one next to images in batches of 3: 7 steps, three passes over the images an epoch.
    images = Epochs(dataset, 3)
    paired = paired_loader(RegionLoader(dataset, 1), images)
    assert len(paired) == 7
    paired.set_epoch(2)
    batches = list(paired)
    assert sorted(batch["instances"]["index"].item() for batch in batches) == list(range(7))
    seen = [batch["images"]["index"].tolist() for batch in batches]
    assert list(dict.fromkeys(images.asked)) == [6, 7, 8]
    for start in (0, 3):
        assert sorted(index for batch in seen[start : start + 3] for index in batch) == list(range(7))
    assert seen[:3] != seen[3:6]
    paired.set_epoch(2)
    again = [batch["images"]["index"].tolist() for batch in paired]
    assert again == seen


def test_pairs_with_few_instances(dataset):
    images = Epochs(dataset, 1)
    paired = paired_loader(RegionLoader(dataset, 7), images)
    for epoch in (0, 1):
        paired.set_epoch(epoch)
        assert len(list(paired)) == 1
    assert list(dict.fromkeys(images.asked)) == [0, 1]


def test_pairs_ask_for_the_epoch_of_both(dataset):
    instances, images = Epochs(dataset, 7), Epochs(dataset, 7)
    paired = paired_loader(instances, images)
    paired.set_epoch(4)
    (batch,) = paired
    assert set(instances.asked) == set(images.asked) == {4}
    assert torch.equal(batch["instances"]["index"].sort()[0], torch.arange(7))


@pytest.mark.parametrize("order", [("short", "long"), ("long", "short")])
def test_without_a_leading_loader_the_longest_leads(dataset, order):
    loaders = {"short": RegionLoader(dataset, 4), "long": RegionLoader(dataset, 2)}
    paired = PairedLoader({name: loaders[name] for name in order})
    assert len(paired) == 4
    batches = list(paired)
    assert [list(batch) for batch in batches] == [list(order)] * 4
    assert sorted(index for batch in batches for index in batch["long"]["index"].tolist()) == list(range(7))
    repeated = Counter(index for batch in batches for index in batch["short"]["index"].tolist())
    assert set(repeated) == set(range(7))
    assert set(repeated.values()) == {2}


def test_one_loader_alone(dataset):
    paired = PairedLoader({"masked": RegionLoader(dataset, 4)})
    assert [list(batch) for batch in paired] == [["masked"], ["masked"]]


@pytest.mark.parametrize(("names", "leading"), [((), None), (("images",), "instances")])
def test_pairs_of_nothing(dataset, names, leading):
    with pytest.raises(ValueError, match="need loaders"):
        PairedLoader({name: RegionLoader(dataset, 4) for name in names}, leading)


@pytest.mark.parametrize("num_steps", [1, 3, 4, 9])
def test_an_epoch_of_a_number_of_steps(dataset, num_steps):
    """Passes of 2 and of 4 steps, cut off or begun again."""
    loaders = {"short": Epochs(dataset, 4), "long": Epochs(dataset, 2)}
    paired = PairedLoader(loaders, num_steps=num_steps)
    assert len(paired) == num_steps
    paired.set_epoch(2)
    batches = list(paired)
    assert len(batches) == num_steps
    for name, steps in (("short", 2), ("long", 4)):
        passes = math.ceil(num_steps / steps)
        # Numbered across epochs: no pass comes twice.
        assert list(dict.fromkeys(loaders[name].asked)) == [2 * passes + number for number in range(passes)]
        seen = [batch[name]["index"].tolist() for batch in batches]
        for number in range(num_steps // steps):
            whole = seen[steps * number : steps * (number + 1)]
            assert sorted(index for batch in whole for index in batch) == list(range(7))


def test_a_number_of_steps_is_filled_by_the_next_pass(dataset):
    paired = PairedLoader({"masked": RegionLoader(dataset, 4)}, num_steps=3)

    def epoch(number):
        paired.set_epoch(number)
        return [batch["masked"]["index"].tolist() for batch in paired]

    assert epoch(0) == epoch(0)
    assert epoch(0) != epoch(1)
    # Cut short, an epoch still sees other images than the one before.
    short = PairedLoader({"masked": RegionLoader(dataset, 2)}, num_steps=1)
    seen = set()
    for number in range(12):
        short.set_epoch(number)
        (batch,) = short
        seen |= set(batch["masked"]["index"].tolist())
    assert seen == set(range(7))


def test_a_number_of_steps_wins_over_the_leading_loader(dataset):
    loaders = {"instances": RegionLoader(dataset, 1), "images": RegionLoader(dataset, 3)}
    assert len(list(PairedLoader(loaders, leading="images", num_steps=5))) == 5


@pytest.mark.parametrize("num_steps", [0, -1])
def test_an_epoch_has_a_step(dataset, num_steps):
    with pytest.raises(ValueError, match=f"num_steps must be at least 1, got {num_steps}"):
        PairedLoader({"masked": RegionLoader(dataset, 4)}, num_steps=num_steps)


def test_loaders_that_are_none_are_left_out(dataset):
    paired = PairedLoader({"masked": None, "labelled": RegionLoader(dataset, 4)})
    paired.set_epoch(1)
    paired.start()
    assert [list(batch) for batch in paired] == [["labelled"], ["labelled"]]
    paired.close()
    with pytest.raises(ValueError, match=r"need loaders.*got none"):
        PairedLoader({"masked": None, "labelled": None})
    with pytest.raises(ValueError, match="got labelled, leading='masked'"):
        PairedLoader({"masked": None, "labelled": RegionLoader(dataset, 4)}, leading="masked")


class ProcessOfItems(RegionDataset):
    """Says which process read an item, and in which epoch."""

    def draw(self, index, occurrence=0):
        return {**super().draw(index, occurrence), "process": os.getpid(), "epoch": self.epoch}


def processes_of(batches):
    return {process for batch in batches for process in batch["process"].tolist()}


def test_workers_live_from_the_start_to_the_close(write_image):
    records = [{"image": str(write_image(f"p{i}", (8, 8))), "label": i % 2, "row": i + 2} for i in range(12)]
    loader = RegionLoader(ProcessOfItems(records, size_px=8), 2, num_workers=2)
    loader.set_epoch(3)
    # What tests before this one have left may be under way.
    others = {process.pid for process in multiprocessing.active_children()}
    loader.start()
    workers = {process.pid for process in multiprocessing.active_children()} - others
    assert len(workers) == 2
    for epoch in (3, 4, 4, 9):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert processes_of(batches) == workers
        assert {number for batch in batches for number in batch["epoch"].tolist()} == {epoch}
        expected = EvenBatchSampler([i % 2 for i in range(12)], 2)
        expected.set_epoch(epoch)
        assert [batch["index"].tolist() for batch in batches] == list(expected)
    abandoned = iter(loader)
    next(abandoned)
    loader.set_epoch(1)
    assert {number for batch in loader for number in batch["epoch"].tolist()} == {1}
    loader.close()
    assert not workers & {process.pid for process in multiprocessing.active_children()}
    assert not workers & processes_of(loader)


def test_what_was_read_ahead_for_another_epoch_is_dropped(write_image):
    records = [{"image": str(write_image(f"q{i}", (8, 8))), "label": i % 2, "row": i + 2} for i in range(6)]
    loader = RegionLoader(ProcessOfItems(records, size_px=8), 2, num_workers=1)
    loader.start()
    loader.set_epoch(5)
    assert {number for batch in loader for number in batch["epoch"].tolist()} == {5}
    loader.close()
