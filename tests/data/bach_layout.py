"""A miniature of the BACH challenge with the names and the layout of the published files."""

from pathlib import Path

import numpy as np
import tifffile

from shared.synthetic import write_slide

SLIDE_SIZE_PX = (640, 512)
# (left, top, right, bottom) in level-0 pixels; HOLE is taken away from BENIGN.
BENIGN, HOLE = (48, 256, 144, 352), (80, 288, 112, 320)
IN_SITU, INVASIVE = (320, 256, 416, 352), (320, 64, 416, 160)
# Both ways are found in the files.
NAMES = (("Benign", "Carcinoma in situ", "Invasive carcinoma"), ("benign", "In situ carcinoma", "Carcinoma invasive"))
PHOTOS = {"Normal": "n", "Benign": "b", "InSitu": "is", "Invasive": "iv"}


def write_bach(folder: Path) -> Path:
    """Write two photos a class, ten annotated slides and one without annotations: the challenge's folder in `folder`."""
    root = folder / "ICIAR2018_BACH_Challenge"
    rng = np.random.default_rng(0)
    rows = []
    for name, prefix in PHOTOS.items():
        (root / "Photos" / name).mkdir(parents=True)
        for number in (1, 2):
            rows.append(f"{prefix}{number:03}.tif,{name}\n")
            tifffile.imwrite(root / "Photos" / name / f"{prefix}{number:03}.tif", tissue(rng, (64, 48)), photometric="rgb")
    (root / "Photos/microscopy_ground_truth.csv").write_text("".join(rows))
    (root / "WSI/gt_thumbnails").mkdir(parents=True)
    for number in range(1, 11):
        slide = root / "WSI" / f"A{number:02}.svs"
        if number < 10:
            write_slide(slide, tissue(rng, SLIDE_SIZE_PX), mpp=0.467)
        else:  # without a pixel size
            tifffile.imwrite(slide, tissue(rng, SLIDE_SIZE_PX), photometric="rgb", tile=(256, 256))
        slide.with_suffix(".xml").write_text(annotations(NAMES[number % 2], as_attribute=number % 2 == 1))
    write_slide(root / "WSI/01.svs", tissue(rng, SLIDE_SIZE_PX), mpp=0.467)
    return root


def tissue(rng: np.random.Generator, size_px: tuple[int, int]) -> np.ndarray:
    noise = rng.integers(-20, 20, (size_px[1], size_px[0], 3))
    return (np.array([190, 90, 160]) + noise).astype(np.uint8)


def annotations(names: tuple[str, str, str], as_attribute: bool) -> str:
    """ImageScope's XML: a layer with three regions, and one that is taken away."""
    regions = [region(box, name, as_attribute) for box, name in zip((BENIGN, IN_SITU, INVASIVE), names, strict=True)]
    regions.append(region(HOLE, names[0], as_attribute, negative=True))
    layer = f'<Annotation Id="1"><Attributes/><Regions><RegionAttributeHeaders/>{"".join(regions)}</Regions></Annotation>'
    return f'<?xml version="1.0"?><Annotations MicronsPerPixel="0.4671">{layer}</Annotations>'


def region(box: tuple[int, int, int, int], name: str, as_attribute: bool, negative: bool = False) -> str:
    left, top, right, bottom = box
    points = [(left, top), (right, top), (right, bottom), (left, bottom)]
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in points)
    attributes = f'<Attributes><Attribute Id="1" Name="" Value="{name}"/></Attributes>' if as_attribute else "<Attributes/>"
    text = "" if as_attribute else name
    return f'<Region Text="{text}" NegativeROA="{int(negative)}">{attributes}<Vertices>{vertices}</Vertices></Region>'
