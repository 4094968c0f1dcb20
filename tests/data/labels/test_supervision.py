import random
from collections import Counter

import pytest

from shared.data import choose_supervision

MODES = ("S", "S+C", "S+C*")


def records_of(num_masked, num_labelled, num_classes=4):
    """So many images of each class with a mask, and so many without, each a tile of its own."""
    made = []
    for label in range(num_classes):
        for kind, count in (("mask", num_masked), ("label", num_labelled)):
            for index in range(count):
                mask = f"{label}_{index}_mask.png" if kind == "mask" else None
                made.append({"image": f"{kind}_{label}_{index}.png", "label": label, "mask": mask})
    random.Random(0).shuffle(made)
    return made


def images_of(records):
    return [record["image"] for record in records]


def labels_of(records):
    return Counter(record["label"] for record in records)


@pytest.mark.parametrize(("mode", "num_labelled"), [("S", 0), ("S+C", 15), ("S+C*", 20)])
def test_what_each_mode_takes(mode, num_labelled):
    """At a share of 1/4: 2 of 8 masks a class, and of 20 labelled images none, 3/4 or all."""
    masked, labelled = choose_supervision(records_of(8, 20), mode, 0.25)
    assert labels_of(masked) == dict.fromkeys(range(4), 2)
    assert all(record["mask"] for record in masked)
    assert labels_of(labelled) == (dict.fromkeys(range(4), num_labelled) if num_labelled else {})
    assert not any(record["mask"] for record in labelled)


@pytest.mark.parametrize(("mode", "num_labelled"), [("S", 0), ("S+C", 26), ("S+C*", 28)])
def test_labels_of_masked_images_too(mode, num_labelled):
    """28 images a class, of which 8 have masks and 2 of these are used as masks."""
    masked, labelled = choose_supervision(records_of(8, 20), mode, 0.25, labelled="all")
    assert labels_of(masked) == dict.fromkeys(range(4), 2)
    assert len(labelled) == 4 * num_labelled
    both = set(images_of(masked)) & set(images_of(labelled))
    assert both == (set(images_of(masked)) if mode == "S+C*" else set())


@pytest.mark.parametrize("labelled", ["unmasked", "all"])
def test_every_mode_has_the_same_masks(labelled):
    records = records_of(9, 5)
    for share in (0.0, 0.1, 0.5, 1.0):
        chosen = [
            images_of(choose_supervision(records, mode, share, labelled, seed=3)[0]) for mode in MODES if share or mode != "S"
        ]
        assert all(images == chosen[0] for images in chosen)


def test_shares_lie_within_each_other_and_follow_from_the_seed():
    records = records_of(10, 10)
    chosen = {share: set(images_of(choose_supervision(records, "S", share)[0])) for share in (0.01, 0.2, 0.5, 1.0)}
    assert [len(images) for images in chosen.values()] == [4, 8, 20, 40]
    assert chosen[0.01] < chosen[0.2] < chosen[0.5] < chosen[1.0]
    shuffled = random.Random(4).sample(records, len(records))
    assert set(images_of(choose_supervision(shuffled, "S", 0.2)[0])) == chosen[0.2]
    assert set(images_of(choose_supervision(records, "S", 0.2, seed=1)[0])) != chosen[0.2]


def test_records_keep_their_order_and_are_the_same_objects():
    records = records_of(6, 6)
    for part in choose_supervision(records, "S+C", 0.5):
        places = [next(place for place, record in enumerate(records) if record is one) for one in part]
        assert places == sorted(places)


@pytest.mark.parametrize(
    ("mode", "share", "num_masked", "num_labelled"),
    [("S+C", 0.0, 0, 20), ("S+C*", 0.0, 0, 20), ("S", 1.0, 12, 0), ("S+C", 1.0, 12, 0), ("S+C*", 1.0, 12, 20)],
)
def test_ends_of_the_scale(mode, share, num_masked, num_labelled):
    masked, labelled = choose_supervision(records_of(3, 5), mode, share)
    assert (len(masked), len(labelled)) == (num_masked, num_labelled)


def without_normal_masks(records):
    return [{**record, "mask": None if record["label"] == 0 else record["mask"]} for record in records]


@pytest.mark.parametrize("labelled", ["unmasked", "all"])
@pytest.mark.parametrize(("mode", "share"), [("S", 1.0), ("S", 0.3), ("S+C", 0.3), ("S+C*", 1.0), ("S+C*", 0.3)])
def test_label_0_needs_no_mask_file(mode, share, labelled):
    """The masks that are drawn are the same; without a set of labelled images of their own, labels come from all records."""
    with_files = records_of(10, 0, num_classes=2)
    records = without_normal_masks(with_files)
    if labelled == "all" or mode == "S":
        chosen = choose_supervision(records, mode, share, labelled, seed=2)
        expected = choose_supervision(with_files, mode, share, labelled, seed=2)
        assert [images_of(part) for part in chosen] == [images_of(part) for part in expected]
        assert labels_of(chosen[0]) == {0: 10 * share, 1: 10 * share}
    else:
        # Normal images alone would be learned from.
        with pytest.raises(ValueError, match=r"labelled training images all have label 0; expected .* labelled: all"):
            choose_supervision(records, mode, share, labelled, seed=2)


