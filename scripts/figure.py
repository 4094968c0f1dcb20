"""Draws one picture of several methods: images in rows; the truth and the map of each method in columns.

python scripts/figure.py --manifest data/demo/images.csv --split test --out figure.png \\
    --maps "Max-Max=maps/max_max" "CAMEL=maps/camel" "Pixel-level FSB=maps/pixel_fsb"

Each folder of maps is one that inference.json of any bundle, or scripts/infer.py, has filled for the manifest: for images,
regions of slides or whole slides. Pixels are drawn where they are tumour at the threshold of their maps; with --shades the more
opaque, the likelier. Two of three images have tumour, evenly spaced through the manifest; --images names others. The ending of
--out selects the format: .png, .jpg, .pdf or .svg.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.options.annotation import add_annotation_options
from scripts.options.numbers import COUNT
from shared.front_door import begin_script
from shared.writers.figures.picture_formats import picture_format


def _picture(text: str) -> Path:
    try:
        picture_format(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True, help="manifest of the images")
    parser.add_argument("--split", help="split of the manifest: train, val or test (default: all rows)")
    parser.add_argument(
        "--maps", nargs="+", required=True, metavar="TITLE=FOLDER", help="one column per map folder, in this order"
    )
    parser.add_argument(
        "--images", nargs="+", help="names of image files without their endings, in this order: every row of each"
    )
    parser.add_argument("--num_images", type=COUNT, default=4, help="number of rows if --images is not given (default 4)")
    parser.add_argument("--side_px", type=COUNT, default=400, help="longest side of an image in the picture (default 400)")
    parser.add_argument("--shades", action="store_true", help="draw probabilities instead of decisions")
    parser.add_argument("--title", default="", help="title above the picture")
    parser.add_argument("--out", type=_picture, required=True, help="picture to write: .png, .jpg, .pdf or .svg")
    add_annotation_options(parser)
    return parser.parse_args()


def main() -> None:
    begin_script()
    arguments = parsed()
    # Takes seconds to import, which --help and wrong options need not wait for.
    from scripts.evaluation.map_figure import draw

    try:
        print(draw(arguments))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
