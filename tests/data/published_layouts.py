"""Miniatures of published data sets with the names and the layout of the published files, written in their formats."""

from pathlib import Path

import numpy as np
from PIL import Image

EBHI_FOLDERS = ("Normal", "Polyp", "Low-grade IN", "High-grade IN", "Serrated adenoma", "Adenocarcinoma")
EBHI_SIZE_PX = 32
GLAS_HEADER = "name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"
# Image, patient, grade; the test images are of patients who have training images too, but for one.
GLAS_ROWS = [
    ("testA_1", 1, "benign", "adenomatous"),
    ("testA_2", 4, "malignant", "moderately differentiated"),
    ("testB_1", 6, "benign", "healthy"),
    ("train_1", 1, "benign", "healthy"),
    ("train_2", 2, "benign", "healthy"),
    ("train_3", 3, "benign", "adenomatous"),
    ("train_10", 4, "malignant", "moderately-to-poorly differentated"),
    ("train_4", 5, "malignant", "poorly differentiated"),
    ("train_5", 7, "malignant", "poorly differentiated"),
    ("train_6", 7, "malignant", "poorly differentiated"),
]
GLAS_SIZE_PX = (97, 65)
BCSS_SIZE_PX = (256, 128)
BCSS_NAME = "TCGA-{}-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500"
LUAD_PATCHES = (
    "100-2300-27920-[1 0 0 0]",
    "100-2400-27920-[1 0 0 1]",
    "101-40-50-[0 1 0 0]",
    "101-41-50-[0 0 1 0]",
    "102-44-50-[0 0 0 1]",
    "102-45-50-[0 0 0 0]",
)
LUAD_MASKED = {"val": ("200-1-2", "200-3-4", "201-5-6", "201-7-8"), "test": ("300-9-9", "301-9-9")}
# Tissues in the order of the labels, and the code of what is none.
LUAD_PALETTE = [205, 51, 51, 0, 255, 0, 65, 105, 225, 255, 165, 0, 255, 255, 255]


def pink(size_px: tuple[int, int], seed: int = 0) -> Image.Image:
    """Noise in the colour of H&E, of (width, height)."""
    noise = np.random.default_rng(seed).integers(-20, 20, (size_px[1], size_px[0], 3))
    return Image.fromarray((np.array([190, 90, 160]) + noise).astype(np.uint8))


def write_ebhi(folder: Path) -> Path:
    """Three tiles of three cases a class; a suffix in capitals, a hidden file, and an image without a mask."""
    root = folder / "EBHI-SEG"
    for index, name in enumerate(EBHI_FOLDERS):
        for part in ("image", "label"):
            (root / name / part).mkdir(parents=True)
        for number in range(3):
            # Cases of their own, but for one with a polyp and an adenocarcinoma.
            case = 2012000 + (30 if number == 0 and name in ("Polyp", "Adenocarcinoma") else 3 * index + number)
            stem = f"GT{'xc' if number == 1 else ''}{case}-1-400-00{number}"
            suffix = ".PNG" if (name, number) == ("Polyp", 2) else ".png"
            pink((EBHI_SIZE_PX, EBHI_SIZE_PX), index).save(root / name / "image" / f"{stem}{suffix}")
            mask = np.zeros((EBHI_SIZE_PX, EBHI_SIZE_PX), np.uint8)
            mask[4:12, 8:24] = 255
            Image.fromarray(mask).save(root / name / "label" / f"{stem}.png")
    pink((EBHI_SIZE_PX, EBHI_SIZE_PX)).save(root / "Low-grade IN/image/GT2012099-1-400-001.png")
    (root / "Normal/image/._GT2012000-1-400-000.png").touch()
    return root