@pytest.mark.parametrize(("num_labelled", "stands_for"), [(0, "all"), (20, "unmasked")])
def test_unmasked_or_all(num_labelled, stands_for):
    """Images without a mask file are the labelled ones only where they are a set of their own."""
    records = records_of(8, num_labelled)
    if not num_labelled:
        records = without_normal_masks(records)
    chosen = choose_supervision(records, "S+C*", 0.5, "unmasked_or_all")
    assert chosen == choose_supervision(records, "S+C*", 0.5, stands_for)


def test_label_0_without_a_file_is_masked_and_labelled():
    """A few tumours are outlined, the others and all normal images have labels."""
    records = without_normal_masks(records_of(4, 6, num_classes=2))
    masked, labelled = choose_supervision(records, "S+C*", 1.0)
    assert labels_of(masked) == {0: 10, 1: 4}
    assert labels_of(labelled) == {0: 10, 1: 6}
    # Labelled images of another size cannot be segmented.
    masked, labelled = choose_supervision(records, "S+C*", 1.0, same_size=False)
    assert labels_of(masked) == {1: 4}
    assert labels_of(labelled) == {0: 10, 1: 6}


@pytest.mark.parametrize(
    ("records", "mode", "problem"),
    [
        (
            [*records_of(4, 0, 2), *({"image": f"{i}", "label": 1, "mask": None} for i in range(3))],
            "S+C*",
            "3 labelled training images all have label 1",
        ),
        (records_of(4, 0, 1), "S", "4 masked training images all have label 0"),
    ],
)
def test_images_of_one_class_teach_nothing(records, mode, problem):
    with pytest.raises(ValueError, match=problem):
        choose_supervision(records, mode, 1.0)


def test_every_class_is_among_the_masks_and_among_the_labels():
    masked, labelled = choose_supervision(records_of(1, 1), "S+C", 0.999)
    assert labels_of(masked) == labels_of(labelled) == dict.fromkeys(range(4), 1)


def test_without_one_kind_of_image():
    only_masks, only_labels = records_of(4, 0), records_of(0, 4)
    assert choose_supervision(only_masks, "S", 1.0) == (only_masks, [])
    assert choose_supervision(only_masks, "S+C", 1.0) == (only_masks, [])
    assert choose_supervision(only_labels, "S+C*", 0.0) == ([], only_labels)
    assert choose_supervision(only_masks, "S+C*", 1.0, labelled="all") == (only_masks, only_masks)


@pytest.mark.parametrize(
    ("records", "mode", "share", "labelled", "missing"),
    [
        (records_of(2, 2), "S", 0.0, "unmasked", "no masked"),
        (records_of(0, 2), "S", 1.0, "unmasked", "no masked"),
        (records_of(0, 2), "S+C*", 1.0, "unmasked", "no masked"),
        (records_of(2, 0), "S+C*", 0.0, "unmasked", "no labelled"),
        # Not an S under another name.
        (records_of(4, 0), "S+C*", 1.0, "unmasked", "no labelled"),
        (records_of(4, 0), "S+C", 0.5, "unmasked", "no labelled"),
        ([], "S+C*", 0.5, "all", "no masked and no labelled"),
    ],
)
def test_what_mode_and_share_ask_for_must_be_there(records, mode, share, labelled, missing):
    num_masks = sum(record["mask"] is not None for record in records)
    with pytest.raises(ValueError, match="images to train with") as caught:
        choose_supervision(records, mode, share, labelled)
    said = str(caught.value)
    assert said.startswith(f"mode {mode} with masked_share {share:g} has {missing} images to train with")
    assert f"of {len(records)} training records {num_masks} have masks" in said
    assert "labelled: all" in said


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"mode": "S*"}, r"mode must be one of S, S\+C, S\+C\*; got 'S\*'"),
        ({"labelled": "masked"}, "labelled must be one of unmasked, all, unmasked_or_all; got 'masked'"),
        ({"masked_share": -0.1}, r"masked_share must be in \[0, 1\]; got -0.1"),
        ({"masked_share": 2}, r"masked_share must be in \[0, 1\]; got 2"),
        ({"masked_share": float("nan")}, r"masked_share must be in \[0, 1\]; got nan"),
    ],
)
def test_rejects_what_does_not_exist(options, problem):
    with pytest.raises(ValueError, match=problem):
        choose_supervision(records_of(2, 2), **options)
