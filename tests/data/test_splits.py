import hashlib
import itertools
import json
import random
from collections import Counter

import pytest

from shared.data import assign_folds, assign_splits, load_manifest, take_number, take_share
from shared.data.splits import SPLITS, rotate_validation


def records_of(num_cases, images_a_case=(1, 2, 3), labels=(0, 1)):
    rng = random.Random(0)
    return [
        {"image": f"{label}/{case}/{index}", "case_id": f"{label}-{case}", "label": label}
        for label in labels
        for case in range(num_cases)
        for index in range(rng.choice(images_a_case))
    ]


def split_of(records):
    return {record["image"]: record["split"] for record in records}


def test_shares_within_every_label():
    records = records_of(num_cases=100, images_a_case=(1,), labels=(0, 1, 2))
    assign_splits(records)
    counts = Counter((record["label"], record["split"]) for record in records)
    for label in (0, 1, 2):
        assert [counts[label, split] for split in SPLITS] == [65, 15, 20]


def test_unequal_cases_stay_whole_and_near_the_shares():
    records = records_of(num_cases=60)
    assign_splits(records)
    assert len({(record["case_id"], record["split"]) for record in records}) == 120
    for label in (0, 1):
        images = [record["split"] for record in records if record["label"] == label]
        # The last case dealt to a split may exceed its share by no more than its 3 images.
        for split, share in zip(SPLITS, (0.65, 0.15, 0.2), strict=True):
            assert abs(images.count(split) - share * len(images)) <= 3


def test_order_of_the_rows_does_not_matter_and_the_seed_does():
    records = records_of(num_cases=20)
    assign_splits(records, seed=3)
    expected = split_of(records)
    shuffled = [{key: value for key, value in record.items() if key != "split"} for record in records]
    random.Random(1).shuffle(shuffled)
    assign_splits(shuffled, seed=3)
    assert split_of(shuffled) == expected
    assign_splits(shuffled, seed=4)
    assert split_of(shuffled) != expected


@pytest.mark.parametrize("num_cases", [3, 4, 5, 6, 7])
def test_small_data_sets_fill_every_split(num_cases):
    records = records_of(num_cases, images_a_case=(1,))
    assign_splits(records)
    for label in (0, 1):
        assert {record["split"] for record in records if record["label"] == label} == set(SPLITS)


def test_too_few_cases_train_first():
    records = records_of(num_cases=1, images_a_case=(1,))
    assign_splits(records)
    assert {record["split"] for record in records} == {"train"}


def test_a_share_of_nothing_gets_nothing():
    records = records_of(num_cases=10, images_a_case=(1,))
    assign_splits(records, fractions=(0.8, 0.2, 0.0))
    assert Counter(record["split"] for record in records) == {"train": 16, "val": 4}


def records_with_labels(*labels_of_cases):
    """A record a label of each case."""
    return [
        {"image": f"{case}/{label}", "case_id": f"{case:03}", "label": label}
        for case, labels in enumerate(labels_of_cases)
        for label in labels
    ]


@pytest.mark.parametrize("seed", range(5))
def test_cases_with_several_labels_are_dealt_out_apart(seed):
    # 40 cases with tumour alone, 20 with tumour and normal images: of each 65, 15 and 20 %.
    records = records_with_labels(*[(1,)] * 40, *[(0, 1)] * 20)
    assign_splits(records, seed=seed)
    assert len({(record["case_id"], record["split"]) for record in records}) == 60
    assert Counter(record["split"] for record in records if record["label"] == 0) == {"train": 13, "val": 3, "test": 4}
    assert Counter(record["split"] for record in records if record["label"] == 1) == {"train": 39, "val": 9, "test": 12}


def test_rare_sets_of_labels_count_by_their_largest():
    """Otherwise each, being the first of its kind, would train."""
    sets = [labels for size in (2, 3, 4) for labels in itertools.combinations(range(6), size) if 5 in labels]
    records = records_with_labels(*sets)
    assign_splits(records)
    cases = Counter({record["case_id"]: record["split"] for record in records}.values())
    assert sum(cases.values()) == 25
    assert min(cases[split] for split in SPLITS) >= 3


def test_a_case_without_some_labels_counts_by_the_others():
    complete = records_with_labels(*[(1,)] * 10, *[(0,)] * 10)
    partial = complete + [{"image": f"{case}/none", "case_id": f"{case:03}", "label": None} for case in range(20)]
    for records in (complete, partial):
        assign_splits(records)
    assert {record["case_id"]: record["split"] for record in partial} == {
        record["case_id"]: record["split"] for record in complete
    }


