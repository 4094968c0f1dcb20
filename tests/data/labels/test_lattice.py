import numpy as np
import pytest
import torch

from shared.data import (
    check_cascade,
    check_lattice,
    gather_instances,
    instance_labels_of_masks,
    instance_region,
    paint_instances,
    split_into_instances,
)

# (height, width, N): square, and both kinds of oblong.
SHAPES = [(12, 12, 4), (6, 9, 3), (8, 4, 2), (5, 5, 1), (3, 3, 3)]


def random_images(height, width, num_channels=3):
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (2, num_channels, height, width), generator=generator, dtype=torch.uint8)


def loop_over_instances(images, n):
    """(image, index, pixels) of every instance, cut one by one."""
    height, width = images.shape[2] // n, images.shape[3] // n
    for image in range(len(images)):
        for row in range(n):
            for column in range(n):
                rows, columns = slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width)
                yield image, row * n + column, images[image, :, rows, columns]


@pytest.mark.parametrize(("height", "width", "n"), SHAPES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_split_equals_a_loop(height, width, n, memory_format):
    images = random_images(height, width).contiguous(memory_format=memory_format)
    instances = split_into_instances(images, n)
    assert instances.shape == (2, n * n, 3, height // n, width // n)
    for image, index, pixels in loop_over_instances(images, n):
        assert torch.equal(instances[image, index], pixels)


@pytest.mark.parametrize(("height", "width", "n"), SHAPES)
def test_gather_equals_a_loop(height, width, n):
    images = random_images(height, width).contiguous(memory_format=torch.channels_last)
    picks = torch.stack([torch.arange(n * n), torch.arange(n * n).flip(0)])
    gathered = gather_instances(images, picks, n)
    expected = {(image, index): pixels for image, index, pixels in loop_over_instances(images, n)}
    for image in (0, 1):
        for position, index in enumerate(picks[image].tolist()):
            assert torch.equal(gathered[image, position], expected[image, index])


@pytest.mark.parametrize(("height", "width", "n"), SHAPES)
def test_labels_equal_a_loop(height, width, n):
    masks = (random_images(height, width, num_channels=1) > 210).to(torch.uint8) * 255
    labels = instance_labels_of_masks(masks, n)
    for image, index, pixels in loop_over_instances(masks, n):
        assert labels[image, index] == (1 if pixels.any() else 0)


def test_a_single_pixel_makes_an_instance_tumour():
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    mask[0, 0, 3, 4] = 1
    assert instance_labels_of_masks(mask, 2).tolist() == [[0, 1, 0, 0]]


@pytest.mark.parametrize(("height", "width", "n"), SHAPES)
def test_painted_labels_are_read_back(height, width, n):
    labels = torch.randint(0, 2, (n * n,), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    painted = paint_instances(labels, height, width)
    assert painted.shape == (1, height, width)
    assert painted.dtype == torch.uint8
    for _, index, pixels in loop_over_instances(painted[None], n):
        assert (pixels == labels[index]).all()
    assert torch.equal(instance_labels_of_masks(painted[None], n)[0], labels.long())


@pytest.mark.parametrize(
    ("height", "width", "n", "message"), [(10, 12, 4, "12 x 10 px does not divide into 4 x 4"), (2, 9, 3, "smaller than")]
)
def test_images_that_do_not_divide(height, width, n, message):
    images = random_images(height, width)
    for refused in (
        lambda: check_lattice(height, width, n),
        lambda: split_into_instances(images, n),
        lambda: gather_instances(images, torch.zeros(2, 1, dtype=torch.long), n),
        lambda: instance_labels_of_masks(images[:, :1], n),
        lambda: paint_instances(torch.zeros(n * n), height, width),
    ):
        with pytest.raises(ValueError, match=message):
            refused()


@pytest.mark.parametrize("num_labels", [0, 3, 15])
def test_labels_that_are_no_square(num_labels):
    with pytest.raises(ValueError, match=f"N x N, got {num_labels}"):
        paint_instances(torch.zeros(num_labels), 12, 12)


@pytest.mark.parametrize("n", [1, 2, 4, 7])
@pytest.mark.parametrize(
    ("record", "box"),
    [
        # box: left, top, width, height of the image in its file.
        ({}, (0, 0, 17, 23)),
        ({"x": None, "y": None, "width_px": None, "height_px": None}, (0, 0, 17, 23)),
        ({"x": 5, "y": 3, "width_px": 16, "height_px": 8}, (5, 3, 16, 8)),
        ({"x": 1001, "y": 0, "width_px": 641, "height_px": 639}, (1001, 0, 641, 639)),
    ],
)
def test_regions_tile_the_image(record, box, n):
    left, top, width, height = box
    covered = np.zeros((height, width), int)
    order = []
    for index in range(n * n):
        x, y, width_px, height_px = instance_region(record, (17, 23), index, n)
        x, y = x - left, y - top
        assert 0 <= x <= x + width_px <= width
        assert 0 <= y <= y + height_px <= height
        assert abs(width_px - width / n) < 1
        covered[y : y + height_px, x : x + width_px] += 1
        order.append((y, x))
    assert (covered == 1).all()
    assert order == sorted(order)


def test_a_cascade_of_lattices_that_do_not_fit():
    check_cascade(4, 2, 8)
    with pytest.raises(ValueError, match=r"got 4 \* 2 and 4: put n8\.json before cascade\.json"):
        check_cascade(4, 2, 4)
