"""A miniature of CAMELYON16 with the names and the layout of the published files."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from shared.synthetic import write_slide

# 0.25 um per pixel; tissue left of TISSUE_PX, glass right of it.
SLIDE_SIZE_PX, TISSUE_PX, MPP = (768, 512), 640, 0.25
# (left, top, right, bottom) in level-0 pixels; HOLE is taken away from LESION.
LESION, HOLE = (64, 64, 192, 192), (96, 96, 128, 128)
Box = tuple[float, float, float, float]


def corners(box: Box) -> list[tuple[float, float]]:
    left, top, right, bottom = box
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def asap(areas: Iterable[tuple[str, Sequence[tuple[float, float]]]]) -> str:
    """ASAP's XML of areas: group and points."""
    drawn = []
    for index, (group, points) in enumerate(areas):
        coordinates = "".join(f'<Coordinate Order="{order}" X="{x}" Y="{y}" />' for order, (x, y) in enumerate(points))
        attributes = f'Name="Annotation {index}" Type="Polygon" PartOfGroup="{group}" Color="#F4FA58"'
        drawn.append(f"<Annotation {attributes}><Coordinates>{coordinates}</Coordinates></Annotation>")
    return f'<?xml version="1.0"?><ASAP_Annotations><Annotations>{"".join(drawn)}</Annotations></ASAP_Annotations>'


def write_camelyon16(root: Path, names: Sequence[str], test_tumour: Sequence[str] = ()) -> Path:
    """Write slides of these names, links to a single one, a lesion with a hole for each of those with tumour, and the table."""
    rng = np.random.default_rng(0)
    image = np.full((SLIDE_SIZE_PX[1], SLIDE_SIZE_PX[0], 3), 243, np.uint8)
    image[:, :TISSUE_PX] = np.array([190, 90, 160]) + rng.integers(-20, 20, (SLIDE_SIZE_PX[1], TISSUE_PX, 3))
    root.mkdir(parents=True)
    write_slide(root / "any.tif", image, mpp=MPP)
    for folder in ("training/normal", "training/tumor", "testing/images"):
        (root / folder).mkdir(parents=True)
    for part in ("training", "testing"):
        (root / part / "lesion_annotations").mkdir()
    lesion = asap([("_0", corners(LESION)), ("_2", corners(HOLE))])
    rows = []
    for name in names:
        kind = name.split("_")[0]
        folder = "testing/images" if kind == "test" else f"training/{kind}"
        (root / folder / f"{name}.tif").hardlink_to(root / "any.tif")
        if kind == "tumor" or name in test_tumour:
            part = "testing" if kind == "test" else "training"
            (root / part / "lesion_annotations" / f"{name}.xml").write_text(lesion)
        if kind == "test":
            rows.append(f"{name},Tumor,IDC,Macro\n" if name in test_tumour else f"{name},Normal,None,None\n")
    (root / "testing/reference.csv").write_text("".join(rows))
    (root / "any.tif").unlink()
    return root
