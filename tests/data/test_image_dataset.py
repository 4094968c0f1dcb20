from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from monai.transforms import CenterSpatialCropd, Compose, OneOf, RandFlipd, RandRotated, RandZoomd, Resized, SpatialPadd
from PIL import Image
from torch.utils.data import DataLoader

from shared.data import RegionDataset, check_images, load_manifest, pixel_target, read_image, training_augmentation
from shared.synthetic import write_slide
from shared.wsi.notices import warn_once

# Grey values that JPEG keeps to within a few: large flat squares of 32 px.
SQUARE_PX = 32


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A slide of 0.25 um, 640 x 512 px, and its mask: squares of tumour (red) and tissue."""
    folder = tmp_path_factory.mktemp("slide")
    squares = np.random.default_rng(0).integers(0, 2, (512 // SQUARE_PX, 640 // SQUARE_PX))
    mask = squares.repeat(SQUARE_PX, 0).repeat(SQUARE_PX, 1).astype(bool)
    rgb = np.where(mask[..., None], np.uint8([220, 40, 40]), np.uint8([200, 200, 220]))
    write_slide(folder / "slide.tif", rgb, mpp=0.25)
    tifffile.imwrite(folder / "mask.tif", mask * np.uint8(255), tile=(256, 256), photometric="minisblack", compression="deflate")
    return folder / "slide.tif", folder / "mask.tif", rgb, mask


@pytest.fixture
def records(write_image, tmp_path):
    """Six tiles of 16 px, labels 0 and 1 in turn; those with label 1 have a mask."""
    made = []
    for index in range(6):
        image = write_image(f"tile{index}", (16, 16))
        mask = None
        if index % 2:
            mask = str(tmp_path / f"mask{index}.png")
            Image.fromarray(np.uint8(np.arange(256).reshape(16, 16) % 7 == index) * 255).save(mask)
        made.append({"image": str(image), "label": index % 2, "mask": mask, "row": index + 2})
    return made


def pixels_of(path):
    return np.asarray(Image.open(path))


def test_a_tile_is_read_as_it_is_stored(write_image):
    path = write_image("a", (7, 5))
    image = read_image({"image": str(path)}, mpp=0.5)
    assert image.dtype == torch.uint8
    assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels_of(path))


def test_a_region_of_a_tile(write_image):
    path = write_image("a", (9, 9))
    image = read_image({"image": str(path), "x": 2, "y": 3, "width_px": 4, "height_px": 5})
    assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels_of(path)[3:8, 2:6])


def test_a_tile_whose_manifest_knows_its_mpp_is_resampled(write_image):
    path = write_image("a", pixels=np.full((16, 8, 3), 77, np.uint8))
    image = read_image({"image": str(path), "mpp": 0.25}, mpp=0.5)
    assert image.shape == (3, 8, 4)
    # Its outermost pixels are mixed with the glass that lies outside every image.
    assert (image[:, 1:-1, 1:-1] == 77).all()


@pytest.mark.parametrize(("mpp", "is_warned"), [(0.5, True), (0.85, False), (1.0, False), (None, False)])
def test_images_that_are_enlarged_are_warned_of_once(write_image, caplog, mpp, is_warned):
    warn_once.cache_clear()
    record = {"image": str(write_image("a", pixels=np.full((16, 8, 3), 77, np.uint8))), "mpp": 1.0, "label": 0}
    dataset = RegionDataset([record], mpp=mpp)
    for _ in range(2):
        dataset[0]
    said = "images with pixels of 1 um are read at mpp=0.5: they are enlarged 2 times and show no more detail than they have"
    assert caplog.messages == [said] * is_warned


@pytest.mark.parametrize("mpp", [0.25, 0.5, 0.4])
def test_a_region_of_a_slide_and_its_mask(slide, mpp):
    path, mask_path, rgb, mask = slide
    # (x, y) = (160, 96), 256 x 192 level-0 pixels: no multiple of a file's tile, not square.
    record = {"image": str(path), "mask": str(mask_path), "label": 1, "x": 160, "y": 96, "width_px": 256, "height_px": 192}
    downsample = mpp / 0.25
    image = read_image(record, mpp=mpp)
    target = pixel_target(record, "mask", image.shape[-2:], mpp)
    width, height = round(256 / downsample), round(192 / downsample)
    assert image.shape == (3, height, width)
    assert target.shape == (1, height, width)
    # Level-0 pixel under the centre of each pixel.
    rows = (96 + (np.arange(height) + 0.5) * downsample).astype(int)
    columns = (160 + (np.arange(width) + 0.5) * downsample).astype(int)
    assert np.array_equal(target[0].numpy(), mask[np.ix_(rows, columns)])
    # JPEG and resampling blur the squares' edges: compare what is 4 px from them.
    inside = np.ix_(abs(rows % SQUARE_PX - 15.5) < 11, abs(columns % SQUARE_PX - 15.5) < 11)
    difference = image.permute(1, 2, 0).numpy()[inside].astype(int) - rgb[np.ix_(rows, columns)][inside]
    assert np.abs(difference).max() < 12
    # The image alone tells tumour from tissue where the mask does.
    assert np.array_equal((image[1] < 120).numpy()[inside], target[0].numpy()[inside] == 1)


def test_a_region_that_overhangs_is_glass_there(slide):
    record = {"image": str(slide[0]), "x": 600, "y": -20, "width_px": 80, "height_px": 60}
    image = read_image(record)
    assert (image[:, :20] == 255).all()
    assert (image[:, :, 40:] == 255).all()
    assert (image[:, 24:, :36] != 255).any(0).all()


@pytest.mark.parametrize(
    ("region", "options", "words"),
    [
        ({}, {"size_px": 32}, "16 x 16 px, expected 32 x 32"),
        ({"x": 0, "y": 0, "width_px": 4, "height_px": 16}, {"size_px": 16}, "4 x 16 px, expected 16 x 16"),
        ({"mpp": 0.25}, {"size_px": 16, "mpp": 0.5}, "8 x 8 px at 0.5 um per pixel, expected 16 x 16"),
        ({"x": 0, "y": 0, "width_px": 1, "height_px": 1, "mpp": 0.1}, {"mpp": 0.5}, "at least one pixel"),
        ({"x": 16, "y": 0, "width_px": 8, "height_px": 8}, {}, "outside the image of 16 x 16 px"),
        ({"x": 0, "y": -8, "width_px": 8, "height_px": 8}, {}, "outside the image of 16 x 16 px"),
    ],
)
def test_an_error_names_row_and_file(write_image, region, options, words):
    path = write_image("a", (16, 16))
    with pytest.raises(ValueError, match=f"row 7, {path}: .*{words}"):
        read_image({"image": str(path), "row": 7, **region}, **options)


def test_a_pixel_of_rounding_is_no_error(slide):
    record = {"image": str(slide[0]), "x": 0, "y": 0, "width_px": 129, "height_px": 127}
    assert read_image(record, mpp=0.5, size_px=64).shape == (3, 64, 64)


@pytest.mark.parametrize("content", [b"", b"no image at all"])
def test_an_unreadable_image(tmp_path, content):
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"row 3, .*broken\.png"):
        RegionDataset([{"image": str(tmp_path / "broken.png"), "label": 0, "row": 3}])[0]


def test_a_slide_without_mpp_is_an_error_where_one_is_asked_for(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", np.zeros((64, 64, 3), np.uint8), tile=(32, 32), photometric="rgb", compression="zlib")
    record = {"image": str(tmp_path / "s.tif"), "row": 2}
    with pytest.raises(ValueError, match=r"row 2, .*s\.tif: .*does not state its pixel size"):
        read_image(record, mpp=0.5)
    assert read_image({**record, "mpp": 0.25}, mpp=0.5).shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("labels", "source", "words"),
    [
        ({"label": 1}, "mask", "the column 'mask' is empty"),
        ({}, "mask", "the column 'mask' is empty"),
        ({}, "label", "the column 'label' is empty"),
        ({"label": 1}, "instances", "the column 'instances' is empty"),
        ({"label": 1, "instances": "010"}, "instances", "N x N, got 3"),
        ({"label": 1, "instances": "010010010"}, "instances", "does not divide into 3 x 3"),
        ({"label": 1, "mask": "none.png"}, "mask", r"none\.png"),
        ({"label": 1, "mask": "small.png"}, "mask", r"small\.png is 7 x 7 px"),
    ],
)
def test_pixel_labels_that_are_missing_or_do_not_fit(tmp_path, write_image, labels, source, words):
    write_image("small", (7, 7))
    record = {"image": str(write_image("a", (16, 16))), "row": 4, **labels}
    if "mask" in record:
        record["mask"] = str(tmp_path / record["mask"])
    with pytest.raises(ValueError, match=rf"row 4, .*a\.png: .*{words}"):
        RegionDataset([record], pixel_labels=source)[0]


def test_an_error_comes_through_a_worker_process(records):
    batches = iter(DataLoader(RegionDataset(records, size_px=32), batch_size=6, num_workers=1))
    with pytest.raises(ValueError, match=r"row 2, .*tile0\.png: .*16 x 16 px, expected 32 x 32"):
        next(batches)
    # Left to the garbage collector, which may close its queue first, the worker would be waited for for 5 s.
    batches._shutdown_workers()


def test_an_image_of_another_shape_is_stretched(write_image, slide):
    """Halves of 48 x 20 px stay halves in 10 x 10; micrometres of a pixel, where they are known, do not matter."""
    path = write_image("wide", (48, 20))
    pixels = np.zeros((20, 48, 3), np.uint8)
    pixels[:, 24:] = 200
    Image.fromarray(pixels).save(path)
    for mpp in (None, 0.42):
        data = [{"image": str(path), "label": 1, "mpp": mpp, "row": 2}]
        dataset = RegionDataset(data, size_px=10, mpp=7.5, stretch=True)
        check_images([dataset])
        image = dataset[0]["image"]
        assert image.shape == (3, 10, 10)
        assert image[:, :, :4].max() <= 20
        assert image[:, :, 6:].min() >= 180
    region = {"image": str(slide[0]), "x": 64, "y": 0, "width_px": 256, "height_px": 64, "row": 2}
    assert read_image(region, 1.0, 32, stretch=True).shape == (3, 32, 32)
    with pytest.raises(ValueError, match="images are stretched to a size_px, and masks are not"):
        RegionDataset(data, size_px=10, stretch=True, pixel_labels="mask")


def test_unknown_pixel_labels(records):
    with pytest.raises(ValueError, match="instances, mask, label, got 'truth'"):
        RegionDataset(records, pixel_labels="truth")


def test_items(records):
    dataset = RegionDataset(records, size_px=16)
    item = dataset[3]
    assert sorted(item) == ["image", "index", "label"]
    assert (item["index"], item["label"]) == (3, 1)
    assert sorted(RegionDataset([{"image": records[0]["image"]}])[0]) == ["image", "index"]


def test_areas_where_they_are_asked_for(records):
    records[1]["area"], records[3]["area"] = 0.3, None
    assert "area" not in RegionDataset(records)[1]
    areas = [RegionDataset(records, with_areas=True)[index]["area"] for index in (1, 3, 5)]
    assert areas[0] == 0.3
    assert np.isnan(areas[1:]).all()
    assert all(type(area) is float for area in areas)
    (batch,) = DataLoader(RegionDataset(records, with_areas=True), batch_size=6)
    assert batch["area"].shape == (6,)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_scale": 1.2, "free_rotation": False}, "RandAffined"),
        ({"max_scale": 1.0, "free_rotation": True}, "RandAffined"),
        ({"max_scale": 1.0, "free_rotation": False, "crop_size_px": 8}, "RandSpatialCropd"),
    ],
)
def test_areas_do_not_follow_a_crop(records, options, named):
    """They are rough shares of the whole image; flips and quarter turns leave them as they are."""
    transform = training_augmentation(**options)
    with pytest.raises(ValueError, match=rf"\({named}\).*areas would silently be wrong.*crop_size_px.*etas"):
        RegionDataset(records, with_areas=True, transform=transform)
    RegionDataset(records, transform=transform)
    RegionDataset(records, with_areas=True, transform=training_augmentation(free_rotation=False, max_scale=1.0, stain_jitter=0.1))


@pytest.mark.parametrize(
    "step",
    [RandZoomd("image", prob=1.0), CenterSpatialCropd("image", 8), OneOf([RandRotated("image"), SpatialPadd("image", 32)])],
)
def test_steps_of_monai_that_areas_do_not_follow_either(records, step):
    with pytest.raises(ValueError, match="areas would silently be wrong"):
        RegionDataset(records, with_areas=True, transform=Compose([Compose([step])]))
    RegionDataset(records, with_areas=True, transform=Compose([Resized("image", (8, 8)), RandFlipd("image")]))


def test_superpixels_are_those_of_the_image_as_read(records):
    seen = []

    def rows(image):
        seen.append(image)
        return torch.arange(16, dtype=torch.int32)[None, :, None].expand(1, 16, 16)

    dataset = RegionDataset(
        records, pixel_labels="mask", superpixels=rows, transform=lambda item: {**item, "image": item["image"] // 2}
    )
    item = dataset[1]
    assert sorted(item) == ["image", "index", "label", "mask", "superpixels"]
    assert torch.equal(item["superpixels"], rows(None))
    assert torch.equal(seen[0], read_image(records[1]))
    assert torch.equal(item["image"], seen[0] // 2)


def test_pixel_labels(records):
    for index, record in enumerate(records):
        record["instances"] = "0110"
        true = pixels_of(record["mask"]) > 0 if record["mask"] else np.zeros((16, 16))
        painted = np.kron([[0, 1], [1, 0]], np.ones((8, 8)))
        for source, expected in (("mask", true), ("label", np.full((16, 16), index % 2)), ("instances", painted)):
            mask = RegionDataset(records, pixel_labels=source)[index]["mask"]
            assert mask.dtype == torch.uint8
            assert np.array_equal(mask[0].numpy(), expected)


def test_a_mask_counts_for_label_0_too(records):
    """A mask that says otherwise is not overruled by the label: an evaluation would hide the contradiction."""
    record = {**records[1], "label": 0}
    for read in (lambda dataset: dataset[0], lambda dataset: check_images([dataset])):
        with pytest.raises(
            ValueError, match=r"row 3, .*label 0 means no tumour, but the mask .*mask1\.png shows it on 14% of the image"
        ):
            read(RegionDataset([record], pixel_labels="mask"))


def test_pixel_labels_of_several_classes(write_image, tmp_path):
    classes = np.random.default_rng(0).integers(0, 4, (16, 16), dtype=np.uint8)
    Image.fromarray(classes).save(tmp_path / "mask.png")
    record = {"image": str(write_image("a", (16, 16))), "label": 2, "mask": str(tmp_path / "mask.png"), "row": 5}
    normal = {**record, "label": 0, "mask": None}
    for source, expected in (("mask", [classes, np.zeros((16, 16))]), ("label", [np.full((16, 16), 2), np.zeros((16, 16))])):
        dataset = RegionDataset([record, normal], pixel_labels=source, num_classes=4)
        check_images([dataset])
        for index, wanted in enumerate(expected):
            assert dataset[index]["mask"].dtype == torch.uint8
            assert np.array_equal(dataset[index]["mask"][0].numpy(), wanted)
        assert np.array_equal(RegionDataset([record], pixel_labels=source)[0]["mask"][0].numpy(), expected[0] > 0)
    with pytest.raises(ValueError, match=r"row 5, .*a\.png: .*mask\.png has a pixel of value 3: with 3 classes"):
        check_images([RegionDataset([record], pixel_labels="mask", num_classes=3)])
    with pytest.raises(ValueError, match=r"row 5, .*label must be one of 0\.\.2, got 3"):
        RegionDataset([{**record, "label": 3}], pixel_labels="label", num_classes=3)[0]


def test_a_mask_may_be_an_annotation_file(slide, write_rows, tmp_path):
    """A manifest names the annotations of a slide; a region of it has the classes that they say, at another pixel size."""
    path, _, _, _ = slide
    squares = {"Benign": (160, 96, 416, 288), "INVASIVE": (200, 120, 300, 200)}
    points = {name: [(x0, y0), (x1, y0), (x1, y1), (x0, y1)] for name, (x0, y0, x1, y1) in squares.items()}
    regions = "".join(
        f'<Region Type="0"><Attributes><Attribute Name="1" Value="{name}"/></Attributes><Vertices>'
        + "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in corners)
        + "</Vertices></Region>"
        for name, corners in points.items()
    )
    (tmp_path / "slide.xml").write_text(f"<Annotations><Annotation><Regions>{regions}</Regions></Annotation></Annotations>")
    place = {"x": "128", "y": "64", "width_px": "320", "height_px": "256"}
    manifest = write_rows([{"image": str(path), "mask": "slide.xml", "label": "2", **place, "split": "test"}])
    records = load_manifest(manifest, num_classes=3)
    dataset = RegionDataset(records, mpp=0.5, pixel_labels="mask", num_classes=3, class_names=["Normal", "benign", "Invasive"])
    check_images([dataset])
    expected = np.zeros((128, 160), dtype=np.uint8)
    for value, (x0, y0, x1, y1) in enumerate(squares.values(), start=1):
        expected[(y0 - 64) // 2 : (y1 - 64) // 2, (x0 - 128) // 2 : (x1 - 128) // 2] = value
    assert np.array_equal(dataset[0]["mask"][0].numpy(), expected)
    with pytest.raises(ValueError, match=r"row 2, .*slide\.xml: .*found Benign \(1\), INVASIVE \(1\)"):
        check_images([RegionDataset(records, mpp=0.5, pixel_labels="mask")])
    named = load_manifest(manifest, num_classes=3, tumour_classes=["benign", "Invasive"])
    target = pixel_target(named[0], "mask", (128, 160), 0.5)
    assert np.array_equal(target[0].numpy(), expected > 0)
    with pytest.raises(
        ValueError, match=r"row 2, .*slide\.xml: annotation 1, region 2 has the class 'INVASIVE', expected one of"
    ):
        check_images([RegionDataset(records, mpp=0.5, pixel_labels="mask", class_names=["Normal", "Benign"])])


def test_classes_and_names_that_do_not_agree(records):
    with pytest.raises(ValueError, match="class_names must be 3 different names"):
        RegionDataset(records, num_classes=3, class_names=["a", "b"])
    with pytest.raises(ValueError, match="num_classes must be from 2 to 255, got 1"):
        RegionDataset(records, num_classes=1)


def test_random_transforms_follow_from_seed_epoch_and_index(records):
    def items(seed, epoch, num_workers=0):
        transform = training_augmentation(["image", "mask"], crop_size_px=8, stain_jitter=0.2)
        dataset = RegionDataset(records, pixel_labels="mask", transform=transform, seed=seed)
        dataset.set_epoch(epoch)
        return [item for batch in DataLoader(dataset, batch_size=2, num_workers=num_workers) for item in batch["image"]]

    first = items(seed=0, epoch=0)
    np.random.default_rng().random(3)
    torch.rand(3)
    for num_workers in (0, 2):
        assert all(torch.equal(a, b) for a, b in zip(items(0, 0, num_workers), first, strict=True))
    for other in (items(0, 1), items(1, 0)):
        assert not any(torch.equal(a, b) for a, b in zip(other, first, strict=True))


def test_one_transform_may_serve_several_data_sets(records):
    """The configuration makes one augmentation; the loaders of a constrained step take turns."""
    transform = training_augmentation(crop_size_px=8)
    one, two = (RegionDataset(records, transform=transform, seed=seed) for seed in (0, 1))
    alone = [one[index]["image"] for index in range(6)]
    in_turn = [(one[index]["image"], two[index])[0] for index in range(6)]
    assert all(torch.equal(a, b) for a, b in zip(alone, in_turn, strict=True))


def test_an_error_names_the_manifest(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "images.csv").write_text("image,label\nbad.png,1\n")
    (record,) = load_manifest(tmp_path / "images.csv")
    with pytest.raises(ValueError, match=rf"^{tmp_path}/images\.csv, row 2, {tmp_path}/bad\.png: "):
        check_images([RegionDataset([record])])


def test_check_images_names_the_row_before_anything_is_read(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((60, 64), np.uint8)).save(tmp_path / "mask.png")
    good = {"image": str(tmp_path / "good.png"), "label": 1, "row": 2}
    check_images([RegionDataset([good], size_px=64), None], instances_per_side=4)
    with pytest.raises(ValueError, match=r"row 7, .*bad\.png"):
        check_images([RegionDataset([good, {**good, "image": str(tmp_path / "bad.png"), "row": 7}])])
    with pytest.raises(ValueError, match=r"row 2, .*good\.png: .*64 x 64 px does not divide into 6 x 6"):
        check_images([RegionDataset([good])], instances_per_side=6)
    with pytest.raises(ValueError, match=r"row 2, .*instances_per_side must be at least 1, got 0"):
        check_images([RegionDataset([good])], instances_per_side=0)
    with pytest.raises(ValueError, match=r"row 2, .*smaller than one instance"):
        check_images([RegionDataset([good])], instances_per_side=65)
    with pytest.raises(ValueError, match=r"row 2, .*64 x 64 px, expected 128 x 128"):
        check_images([RegionDataset([good], size_px=128)])
    masked = {**good, "mask": str(tmp_path / "mask.png")}
    with pytest.raises(ValueError, match=r"row 2, .*mask\.png is 64 x 60 px"):
        check_images([RegionDataset([masked], pixel_labels="mask")])