@pytest.mark.parametrize(("seed", "digest"), [(0, "4b04222e5cd16455"), (7, "57bbb6e0f2f938f6")])
def test_splits_of_cases_with_one_label_never_change(seed, digest):
    """Of published runs: another result here is another test set there."""
    records = records_of(num_cases=30, labels=(0, 1, 2))
    found = []
    assign_splits(records, seed=seed)
    found.append(split_of(records))
    assign_folds(records, 5, 1, seed=seed)
    found.append(split_of(records))
    assert hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16] == digest


def test_folds_spread_cases_with_several_labels():
    # 10 of 40 cases have normal images: two a fold.
    records = records_with_labels(*[(1,)] * 30, *[(0, 1)] * 10)
    for fold in range(5):
        assign_folds(records, 5, fold)
        tested = [record["label"] for record in records if record["split"] == "test"]
        assert Counter(tested) == {0: 2, 1: 8}


def test_images_without_case_or_label():
    records = [{"image": f"{index}.png", "case_id": None, "label": None} for index in range(20)]
    assign_splits(records)
    assert Counter(record["split"] for record in records) == {"train": 13, "val": 3, "test": 4}


def test_regions_of_an_image_stay_together_if_some_name_the_case():
    records = [
        {"image": f"slide{index // 4}", "case_id": f"c{index // 4}" if index % 4 else None, "label": 0} for index in range(80)
    ]
    assign_splits(records)
    assert len({(record["image"], record["split"]) for record in records}) == 20


def folds_of(records, num_folds, seed=0):
    """Images of the test split of every run, and all splits of every run."""
    runs = []
    for fold in range(num_folds):
        assign_folds(records, num_folds, fold, seed)
        runs.append(split_of(records))
    return [{image for image, split in run.items() if split == "test"} for run in runs], runs


@pytest.mark.parametrize("num_folds", [3, 5, 8])
def test_every_image_is_tested_once_and_validates_once(num_folds):
    records = records_of(num_cases=40)
    tests, runs = folds_of(records, num_folds)
    assert sorted(image for test in tests for image in test) == sorted(record["image"] for record in records)
    for fold, run in enumerate(runs):
        assert {image for image, split in run.items() if split == "val"} == tests[(fold + 1) % num_folds]
        assert set(run.values()) == set(SPLITS)


def test_folds_hold_whole_cases_and_every_label_evenly():
    records = records_of(num_cases=60)
    for fold in range(5):
        assign_folds(records, 5, fold)
        assert len({(record["case_id"], record["split"]) for record in records}) == 120
        for label in (0, 1):
            images = [record["split"] for record in records if record["label"] == label]
            # A case is dealt to the smallest fold: sizes differ by no more than its 3 images.
            assert abs(images.count("test") - len(images) / 5) <= 3


def test_folds_of_the_papers_data_set_b():
    records = records_of(num_cases=30, images_a_case=(1,))
    for fold in range(5):
        assign_folds(records, 5, fold)
        counts = Counter((record["label"], record["split"]) for record in records)
        assert [counts[label, split] for label in (0, 1) for split in SPLITS] == [18, 6, 6, 18, 6, 6]
        tested = [record["image"] for record in records if record["split"] == "test"]
        assign_folds(records, 5, fold, validates=False)
        assert Counter(record["split"] for record in records) == {"train": 48, "test": 12}
        assert [record["image"] for record in records if record["split"] == "test"] == tested


def test_each_case_outside_the_training_may_validate():
    records = [
        {"image": f"slides/{name}.svs", "case_id": None, "split": split} for name, split in zip("abcd", "ttvs", strict=True)
    ]
    for record in records:
        record["split"] = {"t": "train", "v": "val", "s": "test"}[record["split"]]
    patch = {"image": "slides/d.svs", "case_id": "d", "split": "test"}
    rotate_validation([*records, patch], "d")
    assert [record["split"] for record in [*records, patch]] == ["train", "train", "test", "val", "val"]
    rotate_validation(records, "c")
    assert [record["split"] for record in records] == ["train", "train", "val", "test"]
    with pytest.raises(ValueError, match="no case 'a' outside the training images can validate; there are c, d"):
        rotate_validation(records, "a")


def test_a_case_that_some_rows_of_its_image_name_validates_as_a_whole():
    records = [{"image": "a.png", "case_id": case, "split": "test"} for case in ("7", None)]
    records.append({"image": "b.png", "case_id": "8", "split": "test"})
    # A command line makes a number of it.
    rotate_validation(records, 7)
    assert [record["split"] for record in records] == ["val", "val", "test"]


def test_what_is_left_over_goes_to_the_smaller_folds():
    # 7 and 8 cases in 5 folds: 3 each.
    records = records_of(7, (1,), labels=(0,)) + records_of(8, (1,), labels=(1,))
    tests, _ = folds_of(records, 5)
    assert [len(test) for test in tests] == [3] * 5


