"""A miniature of BCSS as it is unpacked: regions, what is not annotated, hospitals, and codes."""

import shutil

import numpy as np
import pytest
from PIL import Image

from shared.data import RegionDataset, load_manifest, write_manifest
from shared.data.labels.class_masks import read_codes
from shared.data.public.bcss import BCSS_CLASSES, BCSS_CODES, CLASS_OF_CODE, bcss, bcss_tumour
from tests.data.published_layouts import BCSS_NAME, pink, write_bcss

# 128 px of the files: two regions an image. Site, x, main class, has tumour, split.
REGIONS = [
    ("A2", 0, 2, 1, "train"),
    ("A2", 128, 4, 0, "train"),
    ("AR", 0, 2, 1, "train"),  # half of the right region is not annotated
    ("BH", 0, 2, 1, "val"),
    ("BH", 128, 0, 0, "val"),
    ("OL", 0, 2, 1, "test"),
    ("OL", 128, 4, 0, "test"),
]


@pytest.fixture
def bcss_folder(tmp_path):
    return write_bcss(tmp_path)


def prepare(folder, tmp_path, **options):
    return bcss(folder, tmp_path / "masks", **{"size_px": 64, **options})


def test_the_manifests_line_by_line(bcss_folder, tmp_path):
    data = prepare(bcss_folder, tmp_path)
    images, masks = bcss_folder / "rgbs_colorNormalized", tmp_path / "masks"
    for kind, records in (("classes", data.records), ("tumour", bcss_tumour(data.records))):
        write_manifest(records, tmp_path / f"{kind}.csv")
        lines = ["image,x,y,width_px,height_px,mpp,label,mask,case_id,split"]
        for site, x, main, tumour, split in REGIONS:
            name = f"{BCSS_NAME.format(site)}.png"
            label = main if kind == "classes" else tumour
            lines.append(f"{images / name},{x},0,128,128,0.25,{label},{masks / kind / name},TCGA-{site}-A0SK,{split}")
        assert (tmp_path / f"{kind}.csv").read_text().splitlines() == lines
    assert data.lines() == [
        "note: left out 1 regions of which more than 1% is not annotated",
        "masks: 4 images (151 were published)",
    ]
    records = load_manifest(tmp_path / "classes.csv", num_classes=5)
    dataset = RegionDataset(records, size_px=64, mpp=0.5, pixel_labels="mask", num_classes=5, class_names=BCSS_CLASSES)
    # Of 64 x 64 px as read, tumour fills 32 x 16.
    assert dataset[0]["mask"].unique(return_counts=True)[1].tolist() == [512, 4096 - 512]
    assert dataset[1]["mask"].unique().tolist() == [4]


def test_a_share_that_is_not_annotated_may_stay(bcss_folder, tmp_path):
    records = prepare(bcss_folder, tmp_path, max_unlabelled=0.5).records
    assert len(records) == 8
    assert records[3]["label"] == 4, "what is not annotated is no main class"
    for share in (1.0, -0.1):
        with pytest.raises(ValueError, match=r"max_unlabelled must be in \[0, 1\)"):
            prepare(bcss_folder, tmp_path, max_unlabelled=share)


def test_every_code_has_its_group():
    groups = {BCSS_CODES[code]: BCSS_CLASSES[index] for code, index in CLASS_OF_CODE.items()}
    assert len(groups) == 22
    assert {name for name, group in groups.items() if group == "tumour"} == {"tumor", "angioinvasion", "dcis"}
    assert {name for name, group in groups.items() if group == "inflammatory"} == {
        "lymphocytic_infiltrate",
        "plasma_cells",
        "other_immune_infiltrate",
    }
    assert (groups["stroma"], groups["necrosis_or_debris"]) == ("stroma", "necrosis")
    assert sum(group == "other" for group in groups.values()) == 22 - 3 - 3 - 2


def test_the_layout_of_the_owners_script(bcss_folder, tmp_path):
    (bcss_folder / "rgbs_colorNormalized").rename(bcss_folder / "images")
    assert len(prepare(bcss_folder.parent, tmp_path).records) == len(REGIONS)


def test_a_pixel_size_that_is_missing(bcss_folder, tmp_path):
    for part in ("rgbs_colorNormalized", "masks"):
        for path in (bcss_folder / part).iterdir():
            path.rename(path.with_name(path.name.replace("_MPP-0.2500", "")))
    with pytest.raises(ValueError, match=r"TCGA-A2-.*does not end with the pixel size, as in _MPP-0\.2500: give it"):
        prepare(bcss_folder, tmp_path)
    records = prepare(bcss_folder, tmp_path, stored_mpp=0.5).records
    assert {(record["mpp"], record["width_px"]) for record in records} == {(0.5, 64)}


def test_other_sites(bcss_folder, tmp_path):
    records = prepare(bcss_folder, tmp_path, val=("A2",), test=("AR", "OL")).records
    splits = {record["case_id"].split("-")[1]: record["split"] for record in records}
    assert splits == {"A2": "val", "AR": "test", "BH": "train", "OL": "test"}
    with pytest.raises(ValueError, match="sites OL cannot be both validation and test sites"):
        prepare(bcss_folder, tmp_path, val=("OL",))


def test_what_is_missing(bcss_folder, tmp_path):
    name = f"{BCSS_NAME.format('BH')}.png"
    (bcss_folder / "masks" / name).unlink()
    with pytest.raises(ValueError, match="1 images without a mask: TCGA-BH-"):
        prepare(bcss_folder, tmp_path)
    assert len(prepare(bcss_folder, tmp_path, allow_missing=True).records) == 5
    assert any(
        "left out 4 images with a side below 600 px at 0.5 um" in r
        for r in prepare(write_bcss(tmp_path / "b"), tmp_path, size_px=600).remarks
    )


def test_what_is_wrong(bcss_folder, tmp_path):
    name = f"{BCSS_NAME.format('A2')}.png"
    mask = bcss_folder / "masks" / name
    codes = read_codes(mask)
    Image.fromarray(codes[:, :-1]).save(mask)
    with pytest.raises(ValueError, match="is of 255 x 128 px, its image of 256 x 128 px"):
        prepare(bcss_folder, tmp_path)
    codes[0, 0] = 22
    Image.fromarray(codes).save(mask)
    with pytest.raises(ValueError, match="has a pixel of value 22"):
        prepare(bcss_folder, tmp_path)
    Image.fromarray(np.minimum(codes, 21)).save(mask)
    (bcss_folder / "rgbs_colorNormalized" / name).write_bytes(b"no image")
    with pytest.raises(ValueError, match=f"{name} cannot be read"):
        prepare(bcss_folder, tmp_path)
    shutil.copy(mask, bcss_folder / "masks/region 1.png")
    pink((256, 128)).save(bcss_folder / "rgbs_colorNormalized/region 1.png")
    (bcss_folder / "rgbs_colorNormalized" / name).unlink()
    with pytest.raises(ValueError, match=r"region 1\.png: expected a name such as TCGA-"):
        prepare(bcss_folder, tmp_path, allow_missing=True)
