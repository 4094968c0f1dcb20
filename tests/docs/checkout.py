"""A copy of the checkout in which commands write, with the files that the READMEs' commands take for given, all of them small."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import h5py
import numpy as np
import tifffile
from PIL import Image

from shared.synthetic import BreastPlan, BreastSlidePlan, DemoPlan, SlidePlan, write_demo, write_slide

from ..bundles.conftest import IMAGE_SIZE_PX, painted
from ..data.bach_layout import write_bach
from ..data.camelyon16_layout import write_camelyon16
from ..data.qupath_layout import collection, feature, square, write
from .documented import ROOT, Command

SLIDES = (
    SlidePlan("train", 0.4, (320, 420)),
    SlidePlan("val", 0.4, (320, 420)),
    SlidePlan("test", 0.3, (360, 480)),
)
COHORT_SPLITS = ("train", "train", "train", "train", "val", "val", "test", "test")
COHORT = tuple(SlidePlan(split, 0.4 * (index % 2 == 0), (420, 560)) for index, split in enumerate(COHORT_SPLITS))
PLANS = {
    # Six cases: one or two a fold.
    "demo": DemoPlan(images={"train": 16, "val": 4, "test": 4}, size_px=IMAGE_SIZE_PX, slides=SLIDES),
    "demo_slides": DemoPlan(images={}, slides=COHORT),
    "demo_breast": BreastPlan(
        masked={"train": 8, "val": 4, "test": 4},
        labelled={"train": 8},
        size_px=IMAGE_SIZE_PX,
        slides=(BreastSlidePlan("train", (2,), (330, 410)), BreastSlidePlan("test", (1, 2), (480, 560))),
    ),
}
# README or word of a command -> the generated data that stand for the user's own.
OWN_DATA = {
    "bundles/alpha_beta_mil/docs/README.md": "demo_slides",
    "bundles/joint_seg_cls/docs/README.md": "demo_breast",
    "patches": "demo_breast",
}
CAMELYON16 = [f"{kind}_{number:03}" for kind in ("normal", "tumor", "test") for number in (1, 2, 3)]
SHEET = "File ID\tFile Name\tProject ID\n"


class Checkout:
    """Links to the repository's code and configurations; what commands write stays here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("scripts", "shared", "requirements.txt"):
            (folder / name).symlink_to(ROOT / name)
        for bundle in (ROOT / "bundles").glob("*/configs"):
            own = folder / "bundles" / bundle.parent.name
            own.mkdir(parents=True)
            for name in ("configs", "docs", "shared"):
                (own / name).symlink_to(bundle.parent / name)
            # Where the bundle's download would be.
            (folder / bundle.parent.name).symlink_to(own)
        for name, plan in PLANS.items():
            write_demo(folder / "data" / name, plan)
        for name in ("demo", "demo_slides"):
            _paint(folder / "data" / name)

    def begin(self) -> None:
        """As the user's checkout is before the first command of a README; what the bundles' defaults left stays."""
        for name in ("runs", "maps", "my", "slides", "tcga", "data/tcga", "data/bach", "data/camelyon16", "data/patch_camelyon"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def provide_for(self, command: Command) -> None:
        """The user's own files at the READMEs' paths, also where an earlier command wrote others; no maps if it writes them."""
        if "maps" in command.values_of("--output_dir") + command.values_of("--out"):
            shutil.rmtree(self.folder / "maps", ignore_errors=True)
        names = [OWN_DATA[name] for name in (*command.words, command.readme) if name in OWN_DATA]
        data = self.folder / "data" / (names[0] if names else "demo")
        own, folder = self.folder / "my", self.folder / "slides"
        own.mkdir(exist_ok=True)
        for name, manifests in (("images", ("images", "all")), ("slides", ("slides",))):
            for manifest in manifests:
                _write_manifest_of_elsewhere(data / f"{name}.csv", own / f"{manifest}.csv")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(data / "slides", folder)
        slides = sorted(folder.iterdir())
        shutil.copy(slides[-1], self.folder / command.folder / "slide.svs")
        for slide in slides:
            write(self.folder / "geojson" / f"{slide.stem}.geojson", collection(feature([square(0, 0, 64)], "Tumor")))
        self._provide_class_folders(self.folder / "images")
        for tcga in ("tcga", "data/tcga"):
            self._provide_tcga(self.folder / tcga)
        if not (self.folder / "ICIAR2018_BACH_Challenge").exists():
            write_bach(self.folder)
            write_camelyon16(self.folder / "CAMELYON16", CAMELYON16, ["test_001"])
        self._provide_patch_camelyon(self.folder / "data/patch_camelyon")

    def _provide_class_folders(self, folder: Path) -> None:
        data = self.folder / "data/demo"
        with (data / "images.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                kind = folder / ("tumour" if row["label"] == "1" else "normal")
                kind.mkdir(parents=True, exist_ok=True)
                shutil.copy(data / row["image"], kind)

    def _provide_tcga(self, folder: Path) -> None:
        """Names alone: slides are not opened before a training."""
        names = [f"TCGA-AB-{case:04}-{code}A-01-TS1.svs" for case in range(8) for code in ("01", "11")]
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).touch()
        rows = "".join(f"{name[:12]}\t{name}\tTCGA-KIRC\n" for name in names)
        (self.folder / "gdc_sample_sheet.tsv").write_text(SHEET + rows)

    def _provide_patch_camelyon(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        values = {"x": rng.integers(0, 256, (4, 96, 96, 3), np.uint8), "y": np.array([0, 1, 0, 1], np.uint8).reshape(4, 1, 1, 1)}
        for letter, array in values.items():
            with h5py.File(folder / f"camelyonpatch_level_2_split_test_{letter}.h5", "w") as file:
                file.create_dataset(letter, data=array)


def _paint(data: Path) -> None:
    """Give tumour a colour of its own, so that the few steps of a small training find some."""
    for mask in sorted((data / "masks").iterdir()):
        _paint_one(data / "images" / mask.name, mask)
    for mask in sorted((data / "slide_masks").iterdir()):
        _paint_one(data / "slides" / f"{mask.stem}.tif", mask)


def _paint_one(picture: Path, mask: Path) -> None:
    is_slide = picture.suffix == ".tif"
    pixels = tifffile.imread(picture, level=0) if is_slide else np.array(Image.open(picture))
    pixels = painted(pixels, np.array(Image.open(mask)) > 0)
    if is_slide:
        write_slide(picture, pixels)
    else:
        Image.fromarray(pixels).save(picture)


def _write_manifest_of_elsewhere(source: Path, target: Path) -> None:
    """The same manifest in another folder: its paths are relative to it."""
    with source.open(newline="") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), reader.fieldnames or []
    for row in rows:
        for column in ("image", "mask"):
            if row.get(column):
                row[column] = str(source.parent / row[column])
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)
