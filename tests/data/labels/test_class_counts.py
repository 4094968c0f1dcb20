import json

import numpy as np
import pytest
from PIL import Image

from shared.data import RegionDataset, class_counts, trained_with_labels, training_augmentation

MASK = np.repeat(np.uint8([0, 1, 2, 3]), [20, 10, 4, 2]).reshape(6, 6)


@pytest.fixture
def records(write_image, tmp_path):
    """Four images of 6 px: the first two have a mask, the third is normal and has none, the fourth has a label alone."""
    made = []
    for index, (mask, label) in enumerate([(MASK, 1), (np.full((6, 6), 3, np.uint8), 3), (None, 0), (None, 1)]):
        path = None
        if mask is not None:
            path = str(tmp_path / f"mask{index}.png")
            Image.fromarray(mask).save(path)
        made.append({"image": str(write_image(f"i{index}", (6, 6))), "label": label, "mask": path, "row": index + 2})
    return made


def masked_of(records, **options):
    return RegionDataset(records, pixel_labels="mask", num_classes=4, **options)


def labelled_of(records):
    return RegionDataset(records, num_classes=4)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_counts_by_hand(records, tmp_path, num_workers):
    file = tmp_path / "run/class_counts.json"
    counts = class_counts(masked_of(records[:3]), labelled_of(records), file, num_workers)
    expected = {"num_masked": 3, "num_labelled": 4, "pixels": [20 + 36, 10, 4, 2 + 36], "images": [1, 2, 0, 1]}
    assert counts == json.loads(file.read_text()) == expected
    assert [path.name for path in file.parent.iterdir()] == ["class_counts.json"]


def test_only_what_there_is(records, tmp_path):
    masked = class_counts(masked_of(records[:1]), None, tmp_path / "masked.json")
    assert masked == {"num_masked": 1, "num_labelled": 0, "pixels": [20, 10, 4, 2], "images": None}
    labelled = class_counts(None, labelled_of(records), tmp_path / "labelled.json")
    assert labelled == {"num_masked": 0, "num_labelled": 4, "pixels": None, "images": [1, 2, 0, 1]}


def test_masks_of_one_class_alone_are_an_error(records, tmp_path):
    file = tmp_path / "run/class_counts.json"
    with pytest.raises(ValueError, match="all 36 pixels in the masks of 1 training images are of class 3; expected at least two"):
        class_counts(masked_of(records[1:2]), labelled_of(records), file)
    assert not file.parent.exists()


def test_what_was_counted_is_found_again(records, tmp_path):
    file = tmp_path / "class_counts.json"
    first = class_counts(masked_of(records[:2]), None, file)
    Image.fromarray(MASK * 0).save(records[0]["mask"])
    assert class_counts(masked_of(records[:2]), None, file) == first


def test_two_classes_are_whatever_is_not_zero(records, tmp_path):
    dataset = RegionDataset(records[:2], pixel_labels="mask", num_classes=2)
    assert class_counts(dataset, None, tmp_path / "a.json")["pixels"] == [20, 16 + 36]


def test_masks_are_counted_at_the_size_at_which_they_are_read(records, tmp_path):
    """Twice as coarse, a pixel is one of four: by nearest neighbour the one behind the middle."""
    record = records[0] | {"mpp": 4.0}
    counts = class_counts(masked_of([record], mpp=8.0, size_px=3), None, tmp_path / "a.json")
    assert counts["pixels"] == np.bincount(MASK[1::2, 1::2].ravel(), minlength=4).tolist()


def test_random_transforms_change_nothing(records, tmp_path):
    crop = training_augmentation(["image", "mask"], crop_size_px=2, free_rotation=False, max_scale=1.0)
    counts = class_counts(masked_of(records[:2], transform=crop), None, tmp_path / "a.json")
    assert sum(counts["pixels"]) == 2 * 36


def test_a_mask_of_another_class_is_named(records, tmp_path):
    Image.fromarray(MASK + 6).save(records[1]["mask"])
    file = tmp_path / "run/class_counts.json"
    with pytest.raises(ValueError, match=r"row 3, .*i1\.png: the mask .*mask1\.png has a pixel of value 6"):
        class_counts(masked_of(records[:2]), None, file)
    assert not file.parent.exists()


def test_constant_masks_and_labels_of_masked_images_do_not_count(records, tmp_path):
    """Though the released head's loss takes them: in the released code too the weights are of masks and of labelled images."""
    counts = class_counts(masked_of(records[:2]), labelled_of(records[2:]), tmp_path / "counts.json")
    assert counts["pixels"] == [20, 10, 4, 2 + 36]
    assert counts["images"] == [1, 1, 0, 0]
    assert (counts["num_masked"], counts["num_labelled"]) == (2, 2)


def test_whether_there_were_labels(records, tmp_path):
    file = tmp_path / "counts.json"
    assert trained_with_labels(file, "S+C*")
    assert not trained_with_labels(file, "S")
    class_counts(masked_of(records[:2]), None, file)
    assert not trained_with_labels(file, "S+C*")
