"""Images are embedded once, by what they hold; items are their features, with labels that fit."""

import fcntl
import os
import pickle
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from shared.data import RegionDataset, check_images, training_augmentation
from shared.encoders import load_encoder
from shared.features import Copies, EmbeddedImages, EmbeddedInstances
from shared.features.copies import turned
from shared.features.image_store import ImageFeatureStore
from shared.wsi.notices import warn_once

SIDE_PX, STRIDE_PX = 64, 32


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("efficientnet_lite0")


@pytest.fixture
def records(tmp_path):
    rng = np.random.default_rng(0)
    found = []
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
        mask[: SIDE_PX // 2, : SIDE_PX // 2] = 255
        Image.fromarray(mask).save(tmp_path / f"{number}_mask.png")
        image, truth = str(tmp_path / f"{number}.png"), str(tmp_path / f"{number}_mask.png")
        found.append({"image": image, "mask": truth, "label": 1, "row": number + 2, "manifest": "m.csv"})
    return found


def embedded(records, encoder, folder, copies=None, **options):
    images = RegionDataset(records, size_px=SIDE_PX, pixel_labels="mask", **options)
    return EmbeddedImages(images, encoder, folder, copies=copies or Copies(), batch_size=2)


def test_features_are_those_of_the_encoder(records, encoder, tmp_path):
    dataset = embedded(records, encoder, tmp_path / "features")
    item = dataset[1]
    expected = encoder(dataset.images[1]["image"][None])[0]
    assert item["image"].dtype == torch.float16
    torch.testing.assert_close(item["image"].float(), expected, atol=2e-2, rtol=2e-3)
    assert (item["label"], item["index"], item["mask"].shape) == (1, 1, (1, SIDE_PX, SIDE_PX))


class CountingEncoder(torch.nn.Module):
    """Counts the images that it is given."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.seen = encoder, 0
        self.key, self.name, self.stride_px, self.channels = encoder.key, encoder.name, encoder.stride_px, encoder.channels
        self.description = encoder.description

    def forward(self, images):
        self.seen += len(images)
        return self.encoder(images)


def test_nothing_is_embedded_twice(records, encoder, tmp_path):
    counting = CountingEncoder(encoder)
    embedded(records[:2], counting, tmp_path / "features").run()
    assert counting.seen == 2
    # Another run with one image more, and one that is there twice.
    embedded([*records, records[0]], counting, tmp_path / "features").run()
    assert counting.seen == 3
    # An image that changes is another one.
    Image.fromarray(np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)).save(records[0]["image"])
    embedded(records, counting, tmp_path / "features").run()
    assert counting.seen == 4


def test_an_image_is_another_one_after_any_change(records, encoder, tmp_path):
    """Also a few rows of a file that is not compressed, which keep its size."""
    side_px = 20 * SIDE_PX
    pixels = np.full((side_px, side_px, 3), 200, np.uint8)
    path = tmp_path / "large.bmp"
    counting = CountingEncoder(encoder)
    for is_painted in (False, True, True):
        pixels[45:50] = 0 if is_painted else 200
        Image.fromarray(pixels).save(path)
        images = RegionDataset([{"image": str(path), "label": 1, "row": 2, "manifest": "m.csv"}])
        EmbeddedImages(images, counting, tmp_path / "features").run()
    assert counting.seen == 2


@pytest.mark.parametrize(("most_bytes", "num_files"), [(2**28, 1), (5000, 2)])
def test_features_do_not_pile_up_in_memory(records, encoder, tmp_path, monkeypatch, most_bytes, num_files):
    """Of 2 x 2 features of 1280 half-precision numbers, 10,240 bytes an image; two images come at a time."""
    monkeypatch.setattr("shared.features.images._BYTES_PER_FILE", most_bytes)
    embedded(records, encoder, tmp_path / "features").run()
    assert len(list((tmp_path / "features" / encoder.key).glob("*.h5"))) == num_files


def test_a_process_that_reads_images_is_not_given_the_encoder(records, encoder, tmp_path, monkeypatch):
    """Where processes are not forked, what they are given is pickled."""

    class HeldByTheGpu(CountingEncoder):
        def __reduce_ex__(self, protocol):
            pytest.fail("the encoder was pickled")

    def loader(dataset, *given, **options):
        return DataLoader(pickle.loads(pickle.dumps(dataset)), *given, **options)

    monkeypatch.setattr("shared.features.images.DataLoader", loader)
    held = HeldByTheGpu(encoder)
    embedded(records, held, tmp_path / "features", Copies(symmetries=True)).run()
    assert held.seen == 3 * 8


def test_each_encoder_has_features_of_its_own(records, encoder, tmp_path):
    plain = embedded(records, encoder, tmp_path / "features")[0]["image"]
    smooth = embedded(records, load_encoder("efficientnet_lite0", smoothing=3), tmp_path / "features")[0]["image"]
    assert not torch.equal(plain, smooth)


def test_copies_are_features_of_turned_images_with_masks_turned_alike(records, encoder, tmp_path):
    dataset = embedded(records, encoder, tmp_path / "features", Copies(symmetries=True))
    image, mask = dataset.images[0]["image"], dataset.images[0]["mask"]
    seen = set()
    for epoch in range(40):
        dataset.set_epoch(epoch)
        item = dataset.draw(0)
        (turn,) = [turn for turn in range(8) if is_of(turn, image, item, encoder)]
        assert torch.equal(turned(mask, turn), item["mask"])
        seen.add(turn)
    assert seen == set(range(8))


def is_of(turn, image, item, encoder):
    return torch.allclose(encoder(turned(image, turn)[None])[0], item["image"].float(), atol=5e-2)


def test_a_copy_is_drawn_by_seed_epoch_index_and_occurrence(records, encoder, tmp_path):
    copies = Copies(symmetries=True, stain_copies=1)
    first, second = (embedded(records, encoder, tmp_path / "features", copies) for _ in range(2))
    draws = [first.draw(0, occurrence)["image"] for occurrence in range(12)]
    again = [second.draw(0, occurrence)["image"] for occurrence in range(12)]
    assert all(torch.equal(one, other) for one, other in zip(draws, again, strict=True))
    assert len({draw.numpy().tobytes() for draw in draws}) > 4
    assert len(Copies(symmetries=True, stain_copies=1).of_shape(64, 64)) == 16
    assert len(Copies(symmetries=True).of_shape(64, 32)) == 4


def test_instances_are_cut_from_the_features_of_their_image(records, encoder, tmp_path):
    half = SIDE_PX // 2
    picks = [
        {"image": records[1]["image"], "x": half, "y": 0, "width_px": half, "height_px": half, "label": 0, "row": 2},
        {"image": records[2]["image"], "x": 0, "y": 0, "width_px": half, "height_px": half, "label": 1, "row": 3},
    ]
    images = embedded(records, encoder, tmp_path / "features")
    instances = EmbeddedInstances(images, picks, instances_per_side=2)
    assert torch.equal(instances[0]["image"], images[1]["image"][:, :1, 1:])
    assert torch.equal(instances[1]["image"], images[2]["image"][:, :1, :1])
    assert [instances[index]["label"] for index in (0, 1)] == [0, 1]
    # In a turned copy, the instance is where it has been turned to: it holds the mask's corner wherever that lies.
    copied = embedded(records, encoder, tmp_path / "features", Copies(symmetries=True))
    turning = EmbeddedInstances(copied, picks, instances_per_side=2)
    for epoch in range(10):
        turning.set_epoch(epoch)
        cut = turning.draw(1)["image"]
        # Its place in that copy, whatever the copy is: one of the four corners.
        assert cut.shape == (encoder.channels, 1, 1)
    with pytest.raises(ValueError, match=r"row 2.*are not an instance of a training image with N = 4"):
        EmbeddedInstances(images, picks, instances_per_side=4)


def test_super_pixels_are_those_of_the_image_and_turn_with_it(records, encoder, tmp_path):
    # What lies in the mask's corner of the image lies in the mask of every copy.
    ids = {"superpixels": lambda image: image[:1].int()}
    plain = embedded(records, encoder, tmp_path / "features", **ids)[1]
    assert torch.equal(plain["superpixels"], RegionDataset(records, size_px=SIDE_PX)[1]["image"][:1].int())
    corner = plain["superpixels"][plain["mask"] > 0].sort().values
    turning = embedded(records, encoder, tmp_path / "features", Copies(symmetries=True), **ids)
    seen = set()
    for epoch in range(10):
        turning.set_epoch(epoch)
        item = turning[1]
        assert torch.equal(item["superpixels"][item["mask"] > 0].sort().values, corner)
        seen.add(tuple(item["superpixels"][0, 0, :4].tolist()))
    assert len(seen) > 2


def test_what_does_not_go_with_features_is_an_error(records, encoder, tmp_path):
    with pytest.raises(ValueError, match="without a transform"):
        embedded(records, encoder, tmp_path, transform=training_augmentation())
    with pytest.raises(ValueError, match="stain_copies >= 0"):
        Copies(stain_copies=-1)
    images = EmbeddedImages(RegionDataset(records), load_encoder("efficientnet_lite0", stride_px=24), tmp_path)
    with pytest.raises(ValueError, match=r"m\.csv, row 2, .*0\.png: .*a feature every 24 px.*multiples of 24"):
        images.run()


def test_a_damaged_file_is_named(records, encoder, tmp_path):
    embedded(records, encoder, tmp_path / "features").run()
    (file,) = (tmp_path / "features" / encoder.key).glob("*.h5")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=rf"{file.name} is damaged .*delete it, and its images are embedded again"):
        embedded(records, encoder, tmp_path / "features").run()


def test_a_file_is_read_while_another_process_has_it_locked(tmp_path):
    store = ImageFeatureStore(tmp_path)
    store.write(["a"], [torch.ones(2, 1, 1)], {})
    (path,) = tmp_path.glob("*.h5")
    with path.open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert torch.equal(ImageFeatureStore(tmp_path).read("a"), torch.ones(2, 1, 1).half())


def test_what_killed_processes_have_left_half_written_is_removed(tmp_path):
    left, growing, other = (tmp_path / name for name in ("a.h5.part", "b.h5.part", "c.part"))
    for path in (left, growing, other):
        path.write_bytes(b"half")
    for path, age_hours in ((left, 25), (growing, 23), (other, 25)):
        os.utime(path, (time.time() - 3600 * age_hours,) * 2)
    store = ImageFeatureStore(tmp_path)
    assert store.missing(["a"]) == ["a"]
    assert left.exists()
    store.write(["a"], [torch.ones(2, 1, 1)], {})
    assert (left.exists(), growing.exists(), other.exists()) == (False, True, True)


def test_features_that_cannot_be_kept_are_those_of_this_run_alone(records, encoder, tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.touch()
    counting = CountingEncoder(encoder)
    dataset = embedded(records, counting, blocked / "features")
    kept = embedded(records, encoder, tmp_path / "features")
    for _ in range(2):
        assert all(torch.equal(dataset[index]["image"], kept[index]["image"]) for index in range(3))
    assert counting.seen == 3
    (said,) = [record.message for record in caplog.records if "this run only" in record.message]
    assert "a part of its path is a file, not a folder" in said
    with pytest.raises(OSError, match="a part of its path is a file"):
        EmbeddedImages(dataset.images, encoder, blocked / "features", memory_gib=0.0).run()


def test_images_are_enlarged_to_whole_features_with_their_masks(records, encoder, tmp_path):
    images = RegionDataset(records, size_px=SIDE_PX, pixel_labels="mask", multiple_px=28)
    item = images[1]
    # 64 px become 84; the mask's corner of 32 px becomes one of 42.
    assert item["image"].shape == (3, 84, 84)
    expected = np.array(Image.open(records[1]["image"]).resize((84, 84), Image.Resampling.BILINEAR))
    assert np.array_equal(item["image"].permute(1, 2, 0).numpy(), expected)
    assert item["mask"][0, :42, :42].all()
    assert item["mask"].sum() == 42**2
    check_images([images], instances_per_side=2, feature_stride_px=14)
    fine = load_encoder("efficientnet_lite0", stride_px=14)
    dataset = EmbeddedImages(images, fine, tmp_path / "features")
    assert torch.equal(dataset[1]["image"], fine(item["image"][None])[0].half())
    assert torch.equal(dataset[1]["mask"], item["mask"])


def test_images_that_divide_have_the_features_that_they_had(records, encoder, tmp_path):
    counting = CountingEncoder(encoder)
    embedded(records, counting, tmp_path / "features").run()
    embedded(records, counting, tmp_path / "features", multiple_px=STRIDE_PX).run()
    assert counting.seen == 3


@pytest.mark.parametrize(
    ("own", "used", "enlargement", "is_warned"),
    [
        (0.5, 0.25, 1, True),
        (0.5, 1.0, 1, True),
        (0.5, 0.45, 1, False),
        (None, 1.0, 1, False),
        (0.5, None, 1, False),
        (0.5, 0.5, 2, True),
        (0.5, 1.0, 2, False),
    ],
)
def test_another_pixel_size_than_the_encoders_is_warned_of_once(
    records, encoder, tmp_path, caplog, own, used, enlargement, is_warned
):
    warn_once.cache_clear()
    given = [{**record, "mpp": used} for record in records]
    named = CountingEncoder(encoder)
    named.mpp, named.enlargement = own, enlargement
    EmbeddedImages(RegionDataset(given), named, tmp_path / "features").run()
    check_images([RegionDataset(given)], encoder=named)
    warnings = [record.message for record in caplog.records if "was trained at" in record.message]
    assert len(warnings) == is_warned
    if is_warned:
        said = f"the encoder efficientnet_lite0 was trained at {own:g} um per pixel and is given images of {used:.2g} um"
        assert said in warnings[0]
        assert f"set mpp to about {own * enlargement:g} " in warnings[0]
        assert ("enlarged 2 times" in warnings[0]) == (enlargement == 2)
