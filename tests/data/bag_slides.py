"""Slides on which it is known where tissue and tumour are, to draw bags of tiles from."""

from pathlib import Path

import numpy as np
from PIL import Image

from shared.synthetic import write_slide

# (height, width) of the slides; neither is a multiple of a tile or of a mask pixel.
SIZES = ((410, 610), (430, 530), (390, 570))
NUM_TILES, SIZE_PX = 12, 32


def write_bag_slides(folder: Path) -> Path:
    """Three slides of 0.5 um: tissue with noise on glass; tumour in the left half of slides 0 and 2. Their manifest."""
    rng = np.random.default_rng(0)
    lines = ["image,label,mask,case_id,split,mpp"]
    for index, (height, width) in enumerate(SIZES):
        image = np.full((height, width, 3), 245, np.uint8)
        image[60:-60, 80:-80] = np.array([190, 90, 160]) + rng.integers(-25, 26, (height - 120, width - 160, 3))
        write_slide(folder / f"{index}.tif", image)
        mask = np.zeros((height, width), np.uint8)
        if index != 1:
            mask[60:-60, 80 : width // 2] = 255
            Image.fromarray(mask).save(folder / f"{index}_mask.png")
        lines.append(f"{index}.tif,{int(index != 1)},{'' if index == 1 else f'{index}_mask.png'},{index},train,")
    (folder / "slides.csv").write_text("\n".join(lines) + "\n")
    return folder / "slides.csv"
