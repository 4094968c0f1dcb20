import random
from collections import Counter

import pytest

from shared.data import assign_splits
from shared.data.splits import SPLITS


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


def test_a_case_counts_by_its_largest_label():
    records = [{"image": f"{case}/{index}", "case_id": str(case), "label": index} for case in range(10) for index in (0, 1)]
    assign_splits(records)
    assert len({(record["case_id"], record["split"]) for record in records}) == 10
    assert {record["split"] for record in records} == set(SPLITS)


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
