"""The overlays of published data sets over their train.json, on miniatures of these data sets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.data.public.bcss import BCSS_CLASSES, bcss, bcss_tumour
from shared.data.public.ebhi_seg import EBHI_CLASSES, ebhi_seg, ebhi_tumour
from shared.data.public.glas import GLAS_CLASSES, glas, glas_malignancy
from shared.data.public.releases import PublishedData, write_manifests
from shared.data.public.tissue_patches import LUAD_HISTOSEG, WSSS4LUAD, of_one_tissue, tissue_patches, with_tumour

from ..data.published_layouts import write_bcss, write_ebhi, write_glas, write_luad_histoseg, write_wsss4luad
from .conftest import TINY_CDWS, TINY_JOINT
from .runs import Bundle

NO_SIZES = ("image_size_px", "labelled_size_px", "mpp")
BINARY = ("no", "yes")


def write_ebhi_data(folder: Path) -> None:
    data = ebhi_seg(write_ebhi(folder), folder / "data/masks")
    manifests = {"manifest.csv": (ebhi_tumour(data.records), BINARY), "classes.csv": (data.records, EBHI_CLASSES)}
    write_manifests(data, folder / "data", manifests)


def write_glas_data(folder: Path) -> None:
    data = glas(write_glas(folder), folder / "data/masks", size_px=64)
    write_both(folder, data, data.records, glas_malignancy(data.records), GLAS_CLASSES)


def write_bcss_data(folder: Path) -> None:
    data = bcss(write_bcss(folder), folder / "data/masks", size_px=64)
    write_both(folder, data, data.records, bcss_tumour(data.records), BCSS_CLASSES)


def write_luad_data(folder: Path) -> None:
    data = tissue_patches(write_luad_histoseg(folder), folder / "data/masks", LUAD_HISTOSEG, train_masks=0.5)
    write_both(folder, data, of_one_tissue(data.records), with_tumour(data.records), LUAD_HISTOSEG.classes)


def write_wsss_data(folder: Path) -> None:
    data = tissue_patches(write_wsss4luad(folder), folder / "data/masks", WSSS4LUAD, size_px=128, train_masks=0.5)
    write_manifests(data, folder / "data", {"classes.csv": (of_one_tissue(data.records), WSSS4LUAD.classes)})


def write_both(folder: Path, data: PublishedData, classes: list[Any], binary: list[Any], names: tuple[str, ...]) -> None:
    write_manifests(data, folder / "data", {"images.csv": (binary, BINARY), "classes.csv": (classes, names)})


WRITERS: dict[str, Callable[[Path], None]] = {
    "ebhi_seg": write_ebhi_data,
    "ebhi_seg_classes": write_ebhi_data,
    "glas": write_glas_data,
    "bcss": write_bcss_data,
    "luad_histoseg": write_luad_data,
    "wsss4luad": write_wsss_data,
}
# What the miniatures' images are when read at the overlay's mpp; theirs are the published sizes where nothing stands here.
SIZES_PX = {
    ("camel", "ebhi_seg"): 32,
    ("cdws_mil", "ebhi_seg"): 8,
    ("joint_seg_cls", "ebhi_seg"): 16,
    ("joint_seg_cls", "ebhi_seg_classes"): 16,
    ("camel", "glas"): 64,
    ("cdws_mil", "glas"): 32,
    ("joint_seg_cls", "glas"): 32,
    ("camel", "bcss"): 64,
    ("cdws_mil", "bcss"): 32,
    ("joint_seg_cls", "bcss"): 32,
    ("camel", "luad_histoseg"): None,
    ("cdws_mil", "luad_histoseg"): None,
    ("joint_seg_cls", "luad_histoseg"): None,
    ("joint_seg_cls", "wsss4luad"): None,
}
CLASSES = {
    "ebhi_seg": ("normal", "tumour"),
    "ebhi_seg_classes": EBHI_CLASSES,
    "glas": GLAS_CLASSES,
    "bcss": BCSS_CLASSES,
    "luad_histoseg": LUAD_HISTOSEG.classes,
    "wsss4luad": WSSS4LUAD.classes,
}
TINIES = {"cdws_mil": TINY_CDWS, "joint_seg_cls": TINY_JOINT}


def options_of(bundle: str, overlay: str) -> dict[str, Any]:
    size_px = SIZES_PX[bundle, overlay]
    sizes = {} if size_px is None else {"image_size_px": size_px}
    return sizes | ({"labelled_size_px": size_px} if sizes and bundle == "joint_seg_cls" else {})


@pytest.mark.parametrize(("bundle", "overlay"), SIZES_PX)
def test_an_overlay_reads_what_its_script_writes(tmp_path, bundle, overlay):
    WRITERS[overlay](tmp_path)
    options = options_of(bundle, overlay) | {"output_dir": str(tmp_path / "run"), "tracking::enabled": False, "num_workers": 0}
    parsed = Bundle(bundle, tmp_path / "data", {}).workflow("train", overlay, **options).parser.get_parsed_content
    parsed("checked_images")
    size_px = parsed("image_size_px")
    for split in ("val", "test"):
        for item in parsed(f"{split}_images"):
            assert item["image"].shape == (3, size_px, size_px)
            assert item["mask"].shape == (1, size_px, size_px)
    assert parsed("train::dataset" if bundle != "camel" else "train_images")[0]["image"].shape == (3, size_px, size_px)
    if bundle == "joint_seg_cls":
        assert tuple(parsed("class_names")) == CLASSES[overlay]
        assert all(parsed("supervision"))
    if bundle == "cdws_mil":
        assert parsed("loss_function").needs_areas == (overlay != "luad_histoseg")


@pytest.mark.slow
@pytest.mark.parametrize(("bundle", "overlay"), [("cdws_mil", "glas"), ("joint_seg_cls", "luad_histoseg")])
def test_an_overlay_trains_to_its_end(tmp_path, bundle, overlay):
    """Regions of images with areas from their masks; a class without labelled images."""
    WRITERS[overlay](tmp_path)
    tiny = {name: value for name, value in TINIES[bundle].items() if name not in NO_SIZES}
    tiny |= options_of(bundle, overlay) | {name: 1 for name in ("num_epochs", "steps_per_epoch") if name in tiny}
    Bundle(bundle, tmp_path / "data", tiny).train_here(overlay, output_dir=tmp_path / "run")
    assert (tmp_path / "run/evaluation/metrics.json").is_file()
