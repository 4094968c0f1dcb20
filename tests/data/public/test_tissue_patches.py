"""Miniatures of LUAD-HistoSeg and WSSS4LUAD as they are unpacked."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from shared.data import RegionDataset, load_manifest, write_manifest
from shared.data.public.tissue_patches import (
    LUAD_HISTOSEG,
    WSSS4LUAD,
    of_one_tissue,
    patch_case,
    patch_label,
    tissue_patches,
    with_tumour,
)
from tests.data.published_layouts import LUAD_MASKED, LUAD_PATCHES, pink, write_luad_histoseg, write_wsss4luad


def masked_lines(root: Path, masks: Path, labels: tuple[int, int]) -> list[str]:
    """Of the images with masks: the label of the first of a split, and that of the others."""
    return [
        f"{root / split / 'img' / name}.png,1.0,{labels[number > 0]},{masks / split / name}.png,{name[:3]},{split}"
        for split, names in LUAD_MASKED.items()
        for number, name in enumerate(names)
    ]


@pytest.fixture
def luad_folder(tmp_path):
    return write_luad_histoseg(tmp_path)


@pytest.mark.parametrize("written", ["[1 0 0 1]", "[1, 0, 0, 1]", "[1_0_0_1]", "[1001]"])
def test_labels_in_names(written):
    assert patch_label(f"1031280-2300-27920-{written}", 4) == (1, 0, 0, 1)
    assert patch_case(f"1031280-2300-27920-{written}") == patch_case(f"1031280-2300-27920{written}") == "1031280"
    with pytest.raises(ValueError, match=r"expected a name that ends with 3 labels, such as -\[0 1 0\]"):
        patch_label(f"1031280-2300-27920-{written}", 3)


@pytest.mark.parametrize("stem", ["1031280-2300-27920", "1-2-3-[1 0 0 2]", "1-2-3-[1 0 0 1]-copy", "1-2-3-[]"])
def test_names_without_labels(stem):
    with pytest.raises(ValueError, match="expected a name that ends with 4 labels"):
        patch_label(stem, 4)


def test_patients_in_names():
    assert patch_case("1.2.276.0.7230010.3_38208_17984_[1_1_0]") == "1.2.276.0.7230010.3"
    assert patch_case("TCGA-05-4382-120-4000-[1 0 0]") == "TCGA-05-4382"
    assert patch_case("07") is None


def test_the_manifest_of_tumour_line_by_line(luad_folder, tmp_path):
    data = tissue_patches(luad_folder.parent, tmp_path / "masks", LUAD_HISTOSEG)
    write_manifest(with_tumour(data.records), tmp_path / "images.csv")
    lines = ["image,mpp,label,mask,case_id,split"]
    for name in sorted(LUAD_PATCHES):
        has_tumour = int(name.endswith(("[1 0 0 0]", "[1 0 0 1]")))
        lines.append(f"{luad_folder / 'train' / name}.png,1.0,{has_tumour},,{name[:3]},train")
    lines += masked_lines(luad_folder, tmp_path / "masks/tumour", (1, 0))
    assert (tmp_path / "images.csv").read_text().splitlines() == lines
    assert data.found == {"train": 6, "val": 4, "test": 2}
    assert data.remarks == ["1 training patches contain none of the tissues: they count as background"]
    records = load_manifest(tmp_path / "images.csv", "val", require=("label", "mask"))
    dataset = RegionDataset(records, size_px=224, mpp=1.0, pixel_labels="mask")
    assert [int(item["mask"].sum()) for item in dataset] == [(224 - 64) * 224, 0, 0, 0]


def test_the_manifest_of_classes_line_by_line(luad_folder, tmp_path):
    data = tissue_patches(luad_folder, tmp_path / "masks", LUAD_HISTOSEG)
    write_manifest(of_one_tissue(data.records), tmp_path / "classes.csv")
    lines = ["image,mpp,label,mask,case_id,split"]
    # The patch of tumour and stroma has no label of its own.
    training = {LUAD_PATCHES[0]: 1, LUAD_PATCHES[3]: 3, LUAD_PATCHES[2]: 2, LUAD_PATCHES[4]: 4, LUAD_PATCHES[5]: 0}
    lines += [f"{luad_folder / 'train' / name}.png,1.0,{training[name]},,{name[:3]},train" for name in sorted(training)]
    lines += masked_lines(luad_folder, tmp_path / "masks/classes", (1, 4))
    assert (tmp_path / "classes.csv").read_text().splitlines() == lines
    records = load_manifest(tmp_path / "classes.csv", "val", num_classes=5)
    dataset = RegionDataset(records, size_px=224, mpp=1.0, pixel_labels="mask", num_classes=5, class_names=LUAD_HISTOSEG.classes)
    values, counts = dataset[0]["mask"].unique(return_counts=True)
    assert (values.tolist(), counts.tolist()) == ([0, 1, 4], [32 * 32, 160 * 224, 64 * 224 - 32 * 32])


def test_validation_images_to_train_on(luad_folder, tmp_path):
    data = tissue_patches(luad_folder, tmp_path / "masks", LUAD_HISTOSEG, train_masks=0.5)
    # Two patients of two images each: one goes.
    assert "2 validation images of 1 cases are used for training, with their masks" in data.remarks
    moved = [record for record in data.records if record["split"] == "train" and record["mask"]]
    left = [record for record in data.records if record["split"] == "val"]
    assert len(moved) == len(left) == 2
    assert len({record["case_id"] for record in moved}) == len({record["case_id"] for record in left}) == 1
    write_manifest(of_one_tissue(data.records), tmp_path / "classes.csv")
    load_manifest(tmp_path / "classes.csv", num_classes=5)
    for share, message in ((0.1, "leaves none to train on"), (0.9, "none to validate on"), (1.0, r"must be in \[0, 1\)")):
        with pytest.raises(ValueError, match=message):
            tissue_patches(luad_folder, tmp_path / "masks", LUAD_HISTOSEG, train_masks=share)


def test_patients_in_two_splits(luad_folder, tmp_path):
    pink((224, 224)).save(luad_folder / "train/200-5-5-[1 0 0 0].png")
    pink((224, 224)).save(luad_folder / "train/300-5-5-[1 0 0 0].png")
    for part in ("img", "mask"):
        shutil.copy(luad_folder / "test" / part / "300-9-9.png", luad_folder / "val" / part / "300-7-7.png")
    data = tissue_patches(luad_folder, tmp_path / "masks", LUAD_HISTOSEG)
    assert data.remarks[:2] == [
        "left out 1 val images of 1 patients who are also in test",
        "left out 2 train images of 2 patients who are also in val or test",
    ]
    assert len(data.records) == 12
    official = tissue_patches(luad_folder, tmp_path / "masks", LUAD_HISTOSEG, official=True)
    assert official.remarks[0] == "2 patients are in several splits, so no case is named"
    assert len(official.records) == 15
    assert {record["case_id"] for record in official.records} == {None}


def test_regions_of_patches_of_many_sizes_line_by_line(tmp_path):
    root = write_wsss4luad(tmp_path)
    data = tissue_patches(root, tmp_path / "masks", WSSS4LUAD, size_px=128)
    write_manifest(of_one_tissue(data.records), tmp_path / "classes.csv")
    training, masks = root / "1.training/1.training", tmp_path / "masks/classes"
    rows = [
        # (150 - 128) / 2 = 11, (140 - 128) / 2 = 6; 300 px hold two, from end to end.
        f"{training / '11-1-2-[1, 0, 0].png'},11,6,128,128,1.0,1,,11,train",
        f"{training / '13-7-8-[0, 0, 1].png'},0,1,128,128,1.0,3,,13,train",
        f"{training / '13-7-8-[0, 0, 1].png'},172,1,128,128,1.0,3,,13,train",
        f"{training / '14-7-8-[0, 1, 0].png'},0,0,128,128,1.0,2,,14,train",
        f"{root / '2.validation/img/00.png'},0,1,128,128,1.0,1,{masks / 'val/00.png'},,val",
        f"{root / '2.validation/img/00.png'},132,1,128,128,1.0,1,{masks / 'val/00.png'},,val",
        f"{root / '2.validation/img/01.png'},0,1,128,128,1.0,3,{masks / 'val/01.png'},,val",
        f"{root / '2.validation/img/01.png'},132,1,128,128,1.0,3,{masks / 'val/01.png'},,val",
        f"{root / '3.testing/img/00.png'},1,1,128,128,1.0,1,{masks / 'test/00.png'},,test",
    ]
    rows = [f'"{row.partition(".png,")[0]}.png",{row.partition(".png,")[2]}' if "[" in row else row for row in rows]
    header = "image,x,y,width_px,height_px,mpp,label,mask,case_id,split"
    assert (tmp_path / "classes.csv").read_text().splitlines() == [header, *rows]
    assert data.remarks == ["left out 1 images with a side below 128 px: 12-5-6-[0, 1, 0].png"]
    assert data.lines()[1:] == [
        "train: 5 images (10091 were published)",
        "val: 2 images (40 were published)",
        "test: 1 images (80 were published)",
    ]
    assert len(load_manifest(tmp_path / "classes.csv", num_classes=4)) == 9


def test_what_is_wrong(luad_folder, tmp_path):
    masks = tmp_path / "masks"
    (luad_folder / "val/mask/200-1-2.png").unlink()
    with pytest.raises(ValueError, match=r"allow_missing leaves these files out.*\n  1 val images without a mask: 200-1-2"):
        tissue_patches(luad_folder, masks, LUAD_HISTOSEG)
    assert len(tissue_patches(luad_folder, masks, LUAD_HISTOSEG, allow_missing=True).records) == 11
    Image.new("L", (224, 223)).save(luad_folder / "val/mask/200-1-2.png")
    with pytest.raises(ValueError, match=r"200-1-2\.png is of 224 x 223 px, its image of 224 x 224 px"):
        tissue_patches(luad_folder, masks, LUAD_HISTOSEG)
    Image.new("L", (224, 224), 5).save(luad_folder / "val/mask/200-1-2.png")
    with pytest.raises(ValueError, match="has a pixel of value 5, which is not one of the codes 0, 1, 2, 3, 4"):
        tissue_patches(luad_folder, masks, LUAD_HISTOSEG)
    pink((100, 224)).save(luad_folder / "train/1-2-3-[1 0 0 0].png")
    with pytest.raises(ValueError, match=r"1-2-3-\[1 0 0 0\]\.png is of 100 x 224 px, expected 224 px per side"):
        tissue_patches(luad_folder, masks, LUAD_HISTOSEG)
    with pytest.raises(ValueError, match=r"contains no folder '1\.training'"):
        tissue_patches(luad_folder, masks, WSSS4LUAD)