def test_folds_follow_from_the_seed_and_not_from_the_order():
    records = records_of(num_cases=20)
    expected = folds_of(records, 4, seed=3)[0]
    random.Random(1).shuffle(records)
    assert folds_of(records, 4, seed=3)[0] == expected
    assert folds_of(records, 4, seed=4)[0] != expected


@pytest.mark.parametrize(("num_folds", "fold"), [(2, 0), (0, 0), (5, 5), (5, -1), (5, 1.5)])
def test_rejects_impossible_folds(num_folds, fold):
    with pytest.raises(ValueError, match=f"got num_folds={num_folds}, fold={fold}"):
        assign_folds(records_of(num_cases=10), num_folds, fold)


def test_rejects_more_folds_than_cases():
    with pytest.raises(ValueError, match="4 cases are too few for 5 folds"):
        assign_folds(records_of(num_cases=2), 5, 0)


def test_more_folds_than_cases_names_the_manifest(tmp_path, write_image):
    manifest = tmp_path / "images.csv"
    manifest.write_text("".join(["image,label\n", *(f"{write_image(f'i{label}')},{label}\n" for label in (0, 1))]))
    with pytest.raises(ValueError, match=r"images\.csv: 2 cases are too few for 3 folds"):
        load_manifest(manifest, num_folds=3, fold=0)


def images_of(records):
    return [record["image"] for record in records]


def test_a_share_of_every_label_in_order():
    records = records_of(100, (1,), labels=(0,)) + records_of(50, (1,), labels=(1,))
    random.Random(0).shuffle(records)
    part = take_share(records, 0.2)
    assert Counter(record["label"] for record in part) == {0: 20, 1: 10}
    assert images_of(part) == [image for image in images_of(records) if image in set(images_of(part))]
    assert all(any(record is other for other in records) for record in part)


def test_smaller_shares_lie_within_larger_ones():
    records = records_of(num_cases=37)
    parts = [set(images_of(take_share(records, share, seed=2))) for share in (0.01, 0.2, 0.4, 0.6, 0.8, 1.0)]
    assert all(smaller < larger for smaller, larger in itertools.pairwise(parts))
    assert take_share(records, 1.0) == records


def test_a_share_follows_from_the_seed_and_not_from_the_order():
    records = records_of(num_cases=30)
    expected = set(images_of(take_share(records, 0.3, seed=1)))
    shuffled = random.Random(1).sample(records, len(records))
    assert set(images_of(take_share(shuffled, 0.3, seed=1))) == expected
    assert set(images_of(take_share(records, 0.3, seed=2))) != expected


def test_a_share_has_every_label():
    records = records_of(2, (1,), labels=(0, 1, 2))
    assert [record["label"] for record in take_share(records, 0.01)] == [0, 1, 2]


def test_regions_of_one_image_are_taken_one_by_one():
    records = [{"image": "slide", "label": 0, "x": 8 * index, "y": 0, "width_px": 8, "height_px": 8} for index in range(10)]
    assert len(take_share(records, 0.5)) == 5


@pytest.mark.parametrize("share", [0.0, -0.2, 1.1, float("nan")])
def test_rejects_impossible_shares(share):
    with pytest.raises(ValueError, match=rf"in \(0, 1\]; got {share}"):
        take_share(records_of(num_cases=4), share)


@pytest.mark.parametrize("number", [2, 3, 7, 20, 29, 30, 99, None])
def test_a_number_of_records_keeps_the_shares_of_the_labels(number):
    records = [{"image": str(index), "label": int(index % 3 == 0)} for index in range(30)]
    taken = take_number(records, number, seed=1)
    expected = 30 if number is None else min(number, 30)
    assert len(taken) == expected
    tumour = sum(record["label"] for record in taken)
    assert abs(tumour - expected / 3) < 1
    assert tumour >= 1
    assert taken == [record for record in records if record in taken]
    shuffled = random.Random(0).sample(records, 30)
    assert {record["image"] for record in take_number(shuffled, number, seed=1)} == {record["image"] for record in taken}
    if expected < 30:
        assert taken != take_number(records, number, seed=2)


def test_fewer_records_than_labels():
    records = [{"image": str(index), "label": index % 3} for index in range(30)]
    with pytest.raises(ValueError, match="2 of 30 records cannot hold each of the 3 labels"):
        take_number(records, 2)
    # A rare label is there too, at the cost of the others.
    rare = [{"image": str(index), "label": int(index == 4)} for index in range(100)]
    assert sorted(record["label"] for record in take_number(rare, 5)) == [0, 0, 0, 0, 1]