def write_glas(folder: Path) -> Path:
    """Ten images of seven patients, glands on the left of each; a suffix in capitals."""
    root = folder / "Warwick QU Dataset (Released 2016_07_08)"
    root.mkdir()
    width, height = GLAS_SIZE_PX
    for number, (name, *_) in enumerate(GLAS_ROWS):
        suffix = ".BMP" if name == "train_3" else ".bmp"
        pink(GLAS_SIZE_PX, number).save(root / f"{name}{suffix}", format="BMP")
        glands = np.zeros((height, width), np.uint8)
        glands[20:40, 10:20], glands[20:40, 22:32] = 1, 2
        Image.fromarray(glands).save(root / f"{name}_anno.bmp")
    rows = [f"{name},{patient}, {grade}, {other}" for name, patient, grade, other in GLAS_ROWS]
    (root / "Grade.csv").write_text("\n".join([GLAS_HEADER, *rows, ""]), encoding="utf-8")
    return root


def write_bcss(folder: Path, sites: tuple[str, ...] = ("A2", "AR", "BH", "OL")) -> Path:
    """An image a site of two regions of 128 px: tumour and stroma on the left, necrosis or something else on the right."""
    root = folder / "0_Public-data-Amgad2019_0.25MPP"
    for part in ("rgbs_colorNormalized", "masks", "meta"):
        (root / part).mkdir(parents=True)
    for number, site in enumerate(sites):
        name = BCSS_NAME.format(site)
        pink(BCSS_SIZE_PX, number).save(root / "rgbs_colorNormalized" / f"{name}.png")
        codes = np.full(BCSS_SIZE_PX[::-1], 2, np.uint8)
        codes[:32, :64] = 20  # DCIS, a tumour
        codes[:, 128:] = 4
        if site == "AR":
            codes[:64, 128:] = 0
        if site == "BH":
            codes[:, 128:] = 13  # normal, that is other
        Image.fromarray(codes).save(root / "masks" / f"{name}.png")
    return root


def write_luad_histoseg(folder: Path, size_px: int = 224) -> Path:
    root = folder / "LUAD-HistoSeg"
    (root / "train").mkdir(parents=True)
    for number, name in enumerate(LUAD_PATCHES):
        pink((size_px, size_px), number).save(root / "train" / f"{name}.png")
    for split, names in LUAD_MASKED.items():
        _write_masked(root / split, names, (size_px, size_px), num_tissues=4)
    return root


def write_wsss4luad(folder: Path) -> Path:
    """Patches of many sizes; the training folder holds itself once more, as where its archive was unpacked into a folder."""
    root = folder / "WSSS4LUAD"
    training = root / "1.training/1.training"
    training.mkdir(parents=True)
    sizes_px = {"11-1-2-[1, 0, 0]": (150, 140), "11-3-4-[1, 1, 0]": (200, 200), "12-5-6-[0, 1, 0]": (100, 200)}
    sizes_px |= {"13-7-8-[0, 0, 1]": (300, 130), "14-7-8-[0, 1, 0]": (128, 128)}
    for number, (name, size_px) in enumerate(sizes_px.items()):
        pink(size_px, number).save(training / f"{name}.png")
    _write_masked(root / "2.validation", ("00", "01"), (260, 130), num_tissues=3)
    _write_masked(root / "3.testing", ("00",), (130, 130), num_tissues=3)
    return root


def _write_masked(folder: Path, names: tuple[str, ...], size_px: tuple[int, int], num_tissues: int) -> None:
    """Images whose masks, with a palette, hold the last tissue, tumour in the first image alone, and a white corner."""
    for part in ("img", "mask"):
        (folder / part).mkdir(parents=True)
    for number, name in enumerate(names):
        pink(size_px, number).save(folder / "img" / f"{name}.png")
        codes = np.full(size_px[::-1], num_tissues - 1, np.uint8)
        codes[:32, :32] = num_tissues
        if number == 0:
            codes[64:, :] = 0
        mask = Image.fromarray(codes).convert("P")
        mask.putpalette(LUAD_PALETTE)
        mask.putdata(codes.ravel().tolist())
        mask.save(folder / "mask" / f"{name}.png")
