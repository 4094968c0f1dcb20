"""Ships the head of a training on features: a small folder in the repository, with which a fresh clone maps slides.

python scripts/ship.py --bundle bundles/camel --run runs/camel_ebhi --overlay ebhi_seg features --mpp 0.5 \
    --mpp_reason "EBHI-Seg states only a magnification of 400x"

It writes bundles/<bundle>/models/<first overlay>/: model.pt (the head), calibration.json (its threshold), inference.json (a
configuration to give after the bundle's own), metrics.json and test_images.csv or test_slides.csv (its scores), and README.md,
the model card. Data that have no overlay give the folder a name by --name, and the card a --data_note.
Every number comes from the run and its evaluation on the test split, with intervals over cases. The manifest and masks of the
data are not shipped, but must be available.

Runs that were not scored on the test split are refused, as are fine-tuned networks, which contain their encoder's weights, and
data whose licence, in the bundle's docs/data_license.txt, is neither CC0 nor CC BY 4.0.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.options.numbers import PIXEL_SIZE
from shared.front_door import begin_script


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--run", type=Path, required=True, help="output folder of the training, with its evaluation")
    parser.add_argument(
        "--overlay",
        nargs="+",
        default=[],
        help="overlays of the training, in the same order; the first is the overlay of the data, unless there is a --name",
    )
    parser.add_argument("--name", dest="head", help="name of the head's folder, for data that no overlay names")
    parser.add_argument("--data_note", help="how such data were made, and what of them cannot be had; it is stated on the card")
    parser.add_argument("--mpp", type=PIXEL_SIZE, help="um per pixel at which slides are read (default: that of the training)")
    parser.add_argument("--mpp_reason", help="reason for --mpp if the training had another value; it is stated on the card")
    parser.add_argument("--slides", type=Path, help="manifest of slides with masks, to be mapped and scored for the card")
    parser.add_argument("--slides_split", help="split of --slides: train, val or test (default: all rows)")
    parser.add_argument(
        "--slides_note",
        help="origin of the slides, and whether the training has seen any of their tissue; it is stated on the card",
    )
    return parser.parse_args()


def main() -> None:
    begin_script()
    arguments = parsed()
    # Imported late, because it takes seconds, and --help and invalid options should not wait for it.
    from scripts.shipping.shipper import Request, ship

    given = vars(arguments)
    given["overlays"] = tuple(given.pop("overlay"))
    try:
        folder = ship(Request(**given))
    except (ValueError, RuntimeError, ModuleNotFoundError) as error:
        sys.exit(f"error: {error}")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1000:.0f} kB, {', '.join(sorted(path.name for path in folder.iterdir()))}")


if __name__ == "__main__":
    main()
